"""What every index must do."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import cast, get_args
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pytest

from adapters.pgvector import PgvectorIndex, set_up
from handlers.ports import Entry, Hit, Index, Mode, Vectors

DIMENSION = 48
MODES: tuple[Mode, ...] = get_args(Mode)

Vector = npt.NDArray[np.float32]


@pytest.fixture
async def pgvector(module_database_url: str) -> AsyncIterator[Index]:
    await set_up(module_database_url, DIMENSION)
    async with PgvectorIndex(module_database_url) as index:
        yield index


@pytest.fixture
async def pgvector_approximate(module_database_url: str) -> AsyncIterator[Index]:
    await set_up(module_database_url, DIMENSION)
    async with PgvectorIndex(module_database_url, exact=0) as index:
        yield index


@pytest.fixture(params=["pgvector", "pgvector_approximate"])
def index(request: pytest.FixtureRequest) -> Index:
    return cast(Index, request.getfixturevalue(request.param))


def id_() -> str:
    return str(uuid4())


def units(count: int, seed: int = 0) -> Vectors:
    """Random vectors of length 1 around 50 centres, as texts lie around topics; shape (count, DIMENSION)."""
    centres = np.random.default_rng(0).normal(size=(50, DIMENSION))
    random = np.random.default_rng([seed, 1])
    points = centres[random.integers(0, 50, count)] + random.normal(size=(count, DIMENSION)) / 2
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points.astype(np.float32)


def axis(number: int, *, towards: int | None = None) -> Vector:
    """The unit vector of an axis, or one between it and another, nearer to the first."""
    vector = np.zeros(DIMENSION, np.float32)
    vector[number] = 1
    if towards is not None:
        vector[number], vector[towards] = 0.8, 0.6
    return vector


def entry(content: str, vector: Vector | None = None, *, id: str | None = None, position: int = 0) -> Entry:
    return Entry(id or id_(), position, content, 3, "Rivers › Mills", axis(0) if vector is None else vector)


async def found(index: Index, tenant: str, dataset: str) -> set[str]:
    """The ids that a search for water finds; in each of the modes they must be the same."""
    found = [
        {hit.id for hit in await index.search(tenant, [dataset], "water", axis(0), mode=mode, top_k=10)}
        for mode in MODES
    ]
    assert found[0] == found[1] == found[2]
    return found[0]


@pytest.mark.parametrize("mode", MODES)
async def test_what_was_written_is_found_whole(index: Index, mode: Mode) -> None:
    dataset, document = id_(), id_()
    wheel = Entry(id_(), 7, "The wheel turns.", None, None, axis(1))
    race = entry("Water runs down the race.", axis(0), position=8)
    await index.write("acme", dataset, document, [wheel, race])
    hits = await index.search("acme", [dataset], "running water", axis(0, towards=2), mode=mode, top_k=1)
    (hit,) = hits
    semantic, full_text = (1 if mode != "full_text" else None), (1 if mode != "semantic" else None)
    content = "Water runs down the race."
    assert hit == Hit(race.id, dataset, document, 8, content, 3, "Rivers › Mills", hit.score, semantic, full_text)
    assert math.isfinite(hit.score)
    everything = await index.search("acme", [dataset], "wheel", axis(1), mode=mode, top_k=5)
    assert (everything[0].id, everything[0].page, everything[0].heading) == (wheel.id, None, None)


async def test_the_same_id_replaces(index: Index) -> None:
    dataset, document = id_(), id_()
    old = entry("Water runs.", axis(0))
    await index.write("acme", dataset, document, [old, entry("The mill stands still.", axis(5))])
    await index.write("acme", dataset, document, [entry("Flour falls.", axis(1), id=old.id)])
    assert await index.search("acme", [dataset], "water", None, mode="full_text", top_k=5) == []
    (flour,) = await index.search("acme", [dataset], "flour", None, mode="full_text", top_k=5)
    assert (flour.id, flour.content) == (old.id, "Flour falls.")
    nearest, *others = await index.search("acme", [dataset], "", axis(1), mode="semantic", top_k=5)
    assert (nearest.id, nearest.content, len(others)) == (old.id, "Flour falls.", 1)


@pytest.mark.parametrize("mode", MODES)
async def test_writing_twice_is_writing_once(index: Index, mode: Mode) -> None:
    dataset, document = id_(), id_()
    entries = [entry(f"Water, part {n}", vector, position=n) for n, vector in enumerate(units(20))]
    await index.write("acme", dataset, document, entries)
    once = await index.search("acme", [dataset], "water part 3", entries[3].vector, mode=mode, top_k=40)
    await asyncio.gather(*(index.write("acme", dataset, document, entries) for _ in range(4)))
    assert await index.search("acme", [dataset], "water part 3", entries[3].vector, mode=mode, top_k=40) == once
    assert len(once) == 20


async def test_an_id_twice_in_one_write_is_the_last(index: Index) -> None:
    dataset, id = id_(), id_()
    await index.write("acme", dataset, id_(), [entry("Water", id=id), entry("Water again", id=id)])
    (hit,) = await index.search("acme", [dataset], "water", None, mode="full_text", top_k=5)
    assert hit.content == "Water again"


async def test_nothing_to_write(index: Index) -> None:
    dataset = id_()
    await index.write("acme", dataset, id_(), [])
    assert await found(index, "acme", dataset) == set()


async def test_a_deleted_document_is_not_found_and_never_comes_back(index: Index) -> None:
    dataset, document, kept = id_(), id_(), entry("Water stays")
    gone = [entry("Water goes"), entry("Water goes too")]
    await index.write("acme", dataset, document, gone)
    await index.write("acme", dataset, id_(), [kept])
    await index.delete("acme", dataset, document)
    assert await found(index, "acme", dataset) == {kept.id}
    await index.write("acme", dataset, document, [*gone, entry("Water anew")])
    assert await found(index, "acme", dataset) == {kept.id}
    await index.delete("acme", dataset, document)
    assert await found(index, "acme", dataset) == {kept.id}


async def test_a_document_deleted_before_it_was_written(index: Index) -> None:
    dataset, document = id_(), id_()
    await index.delete("acme", dataset, document)
    await index.write("acme", dataset, document, [entry("Water")])
    assert await found(index, "acme", dataset) == set()


async def test_a_deleted_dataset_is_not_found_and_never_comes_back(index: Index) -> None:
    dataset, other, document, kept = id_(), id_(), id_(), entry("Water stays")
    await index.write("acme", dataset, document, [entry("Water goes")])
    await index.write("acme", other, id_(), [kept])
    await index.delete("acme", dataset, id_())
    await index.delete("acme", dataset)
    await index.write("acme", dataset, document, [entry("Water")])
    await index.write("acme", dataset, id_(), [entry("Water")])
    assert await found(index, "acme", dataset) == set()
    assert await found(index, "acme", other) == {kept.id}
    await index.delete("acme", dataset)
    await index.delete("acme", dataset, document)
    assert await found(index, "acme", dataset) == set()


@pytest.mark.parametrize("whole_dataset", [False, True])
async def test_a_write_that_races_with_a_delete_leaves_nothing(index: Index, whole_dataset: bool) -> None:
    datasets = [id_() for _ in range(25)]

    async def write(dataset: str, document: str, delay_ms: int) -> None:
        await asyncio.sleep(delay_ms / 1000)
        await index.write("acme", dataset, document, [entry(f"Water {n}", v) for n, v in enumerate(units(10))])

    async def race(dataset: str, round: int) -> None:
        document = id_()
        delete = index.delete("acme", dataset, None if whole_dataset else document)
        writes = [write(dataset, document, round % 5), write(dataset, document, 0), write(dataset, document, 10)]
        await asyncio.gather(writes[0], writes[1], delete, writes[2])

    await asyncio.gather(*(race(dataset, round) for round, dataset in enumerate(datasets)))
    for mode in MODES:
        assert await index.search("acme", datasets, "water", axis(0), mode=mode, top_k=100) == []


async def test_tenants_do_not_see_one_another(index: Index) -> None:
    dataset, document, ours = id_(), id_(), entry("Our water")
    await index.write("acme", dataset, document, [ours])
    await index.write("zenith", dataset, document, [entry("Their water", id=ours.id), entry("More water")])
    (hit,) = await index.search("acme", [dataset], "water", axis(0), mode="hybrid", top_k=10)
    assert (hit.id, hit.content, hit.semantic_rank, hit.full_text_rank) == (ours.id, "Our water", 1, 1)
    await index.delete("zenith", dataset)
    assert await found(index, "zenith", dataset) == set()
    assert await found(index, "acme", dataset) == {ours.id}
    await index.write("acme", dataset, document, [entry("Our water again", id=ours.id)])
    assert await found(index, "acme", dataset) == {ours.id}
    assert await found(index, "acme' OR '1'='1", dataset) == set()


async def test_only_the_datasets_asked_for(index: Index) -> None:
    one, two, three = id_(), id_(), id_()
    entries = {dataset: entry("Water", axis(0)) for dataset in (one, two, three)}
    for dataset, written in entries.items():
        await index.write("acme", dataset, id_(), [written])
    for mode in MODES:
        hits = await index.search("acme", [one, three], "water", axis(0), mode=mode, top_k=10)
        assert {(hit.dataset, hit.id) for hit in hits} == {(one, entries[one].id), (three, entries[three].id)}
        assert await index.search("acme", [], "water", axis(0), mode=mode, top_k=10) == []
        assert await index.search("acme", [id_()], "water", axis(0), mode=mode, top_k=10) == []


@pytest.mark.parametrize("mode", MODES)
async def test_top_k_best_first(index: Index, mode: Mode) -> None:
    dataset, vectors = id_(), units(120)
    entries = [entry("water " * (1 + n % 7) + f"part {n}", vector) for n, vector in enumerate(vectors)]
    await index.write("acme", dataset, id_(), entries)
    hits = await index.search("acme", [dataset], "water", vectors[5], mode=mode, top_k=100)
    assert len(hits) == len({hit.id for hit in hits}) == 100
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    for top_k in (1, 4, 60):
        fewer = await index.search("acme", [dataset], "water", vectors[5], mode=mode, top_k=top_k)
        assert len(fewer) == top_k
        assert fewer[:4] == hits[: min(top_k, 4)]
    assert await index.search("acme", [dataset], "water", vectors[5], mode=mode, top_k=0) == []


async def test_ranks_of_the_legs(index: Index) -> None:
    dataset = id_()
    near, both, worded = (
        entry("Silence", axis(0)),
        entry("Water", axis(0, towards=1)),
        entry("Water, water, water!", axis(1)),
    )
    await index.write("acme", dataset, id_(), [near, both, worded])
    hits = await index.search("acme", [dataset], "water", axis(0), mode="hybrid", top_k=3)
    ranks = {hit.id: (hit.semantic_rank, hit.full_text_rank) for hit in hits}
    text = {hit.id: hit.full_text_rank for hit in hits}
    assert ranks[near.id] == (1, None)
    assert ranks[both.id][0] == 2
    assert ranks[worded.id][0] == 3
    assert {text[both.id], text[worded.id]} == {1, 2}


async def test_hybrid_finds_first_what_each_leg_finds_second(index: Index) -> None:
    """Mean reciprocal rank of the right answer over three questions: the fusion beats the better leg."""
    dataset, entries, questions = id_(), [], []
    for n, (subject, verb) in enumerate([("sluice", "opens"), ("miller", "sleeps"), ("bucket", "leaks")]):
        right = entry(f"The {subject} {verb} at dawn, some say, others that the keeper knows.", axis(3 * n))
        similar = entry("Nobody was there.", axis(3 * n, towards=3 * n + 1))
        wordy = entry(f"{subject} {verb}", -axis(3 * n))
        entries += [right, similar, wordy]
        questions.append((f"When {subject} {verb}?", axis(3 * n, towards=3 * n + 1), right.id))
    await index.write("acme", dataset, id_(), entries)

    async def reciprocal_rank(mode: Mode) -> float:
        ranks = []
        for query, vector, right in questions:
            hits = await index.search("acme", [dataset], query, vector, mode=mode, top_k=9)
            ranks.append(1 / (1 + [hit.id for hit in hits].index(right)))
        return sum(ranks) / len(ranks)

    semantic, full_text, hybrid = [await reciprocal_rank(mode) for mode in ("semantic", "full_text", "hybrid")]
    assert (semantic, full_text) == (0.5, 0.5)
    assert hybrid == 1


async def test_equals_are_ordered_by_id(index: Index) -> None:
    dataset = id_()
    entries = [entry("The same water", axis(0)) for _ in range(8)]
    for written in entries:
        await index.write("acme", dataset, id_(), [written])
    for mode in MODES:
        hits = await index.search("acme", [dataset], "water", axis(0), mode=mode, top_k=5)
        assert [hit.id for hit in hits] == sorted(written.id for written in entries)[:5]


@pytest.mark.parametrize(
    ("content", "query"),
    [
        ("东京都的天气今天很好", "东京天气"),
        ("水車は川の流れで回る。", "水車"),
        ("물레방아가 돌아간다", "물레방아"),
        ("يدور الدولاب بقوة الماء", "الماء"),
        ("مُحَمَّدٌ يكتب", "محمد"),
        ("הגלגל מסתובב במים", "במים"),
        ("गंगा नदी का पानी", "पानी"),
        ("Ο μύλος γυρίζει", "μύλος"),
        ("ﬂour and ½ crème brûlée", "flour CRÈME"),
        ("It costs $3.50; call x_y('a \" b')", "x y"),
        ("Robert'); DROP TABLE segments;-- % %s {0} \\", "robert'); drop -- %s"),
        ("a\u200bword \U0001f600 \ufeff𝒽eadrace", "headrace"),
        ("running mills", "a mill that runs"),
        ("w" * 5000, "w" * 70),
    ],
)
async def test_words_of_any_script(index: Index, content: str, query: str) -> None:
    dataset, written = id_(), entry(content, axis(0))
    await index.write("acme", dataset, id_(), [written, entry("Nothing of that sort", axis(1))])
    for mode in MODES:
        hits = await index.search("acme", [dataset], query, axis(0), mode=mode, top_k=1)
        assert [(hit.id, hit.content) for hit in hits] == [(written.id, content)]


@pytest.mark.parametrize("query", ["", "   ", "the of and", "?!", "\0", "' OR 1=1 --", "%s {} \\", "no such thing"])
async def test_a_query_without_a_known_word(index: Index, query: str) -> None:
    dataset, written = id_(), entry("Water", axis(0))
    await index.write("acme", dataset, id_(), [written])
    assert await index.search("acme", [dataset], query, None, mode="full_text", top_k=5) == []
    modes: list[Mode] = ["semantic", "hybrid"]
    for mode in modes:
        (hit,) = await index.search("acme", [dataset], query, axis(0), mode=mode, top_k=5)
        assert (hit.id, hit.semantic_rank, hit.full_text_rank) == (written.id, 1, None)


async def test_a_search_without_a_vector(index: Index) -> None:
    dataset, written = id_(), entry("Water", axis(0))
    await index.write("acme", dataset, id_(), [written])
    (hit,) = await index.search("acme", [dataset], "water", None, mode="hybrid", top_k=5)
    assert (hit.id, hit.semantic_rank, hit.full_text_rank) == (written.id, None, 1)
    assert await index.search("acme", [dataset], "water", None, mode="semantic", top_k=5) == []


async def test_scores_are_finite(index: Index) -> None:
    dataset = id_()
    nowhere = np.zeros(DIMENSION, np.float32)
    await index.write("acme", dataset, id_(), [entry("", axis(0)), entry("of the", nowhere), entry("water " * 5000)])
    for mode in MODES:
        for vector in (axis(0), -axis(0), nowhere):
            hits = await index.search("acme", [dataset], "water", vector, mode=mode, top_k=5)
            assert hits
            assert all(math.isfinite(hit.score) for hit in hits)


async def test_a_long_query(index: Index) -> None:
    dataset, written = id_(), entry("Water", axis(0))
    await index.write("acme", dataset, id_(), [written])
    query = "water " + " ".join(f"word{n}" for n in range(20_000))
    (hit,) = await index.search("acme", [dataset], query, axis(0), mode="hybrid", top_k=5)
    assert (hit.id, hit.full_text_rank) == (written.id, 1)


async def test_five_thousand_segments_and_five(index: Index) -> None:
    """Recall against the exact nearest, and a filter that leaves one in a thousand."""
    many, few = id_(), id_()
    vectors = units(5005)
    entries = [entry(f"Water {n}", vector, position=n) for n, vector in enumerate(vectors)]
    batches = [entries[first : first + 250] for first in range(0, 5000, 250)]
    await asyncio.gather(*(index.write("acme", many, id_(), batch) for batch in batches))
    await index.write("acme", few, id_(), entries[5000:])
    recalls = []
    for query in units(50, seed=1):
        nearest = np.argsort(-(vectors[:5000] @ query), kind="stable")[:10]
        hits = await index.search("acme", [many], "", query, mode="semantic", top_k=10)
        recalls.append(len({hit.position for hit in hits} & set(nearest.tolist())) / 10)
        hits = await index.search("acme", [few], "water", query, mode="hybrid", top_k=5)
        assert {hit.id for hit in hits} == {written.id for written in entries[5000:]}
        assert all(hit.semantic_rank and hit.full_text_rank for hit in hits)
    assert np.mean(recalls) >= 0.98
    (hit,) = await index.search("acme", [many, few], "4321", None, mode="full_text", top_k=5)
    assert hit.position == 4321
