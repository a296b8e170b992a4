"""Searches by words in every index: names, identifiers, numbers, phrases, scripts; rare words in a hybrid search."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pytest
from snowballstemmer import stemmer  # type: ignore[import-untyped]

from adapters.index.versions.store import RARE
from handlers.commands.retrieval import WEIGHT
from handlers.ports.index import Entry, Hit, Index, Mode
from projections.values.words import asked, words

MODEL = "a-model"
DIMENSION = 16

Vector = npt.NDArray[np.float32]


@pytest.fixture(params=["pgvector", "opensearch"])
def index(request: pytest.FixtureRequest) -> Index:
    return cast(Index, request.getfixturevalue(request.param))


def unit(dice: random.Random) -> Vector:
    vector = np.array([dice.gauss(0, 1) for _ in range(DIMENSION)], np.float32)
    return cast(Vector, vector / np.linalg.norm(vector))


async def written(index: Index, texts: Sequence[str], vectors: Sequence[Vector] | None = None) -> tuple[str, list[str]]:
    """A new dataset with these texts, and their ids."""
    dataset, same = str(uuid4()), unit(random.Random(1))
    entries = [
        Entry(str(uuid4()), position, text, vector=vectors[position] if vectors else same)
        for position, text in enumerate(texts)
    ]
    await index.write("acme", dataset, str(uuid4()), entries, model=MODEL, version=1)
    return dataset, [entry.id for entry in entries]


async def search(
    index: Index, dataset: str, query: str, mode: Mode = "full_text", near: Vector | None = None, top_k: int = 3
) -> list[Hit]:
    return await index.search(
        "acme", [dataset], query, near, model=MODEL, mode=mode, top_k=top_k, weight=WEIGHT if mode == "hybrid" else None
    )


class Case(NamedTuple):
    """Texts, and for queries the number of the text that must be first."""

    texts: Sequence[str]
    first: Mapping[str, int]


CASES = {
    "names that look like stop words": Case(
        [
            "Vitamin A is kept in the red cupboard.",
            "Vitamin C is kept in the blue cupboard.",
            "Vitamin D is kept in the green cupboard, vitamin D.",
            "Parcels to the US take twelve days. A parcel is a box.",
            "Parcels to the EU take four days, parcels to us two.",
            "The IT desk is on the second floor. It opens at nine.",
            "The HR desk is on the first floor, a desk that it shares with us.",
            "The WHO recommends boiled water to those who travel.",
            "The FAO recommends filtered water to those who travel, boiled water to others.",
            "World War I ended in 1918.",
            "World War II ended in 1945, and I was born; world war!",
        ],
        {
            "vitamin A": 0,
            "vitamin a": 0,
            "Vitamin A?": 0,
            "VITAMIN A": 0,
            "Which cupboard has vitamin A in it?": 0,
            "US": 3,
            "us": 3,
            "How long do parcels to the US take?": 3,
            "parcels to the us": 3,
            "IT": 5,
            "Where is the IT desk?": 5,
            "WHO": 7,
            "What does the WHO recommend?": 7,
            "what does the who recommend": 7,
            "World War I": 9,
        },
    ),
    "names with signs": Case(
        [
            "C programs are built in the cellar: C, C, C.",
            "C++ programs are built on the second floor.",
            "C# programs are built on the third floor of the house.",
            "F# programs are built in the attic.",
            "The .NET programs are built at home.",
            "A net for fish: the net, nets.",
            "R&D sits in the east wing.",
            "R is a language, D another.",
            "Visual Basic, J++ and C++17 are old.",
        ],
        {"C": 0, "C#": 2, "c#": 2, "C++": 1, "F#": 3, ".NET": 4, "dotnet": 4, "R&D": 6, "C++17": 8, "csharp": 2},
    ),
    "identifiers in their order": Case(
        [
            "The gauge is 192.168.17.4 here.",
            "The camera by the long bridge has the address 192.168.4.17 in the local net of the weir.",
            "Version v2.13.1 came first.",
            "At the weir we run version 2.1.13 of the program, which is the newest for the old gauge.",
            "Built on 2024-05-12 by the mill.",
            "Torn down on 2024-12-05, after a long time, by the owners of the mill and the lock.",
            "Part AB-12-34 fits.",
            "For the large valve below the bridge you need the other part, AB-34-12.",
            "Call max_tokens first.",
            "Call tokens_max for the larger of them, if you have the time to wait for the answer.",
        ],
        {
            "192.168.4.17": 1,
            "192.168.17.4": 0,
            "168.4.17": 1,
            "Who has 192.168.4.17?": 1,
            "v2.1.13": 3,
            "version 2.13.1": 2,
            "2024-05-12": 4,
            "2024/12/05": 5,
            "AB-34-12": 7,
            "AB3412": 7,
            "max_tokens": 8,
            "tokens_max": 9,
        },
    ),
    "identifiers however they are written": Case(
        ["Error E-1042 means oil.", "Error E1043 means water.", "Error E 1044 means air.", "Error F-1045 means sand."],
        {
            "E1042": 0,
            "E-1042": 0,
            "e1042": 0,
            "E–1042": 0,
            "1042": 0,
            "E-1043": 1,
            "E 1043": 1,
            "E1044": 2,
            "E-1044": 2,
            "F1045": 3,
            "E_1042": 0,
            "E/1042": 0,
        },
    ),
    "numbers with separators": Case(
        [
            "The tank holds 1,200 litres.",
            "The tank holds 1.300 litres.",
            "The tank holds 1'400 litres.",
            "The tank holds 1 500 litres.",
            "The tank holds 1\u202f600 litres.",
            "The tank holds 1700 litres.",
            "The tank holds 1,234,567.89 litres.",
            "The pressure is 4.2 bar.",
            "The pressure is 2.4 bar, 4 or 2.",
            "It opens at 10:30.",
            "It opens at 30 past 10, by 10 or 30.",
        ],
        {
            "1200": 0,
            "1,200": 0,
            "1.200": 0,
            "1300": 1,
            "1,300": 1,
            "1400": 2,
            "1500": 3,
            "1600": 4,
            "1,700": 5,
            "1 700": 5,
            "1'700": 5,
            "1234567": 6,
            "1234567.89": 6,
            "4.2": 7,
            "4,2 bar": 7,
            "10:30": 9,
        },
    ),
    "phrases in quotes": Case(
        [
            "Ring twice the bell. Twice the bell: ring, ring the bell!",
            "He said ring the Bell, twice, before he left for the upper gate in the morning.",
            "To be or not to be is asked by the keeper.",
            "Be not the keeper who has to be asked.",
            "水库的闸门每年检查一次，检查闸门。",
            "每年都有检查，闸门和水库每年都要看。",
        ],
        {
            '"ring the bell twice"': 1,
            "“ring the bell twice”": 1,
            "Who said „ring the bell twice“?": 1,
            '"twice the bell"': 0,
            '"not to be is asked"': 2,
            "「每年检查」": 4,
        },
    ),
    "accents and compatible forms": Case(
        [
            "Zürich hat eine Brücke.",
            "Zug hat einen See, Luzern auch.",
            "Die Straße ist gesperrt.",
            "Le café est fermé.",
            "Łódź ma most.",
            "Malmø har en bro.",
            "ﬁne ｗａｔｅｒ here.",
            "The pump gives 10⁶ litres of H₂O.",
            "Der Preis ist 106 Franken.",
            "Cafe\u0301s are open in the other street.",
        ],
        {
            "Zurich": 0,
            "Zürich": 0,
            "zurich brucke": 0,
            "Zu\u0308rich": 0,
            "Strasse": 2,
            "STRASSE": 2,
            "cafe ferme": 3,
            "Lodz": 4,
            "Malmo": 5,
            "fine water": 6,
            "H2O": 7,
            "106": 8,
            "cafes open": 9,
        },
    ),
    "single characters": Case(
        ["水库的门很大。", "海边有风。", "山上下雨。", "강에는 물이 많다.", "산에는 눈이 많다.", "トンネルは長い。"],
        {"水": 0, "门": 0, "风": 1, "海": 1, "山": 2, "雨": 2, "물": 3, "눈": 4, "水门": 0},
    ),
    "repetitions of a question": Case(
        [
            "Eels climb the ladder in spring nights.",
            "Nets and boats: nets hang in the shed, boats lie at the quay.",
        ],
        {
            "Eels: where do eels climb? When do eels rest? Do eels see boats and nets?": 0,
            "nets nets nets nets eels climb": 1,
        },
    ),
    "other digits and what cannot be seen": Case(
        ["الغرفة ٣٠ مغلقة", "الغرفة ٤٠ مفتوحة", "The wa\u00adter\u200b gate", "The fire gate"],
        {"30": 0, "٣٠": 0, "الغرفة 40": 1, "water": 2},
    ),
}


@pytest.mark.parametrize("name", CASES)
async def test_the_right_text_is_first(index: Index, name: str) -> None:
    case = CASES[name]
    dataset, ids = await written(index, case.texts)
    wrong = {}
    for query, first in case.first.items():
        hits = await search(index, dataset, query)
        if [hit.id for hit in hits][:1] != [ids[first]]:
            wrong[query] = [hit.entry.content for hit in hits]
    assert wrong == {}


@pytest.mark.parametrize("mode", ["full_text", "hybrid"])
async def test_a_phrase_is_before_everything_else(index: Index, mode: Mode) -> None:
    """However many hold its words, and however far its vector is; in the documents that are searched."""
    dice = random.Random(3)
    near = unit(dice)
    crowd = [f"The bell, ring the bell, the gate twice: number {n}." for n in range(150)]
    dataset, ids = await written(
        index, [*crowd, "The long words of an old book say that you ring the bell twice."], [near] * 150 + [-near]
    )
    first, second, *_ = hits = await search(index, dataset, 'Why "ring the bell twice"?', mode, near)
    assert first.id == ids[-1]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert second.id != first.id
    none = await index.search(
        "acme", [dataset], '"bell twice"', near, model=MODEL, mode=mode, top_k=3, documents=[str(uuid4())]
    )
    assert none == []


COMMON = [
    *("gate", "weir", "pump", "keeper", "water", "level", "valve", "tank", "spring", "flood"),
    *("guard", "ladder", "fish", "boat", "lock", "stone", "mill", "quay", "oil", "rope"),
]
RARITIES = ("64973", "E-1042", "192.168.4.17", "C#", "Zürich", "ABX-77/3", "flange", "2024-05-12", "水閘", "1,234,567")


async def test_a_rare_word_is_never_outvoted(index: Index) -> None:
    """In 100 collections, what holds every rare word of the question is among the first three of the default search.

    The vectors of these segments point away from the question, and the question says other words, which are common.
    """
    dice = random.Random(13)
    held = 0
    for _ in range(100):
        near = unit(dice)
        count = dice.randint(12, 60)
        texts = [" ".join(dice.choices(COMMON, k=dice.randint(5, 40))) for _ in range(count)]
        vectors = [near + np.float32(dice.uniform(0.1, 1)) * unit(dice) for _ in range(count)]
        vectors = [cast(Vector, vector / np.linalg.norm(vector)) for vector in vectors]
        rare = dice.sample(RARITIES, dice.randint(1, 3))
        for place in dice.sample(range(count), dice.randint(1, 3)):
            parts = [*texts[place].split(), *rare]
            dice.shuffle(parts)
            texts[place], vectors[place] = " ".join(parts), -near
        asking = [*dice.choices(COMMON, k=dice.randint(0, 30)), *rare]
        dice.shuffle(asking)
        query = " ".join(asking)
        dataset, ids = await written(index, texts, vectors)
        known = [words(text) for text in texts]
        times = {word: sum(word in of for of in known) for word in asked(query)}
        seldom = {word for word, number in times.items() if 0 < number <= RARE}
        exact = {id for id, of in zip(ids, known, strict=True) if seldom and seldom <= of.keys()}
        held += len(exact)
        hits = await search(index, dataset, query, "hybrid", near, top_k=10)
        assert exact <= {hit.id for hit in hits[:3]}, query
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert held > 150


async def test_a_word_that_is_rare_by_chance_decides_nothing(index: Index) -> None:
    """In a question of many words, each of which is nearly as rare."""
    dice = random.Random(4)
    near = unit(dice)
    names = ["".join(dice.choices("bcdfgklmnprst", k=7)) for _ in range(30)]
    texts = [" ".join(names[n % 30 :] + names[: n % 30])[: 8 * dice.randint(6, 12)] for n in range(60)]
    texts.append("flange")
    vectors = [cast(Vector, near + np.float32(0.1) * unit(dice)) for _ in range(60)]
    vectors = [cast(Vector, vector / np.linalg.norm(vector)) for vector in vectors]
    dataset, ids = await written(index, texts, [*vectors, -near])
    long = await search(index, dataset, " ".join([*names, "flange"]), "hybrid", near)
    assert ids[-1] not in [hit.id for hit in long]
    short = await search(index, dataset, f"{names[0]} flange", "hybrid", near)
    assert ids[-1] in [hit.id for hit in short]


async def test_markers_of_a_yearbook_are_first(index: Index) -> None:
    """Texts that differ by a number only: the vectors of all are near the question's."""
    dice = random.Random(5)
    near = unit(dice)
    texts = [
        f"Marker {n * 7919 % 100003} stands on page {n} of the yearbook. {' '.join((COMMON * 3)[n % 17 : n % 17 + 9])}"
        for n in range(1, 121)
    ]
    vectors = [near + np.float32(0.3) * unit(dice) for _ in texts]
    dataset, ids = await written(index, texts, [cast(Vector, each / np.linalg.norm(each)) for each in vectors])
    for n in range(5, 121, 10):
        best, *_ = await search(index, dataset, f"marker {n * 7919 % 100003}", "hybrid", near)
        assert best.id == ids[n - 1]


