"""Keywords in texts: which places count, and texts that come in parts."""

from __future__ import annotations

import random
import time

import pytest

from handlers.chat.words import Keywords


def found(text: str, *keywords: str, whole: bool = True) -> list[str]:
    return [text[start:end] for start, end in Keywords(keywords, whole=whole).find(text).spans]


@pytest.mark.parametrize(
    ("text", "keywords", "places"),
    [
        ("BAD!", ["bad"], ["BAD"]),
        ("ｂａｄ and b\u200bad", ["bad"], ["ｂａｄ", "b\u200bad"]),
        ("ﬁsh", ["fish"], ["ﬁsh"]),
        ("In der STRASSE", ["straße"], ["STRASSE"]),
        ("very\n  bad thing", ["Very bad"], ["very\n  bad"]),
        ("これは禁止です", ["禁止"], ["禁止"]),
        ("cafe\u0301 café", ["café"], ["cafe\u0301", "café"]),
        ("she sells shells", ["she", "shells", "hell"], ["she", "shells"]),
        ("a bad bad end", ["bad", "bad bad"], ["bad bad"]),
        ("badge, abad, bad2, cafés", ["bad", "café"], []),
        ("café", ["cafe", "caf"], []),
        ("각", ["가"], []),
        ("", ["bad"], []),
    ],
)
def test_keywords_are_found_however_they_are_written(text: str, keywords: list[str], places: list[str]) -> None:
    assert found(text, *keywords) == places


def test_parts_of_words_count_where_they_are_asked_for() -> None:
    assert found("badge, abad", "bad", whole=False) == ["bad", "bad"]


@pytest.mark.parametrize("whole", [True, False])
def test_a_text_in_parts_has_the_same_keywords_as_the_whole(whole: bool) -> None:
    chance = random.Random(7)
    for _ in range(300):
        keywords = ["".join(chance.choices("ab ", k=chance.randint(1, 4))).strip() or "a" for _ in range(3)]
        text = "".join(chance.choices("ab .", k=30))
        matcher = Keywords(keywords, whole=whole)
        spans, held, at = [], "", 0
        for start in range(0, 30, 3):
            held, last = held + text[start : start + 3], start == 27
            matches = matcher.find(held, last=last)
            spans += [(at + begin, at + end) for begin, end in matches.spans]
            keep = len(held) - matches.undecided
            held, at = held[keep:], at + keep
        flagged = {place for begin, end in spans for place in range(begin, end)}
        expected = {place for begin, end in matcher.find(text).spans for place in range(begin, end)}
        if not whole:  # what comes before a part is not known, which matters to whole words only
            assert flagged == expected, (keywords, text)
        assert flagged >= expected, (keywords, text)


def test_the_time_is_linear_whatever_the_number_of_keywords() -> None:
    text = "ab" * 20_000

    def took(count: int) -> float:
        matcher = Keywords([f"{'ab' * 20}{number}" for number in range(count)], whole=False)
        began = time.process_time()
        matcher.find(text)
        return time.process_time() - began

    assert took(3000) < 20 * took(1) + 0.2
