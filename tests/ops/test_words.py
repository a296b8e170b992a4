"""Code and documents avoid the words that `words` lists."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.ops import words

ALLOWANCE: dict[str, tuple[int, int]] = {}
"""Words and openings of docstrings still in a folder; a folder that is not named has none. Lower these, never raise
them."""


@pytest.fixture(scope="module")
def counts() -> dict[str, Counter[str]]:
    return words.count()


def test_a_place_has_no_more_of_these_words_than_it_may(counts: dict[str, Counter[str]]) -> None:
    for place, found in counts.items():
        used, openings = found.total() - found[words.OPENING], found[words.OPENING]
        allowed = ALLOWANCE.get(place, (0, 0))
        assert used <= allowed[0], f"{place} uses {used} of these words: {words.WORDS}"
        assert openings <= allowed[1], f"{place} has {openings} openings with What, Who, How or Whether"


def test_the_allowance_names_only_places_with_uses(counts: dict[str, Counter[str]]) -> None:
    assert {place for place in ALLOWANCE if not counts[place].total()} == set()


@pytest.mark.parametrize(
    ("text", "uses"),
    [
        ("Nobody reads it anew.", ["nobody", "anew"]),
        ("It is kept besides, and beside-notes count.", ["beside"]),
        ("It is done so\nmany times, by\n# hand.", ["so many", "by hand"]),
        ("until_told = 1; forgets nothing untold", ["told"]),
        ("Every outside call is on record before it is sent.", []),
        ("`document.unsettled.v1` and class Unsettled", []),
        ("<!-- generated: x -->\nnobody\n<!-- end -->\nwhoever", ["whoever"]),
    ],
)
def test_uses_are_found_as_whole_words(text: str, uses: list[str], tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(text)
    assert sorted(word for _, word in words.found(path)) == sorted(uses)


def test_openings_of_meanings_are_found(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(
        "What a page says.\n\n| Place | What to do |\n|---|---|\n| `one` | How it was split |\n| `two` | Time |\n"
        "| `three` | | What to do |\n<!-- generated: tables -->\n### spans\n\nWhat was done.\n<!-- end -->\n"
    )
    assert [line for line, word in words.found(path) if word == words.OPENING] == [5, 11]


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ('"""What it is."""\n', [1]),
        ('X = 1\n"""How much."""\n\n\ndef run() -> str:\n    """Whether it runs."""\n    return "What now?"\n', [2, 6]),
        ('"""How to run it."""\n\n\nclass A:\n    """Whatever."""\n', []),
    ],
)
def test_openings_of_docstrings_are_found(source: str, lines: list[int], tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(source)
    assert [line for line, word in words.found(path) if word == words.OPENING] == lines
