from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from domain.excerpt import excerpt


def test_a_short_text_is_one_line() -> None:
    assert excerpt(" What\n\tis  it? ", 20) == "What is it?"
    assert excerpt("", 20) == ""


def test_a_long_text_ends_after_a_word_with_an_ellipsis() -> None:
    assert excerpt("What happens when the flood wave needs", 36) == "What happens when the flood wave…"
    assert excerpt("What happens when the flood", 22) == "What happens when the…"
    assert excerpt("two words and", 10) == "two words…"


def test_a_word_that_is_very_long_is_cut() -> None:
    assert excerpt("x" * 50, 10) == "x" * 9 + "…"
    assert excerpt("请问水闸多高" * 20, 10) == "请问水闸多高请问水…"


def test_spaces_do_not_hide_that_there_is_more() -> None:
    assert excerpt("a" + " " * 1000 + "b", 10) == "a…"


@given(st.text(), st.integers(2, 80))
def test_it_is_never_longer_and_never_cut_in_silence(text: str, length: int) -> None:
    found, line = excerpt(text, length), " ".join(text.split())
    assert len(found) <= length
    assert found == line or found.endswith("…")
    assert line.startswith(found.removesuffix("…").rstrip())
