from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.chat.terms import pieces, stem, terms


@given(st.text())
def test_pieces_are_the_text_again(text: str) -> None:
    assert "".join(pieces(text)) == text


def test_pieces_are_words_and_marks() -> None:
    assert pieces("It opens at 4.2 bar.") == ["It", " opens", " at", " 4", ".", "2", " bar", "."]
    assert pieces("阀门 A1") == ["阀", "门", " A1"]


@pytest.mark.parametrize(
    "forms",
    [
        "open opens opened opening",
        "valve valves",
        "install installs installed installing installation",
        "stop stops stopped stopping",
        "company companies",
        "close closes closed closing",
        "press presses pressed",
        "box boxes",
        "feed feeds",
    ],
)
def test_forms_of_a_word_have_one_stem(forms: str) -> None:
    assert len({stem(form) for form in forms.split()}) == 1


def test_different_words_keep_different_stems() -> None:
    words = ["bus", "string", "bring", "red", "need", "this", "gas", "ring", "bed", "valve", "value"]
    assert len({stem(word) for word in words}) == len(words)


def test_terms_fold_case_accents_and_thousands() -> None:
    assert terms("The CAFÉ holds 1,200 people") == terms("the cafe holds 1200 people")
    assert terms("on 2019-05-01 at 8:30, 4.2 bar") == ["on", "2019-05-01", "at", "8:30", "4.2", "bar"]
    assert terms("ask Service@larkspur.example") == ["ask", "service@larkspur.example"]


def test_unspaced_scripts_give_pairs_of_characters_and_chinese_each_of_them() -> None:
    assert terms("泵站在湖") == ["泵站", "站在", "在湖", "泵", "站", "在", "湖"]
    assert terms("湖") == ["湖"]
    assert terms("のゲート") == ["のゲ", "ゲー", "ート"]


def test_words_of_other_scripts_stay_whole() -> None:
    assert terms("जनरेटर चलता, चलती") == ["जनरेटर", "चलत", "चलत"]
    assert terms("بُنيت القناة والقناة") == ["بنيت", "قنا", "قنا"]
    assert terms("が か") == ["が", "か"]


@given(st.text())
def test_terms_of_any_text_are_never_empty(text: str) -> None:
    assert all(terms(text))
