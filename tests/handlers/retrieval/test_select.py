"""The selection of hits: which are given, what of their documents, and why not the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from domain.aggregate import new_id
from domain.chat.app import settings
from domain.knowledge import curation
from domain.knowledge.document import Document, segment_id
from handlers.ports.index import Entry, Hit
from handlers.retrieval.select import choose, distinct, joined, passage, rerank, select
from tests.domain.scenario import NOW

CURRENT, FORMER = "a" * 64, "b" * 64


def document(deleted: bool = False, person: str | None = None) -> Document:
    made = Document.upload(
        new_id(),
        NOW,
        dataset="set",
        name="a.txt",
        media_type="text/plain",
        digest="c" * 64,
        size=1,
        metadata={},
        person=person,
    )
    if deleted:
        made.delete(NOW)
    return made


LIVING, DEAD = document(), document(deleted=True)
DOCUMENTS = {each.id: each for each in (LIVING, DEAD)}


def hit(id: str, position: int = 0, *, of: Document = LIVING, score: float = 0.5, **more: Any) -> Hit:
    given = {"content": f"Text of {id}.", **more}
    return Hit("set", of.id, Entry(id, position, given.pop("content"), 2, "Rules", **given), score, 1)


def fates(hits: Sequence[Hit], reranked: Sequence[Hit] = (), **how: Any) -> list[tuple[Any, ...]]:
    ordered = rerank(select(hits, DOCUMENTS), reranked)
    choose(ordered, settings({"mode": "hybrid", "top_k": 2, "score_threshold": None, **how}))
    return [(each.hit.id, each.rank or each.dropped, each.first, each.last) for each in ordered]


def test_every_hit_has_a_rank_or_a_reason() -> None:
    hits = [hit("a", 10), hit("b", of=DEAD), hit("c", 20, score=0.1), hit("d", 30), hit("e", 40), hit("f", of=DEAD)]
    assert fates(hits, score_threshold=0.3) == [
        ("a", 1, 10, 10),
        ("b", "deleted", None, None),
        ("c", "below_threshold", None, None),
        ("d", 2, 30, 30),
        ("e", "beyond_top_k", None, None),
        ("f", "deleted", None, None),
    ]
    assert fates([hit("a", score=0.0)]) == [("a", 1, 0, 0)]
    assert fates([], score_threshold=0.5) == []


def test_what_a_user_uploaded_is_personal_and_its_headings_are_not_recorded() -> None:
    hers = document(person="the-person")
    selections = select([hit("a"), hit("b", of=hers)], {LIVING.id: LIVING, hers.id: hers})
    choose(selections, settings({"mode": "hybrid", "top_k": 2, "score_threshold": None}))
    assert [each.candidate["heading"] for each in selections] == ["Rules", None]
    given = [passage(each, DOCUMENTS.get(each.hit.document, hers), []) for each in selections]
    assert [(each.personal, each.entry.heading) for each in given] == [(False, "Rules"), (True, "Rules")]


def test_disabled_segments_are_not_given_before_the_index_follows() -> None:
    disabled = document()
    disabled.fail(NOW, stage="parsing", code="broken_file", reason="It is broken.")
    curation.disable(disabled, NOW)
    [selection] = select([hit("a", of=disabled)], {disabled.id: disabled})
    assert selection.dropped == "disabled"


def test_an_added_segment_has_the_place_of_the_one_that_it_follows() -> None:
    hits = [hit("a", 5), hit("added", 5)]
    assert [fate for _, fate, *_ in fates(hits)] == [1, 2]
    assert [fate for _, fate, *_ in fates(hits, neighbours=1)] == [1, "joined"], "it is part of what is given"


def test_the_same_text_is_given_once() -> None:
    same = {"content": "The sluice  opens\nat six."}
    hits = [hit("a", 1, **same), hit("b", 9, content="The sluice opens at six."), hit("c", 5, **same, answer="Yes.")]
    assert [fate for _, fate, *_ in fates(hits)] == [1, "duplicate", 2]


def test_parents_take_the_place_of_their_children_each_once() -> None:
    hits = [hit("a", 1, parent=0), hit("b", 2, parent=0), hit("c", 9, parent=8), hit("d", 20)]
    assert fates(hits, neighbours=2) == [
        ("a", 1, 0, 0),
        ("b", "joined", None, None),
        ("c", 2, 8, 8),
        ("d", "beyond_top_k", None, None),
    ]
    assert distinct(select(hits, DOCUMENTS)) == 3


@pytest.mark.parametrize(
    ("neighbours", "spans"),
    [
        (0, [(5, 5), (6, 6), (9, 9), (0, 0)]),
        (1, [(4, 6), None, (8, 10), (0, 1)]),
        (3, [(2, 8), None, (9, 12), (0, 1)]),
    ],
)
def test_neighbours_up_to_what_is_given_already(neighbours: int, spans: list[tuple[int, int] | None]) -> None:
    found = fates([hit("a", 5), hit("b", 6), hit("c", 9), hit("d", 0)], top_k=9, neighbours=neighbours)
    assert [None if fate == "joined" else (first, last) for _, fate, first, last in found] == spans


def test_a_reranker_decides_among_those_it_had() -> None:
    hits = [hit("a", 10), hit("b", 20), hit("c", 30), hit("d", of=DEAD)]
    scored = [replace(hits[1], score=0.9), replace(hits[0], score=-3.0)]
    assert [each[:2] for each in fates(hits, scored, top_k=3)] == [
        ("b", 1),
        ("a", "below_threshold"),
        ("c", "beyond_top_k"),
        ("d", "deleted"),
    ]


def test_texts_in_reading_order_without_what_overlaps() -> None:
    assert joined(["One."]) == "One."
    assert joined(["One.", "Two."]) == "One.\n\nTwo."
    overlap = "the water runs over the wheel"
    assert joined([f"At dawn {overlap}", f"{overlap} and drives it."]) == f"At dawn {overlap} and drives it."


def test_a_question_is_given_with_its_answer() -> None:
    [selection] = select([hit("a", content="When?", answer="At six.")], DOCUMENTS)
    choose([selection], settings({"mode": "hybrid", "top_k": 1, "score_threshold": None}))
    assert selection.wanted is None
    given = passage(selection, LIVING, [])
    assert (given.entry.content, given.entry.answer) == ("When?\nAt six.", None)


def test_of_two_revisions_in_the_same_places_that_of_the_hit_counts() -> None:
    revised = document()
    for segments in (FORMER, CURRENT):
        revised.earlier[segments] = {"segments": segments, "count": 9, "done": 9}

    def kept(segments: str | None, position: int) -> Entry:
        id = segment_id(revised.id, segments, position) if segments else "added"
        return Entry(id, position, f"{(segments or 'added')[:5]} {position}")

    entries = [kept(segments, position) for position in (1, 2, 3) for segments in (FORMER, CURRENT)] + [kept(None, 2)]
    for segments in (FORMER, CURRENT):
        [selection] = select([hit(segment_id(revised.id, segments, 2), 2, of=revised)], {revised.id: revised})
        choose([selection], settings({"mode": "hybrid", "top_k": 1, "score_threshold": None, "neighbours": 1}))
        name = segments[:5]
        assert passage(selection, revised, entries).entry.content == f"{name} 1\n\n{name} 2\n\nadded 2\n\n{name} 3"
        [child] = select([hit(segment_id(revised.id, segments, 2), 2, of=revised, parent=3)], {revised.id: revised})
        given = passage(child, revised, entries)
        assert (given.entry.content, given.id) == (f"{name} 3", segment_id(revised.id, segments, 3))