def plain_bm25(texts: Sequence[str], query: str) -> list[float]:
    """The scores of a textbook BM25 (k1 = 1.2, b = 0.75) of stemmed words, each as often as the query says it."""
    english = stemmer("english")
    counts = [Counter(english.stemWords(text.lower().split())) for text in texts]
    lengths = [count.total() for count in counts]
    average = sum(lengths) / len(lengths)
    scores = [0.0] * len(texts)
    for word, times in Counter(english.stemWords(query.lower().split())).items():
        frequency = sum(word in count for count in counts)
        idf = math.log(1 + (len(texts) - frequency + 0.5) / (frequency + 0.5))
        for number, count in enumerate(counts):
            share = count[word] * 2.2 / (count[word] + 1.2 * (0.25 + 0.75 * lengths[number] / average))
            scores[number] += times * idf * share
    return scores


async def test_full_text_is_bm25(pgvector: Index) -> None:
    """For words that are neither stop words nor identifiers, to the last digit, however often a question says them."""
    dice = random.Random(8)
    for _ in range(5):
        texts = [" ".join(dice.choices(COMMON, k=dice.randint(4, 60))) for _ in range(40)]
        query = " ".join(dice.choices(COMMON, k=dice.randint(1, 40)))
        dataset, ids = await written(pgvector, texts)
        hits = await search(pgvector, dataset, query, top_k=40)
        expected = dict(zip(ids, plain_bm25(texts, query), strict=True))
        assert {hit.id: hit.score for hit in hits} == pytest.approx(
            {id: score for id, score in expected.items() if score > 0}, rel=1e-6
        )
