from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.values.words import LONGEST, words


def test_case_endings_and_stop_words_do_not_matter() -> None:
    assert (
        words("The Mills' wheels are RUNNING") == words("a mill wheel that runs") == {"mill": 1, "wheel": 1, "run": 1}
    )


def test_words_are_counted_in_the_order_of_their_first_places() -> None:
    assert list(words("run, mill, runs; RUN").items()) == [("run", 3), ("mill", 1)]


@pytest.mark.parametrize("end", ["", " é"])
def test_what_is_no_letter_or_digit_separates(end: str) -> None:
    assert [*words("max_tokens=512; x-y.z\0q" + end)][:7] == ["max", "token", "512", "x", "y", "z", "q"]


def test_compatible_forms_are_one() -> None:
    assert words("ﬁne Ⅳ ｗａｔｅｒ ｶﾅ") == words("fine iv water カナ")


def test_unspaced_scripts_are_pairs() -> None:
    assert words("東京東京の2nd水") == {"東京": 2, "京東": 1, "京の": 1, "2nd": 1, "水": 1}
    assert [*words("ภาษาไทย")][:2] == ["ภา", "าษ"]


def test_vowel_points_are_dropped() -> None:
    assert words("مُحَمَّد שָׁלוֹם") == words("محمد שלום") == {"محمد": 1, "שלום": 1}


def test_combining_marks_stay_in_their_word() -> None:
    assert [*words("नमस्ते दुनिया")] == ["नमस्ते", "दुनिया"]


def test_long_words_are_cut() -> None:
    assert words("w" * 1000 + " " + "é" * 1000) == {"w" * LONGEST: 1, "é" * LONGEST: 1}


@given(st.text())
def test_any_text_gives_words_that_a_table_can_hold(text: str) -> None:
    for word, times in words(text).items():
        assert 0 < len(word) <= LONGEST
        assert "\0" not in word
        assert times > 0
