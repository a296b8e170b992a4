from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from adapters.words import LONGEST, words


def test_case_endings_and_stop_words_do_not_matter() -> None:
    assert words("The Mills' wheels are RUNNING") == words("a mill wheel that runs") == ["mill", "wheel", "run"]


def test_what_is_no_letter_or_digit_separates() -> None:
    assert words("max_tokens=512; x-y.z\0q") == ["max", "token", "512", "x", "y", "z", "q"]


def test_compatible_forms_are_one() -> None:
    assert words("ﬁne Ⅳ ｗａｔｅｒ ｶﾅ") == words("fine iv water カナ")


def test_unspaced_scripts_are_pairs() -> None:
    assert words("東京都の2nd水") == ["東京", "京都", "都の", "2nd", "水"]
    assert words("ภาษาไทย")[:2] == ["ภา", "าษ"]


def test_vowel_points_are_dropped() -> None:
    assert words("مُحَمَّد שָׁלוֹם") == words("محمد שלום") == ["محمد", "שלום"]


def test_combining_marks_stay_in_their_word() -> None:
    assert words("नमस्ते दुनिया") == ["नमस्ते", "दुनिया"]


def test_long_words_are_cut() -> None:
    assert words("w" * 1000) == ["w" * LONGEST]


@given(st.text())
def test_any_text_gives_words_that_a_table_can_hold(text: str) -> None:
    for word in words(text):
        assert 0 < len(word) <= LONGEST
        assert "\0" not in word
