from __future__ import annotations

import random
from itertools import pairwise
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.web.viewer.diff import Part, diff, similarity


def marked(old: str, new: str) -> str:
    """The parts with [what went] and {what came}."""
    marks = {"same": "%s", "gone": "[%s]", "come": "{%s}"}
    return "".join(marks[part.kind] % part.text for part in diff(old, new))


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("", "", ""),
        ("", "all new", "{all new}"),
        ("The gate is high.", "The gate is high.", "The gate is high."),
        (
            "The gate is four metres high.",
            "The green gate is 4 metres high.",
            "The {green }gate is [four]{4} metres high.",
        ),
        ("a b c end", "x y z end", "[a b c]{x y z} end"),
        ("门有四米高。", "门大约有五米高。", "门{大约}有[四]{五}米高。"),
        ("ประตูสูง", "ประตูต่ำ", "ประตู[สูง]{ต่ำ}"),
        ("البوابة عالية", "البوابة جديدة", "البوابة [عالية]{جديدة}"),
        ("한국어 문장", "한국어 단어", "한국어 [문장]{단어}"),
    ],
)
def test_differs_by_words_or_by_characters(old: str, new: str, parts: str) -> None:
    assert marked(old, new) == parts


@given(st.text("ab \n.门é\u202e", max_size=60), st.text("ab \n.门é\u202e", max_size=60))
def test_holds_both_texts(old: str, new: str) -> None:
    parts = diff(old, new)
    assert "".join(part.text for part in parts if part.kind != "come") == old
    assert "".join(part.text for part in parts if part.kind != "gone") == new
    assert all(part.text for part in parts)
    assert all(first.kind != second.kind for first, second in pairwise(parts))
    assert (similarity(parts) == 1.0) == (old == new)


def test_says_how_much_is_the_same() -> None:
    assert similarity([Part("same", "abc"), Part("gone", "de"), Part("come", "fghi")]) == 0.5


WORDS = [f"w{number}" for number in range(100)]
RANDOM = random.Random(7)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a " * 500_000, "b " * 500_000),
        ("a " * 500_000, "a a" * 333_333),
        (" ".join(RANDOM.choices("ab", k=8000)), " ".join(RANDOM.choices("ab", k=8000))),
        (" ".join(RANDOM.choices(WORDS, k=1900)), " ".join(RANDOM.choices(WORDS, k=1900))),
        ("\n".join(RANDOM.choices(WORDS, k=300_000)), "\n".join(RANDOM.choices(WORDS, k=300_000))),
        ("门" * 1_000_000, "米" * 1_000_000),
        ("(" * 1_000_000, ")" * 1_000_000),
    ],
)
def test_a_megabyte_takes_no_longer_than_anybody_waits(old: str, new: str) -> None:
    began = perf_counter()
    parts = diff(old, new)
    assert perf_counter() - began < 10
    assert "".join(part.text for part in parts if part.kind != "come") == old


def test_finds_small_changes_in_a_megabyte() -> None:
    lines = [" ".join(RANDOM.choices(WORDS, k=12)) + ".\n" for _ in range(20_000)]
    changed = [f"changed {line}" if number % 5000 == 0 else line for number, line in enumerate(lines)]
    parts = diff("".join(lines), "".join(changed))
    assert [part.text.strip() for part in parts if part.kind == "come"] == ["changed"] * 4
    assert not [part for part in parts if part.kind == "gone"]
