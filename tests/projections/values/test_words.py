from __future__ import annotations

import json
from hashlib import sha256

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from projections.values.words import LONGEST, RULES, asked, distinct, holds, quoted, words

SAMPLE = """
The Mills' wheels are RUNNING, e.g. I'm; it's the US, not us. Vitamin A, World War I. How do I open it? THE WHO and IT.
C#, C++17, F#, .NET, R&D, E-1042, E1042, v2.3.1, x86-64, h2o, 2nd, AB-34-12, 2024-05-12, 192.168.4.17, max_tokens,
std::vector, a@b.example, https://example.org/forms/leave-7.pdf, 3f9a8b7c11, 1,200, 1.200, 1 200, 1'200, 1,234.50, 4,2
Zürich Straße café Łódź Ёлка ﬁne ｗａｔｅｒ 10⁶ m² H₂O ٣٠ wa\u00adter 水库的闸门 水 東京の2nd 人々 물은 ภาษาไทย နေ
مُحَمَّد שָׁלוֹם नमस्ते दुनिया डीज़ल
"""


def test_case_endings_and_stop_words_do_not_matter() -> None:
    assert (
        words("The Mills' wheels are RUNNING") == words("a mill wheel that runs") == {"mill": 1, "wheel": 1, "run": 1}
    )


def test_words_are_counted_in_the_order_of_their_first_places() -> None:
    assert list(words("run, mill, runs; RUN").items()) == [("run", 3), ("mill", 1)]


@pytest.mark.parametrize("end", ["", " é"])
def test_what_is_no_letter_or_digit_separates(end: str) -> None:
    assert [*words("tokens=512; x*y|z\0q" + end)][:6] == ["token", "512", "x", "y", "z", "q"]


def test_stop_words_are_words_where_they_are_names() -> None:
    assert words("Parcels to the US are slow, to us they are not") == {"parcel": 1, "us": 1, "slow": 1}
    assert words("Vitamin A is kept. A gate opens.") == {"vitamin": 1, "a": 1, "kept": 1, "gate": 1, "open": 1}
    assert words("How do I open it? Type I, World War I.") == {"open": 1, "type": 1, "world": 1, "war": 1, "i": 2}
    assert words("IT IS FORBIDDEN TO ENTER") == words("it is forbidden to enter")


def test_a_query_of_stop_words_is_asked_as_it_is() -> None:
    assert asked("us") == asked("US") == {"us": 1}
    assert asked("what is it") == {"what": 1, "is": 1, "it": 1}
    assert asked("vitamin a?") == asked("VITAMIN A") == {"vitamin": 1, "a": 1}
    assert asked("parcels to the us") == {"parcel": 1, "us": 1}
    assert asked("How do I open it?") == {"open": 1}
    assert asked("gates and gates") == {"gate": 2}
    assert asked("?!") == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("C# and C++17, F#.", "csharp cplusplus 17 fsharp"),
        ("C/C++", "c cc cplusplus"),
        (".NET", "dot net dotnet"),
        ("R&D", "r d rd"),
        ("E-1042", "e 1042 e1042"),
        ("E1042", "1042 e1042"),
        ("192.168.4.17", "192 168 4 17 192.168 168.4 4.17"),
        ("v2.3.1", "2 3 1 v2 2.3 3.1"),
        ("AB-34-12", "ab 34 12 ab34 34.12 ab3412"),
        ("2024-05-12", "2024 05 12 2024.05 05.12 20240512"),
        ("max_tokens", "max token maxtoken"),
        ("well-known", "well known"),
        ("e-mail Wi-Fi", "e mail email wi fi wifi"),
        ("2nd", "2 2nd"),
        ("h2o", "h2o h2 2o 2"),
        ("3f9a8b7c11", "3f9a8b7c11"),
        ("1,200", "1 200 1.200 1200"),
        ("1 200", "1 200 1.200 1200"),
        ("1\u202f200", "1 200 1.200 1200"),
        ("1'200", "1 200 1.200 1200"),
        ("1,234.50", "1 234 50 1.234 234.50 1234 1234.50"),
        ("4,2", "4 2 4.2"),
        ("10⁶", "10 6 10^6"),
        ("H₂O", "h2o h2 2o 2"),
        ("m²", "2 m2"),
        ("It's don’t; I'm, we'll, the mill's", "don mill"),
        ("e.g. oil, i.e. U.S. oil", "oil u s us"),
        ("Model T, Type S", "model t type s"),
        ("a-b", "b ab"),
        ("# heading #", "head"),
        ("a+b 18+", "b 18"),
    ],
)
def test_identifiers_and_numbers_have_their_parts_in_order(text: str, expected: str) -> None:
    assert words(text).keys() == set(expected.split())


def test_accents_have_a_second_form() -> None:
    assert words("Zürich") == words("Zu\u0308rich") == {"zürich": 1, "zurich": 1}
    assert words("Straße cafés") == {"straße": 1, "strass": 1, "cafés": 1, "cafe": 1}
    assert "елка" in words("Ёлка")
    assert "lodz" in words("Łódź")


def test_compatible_forms_are_one() -> None:
    assert words("ﬁne Ⅳ ｗａｔｅｒ ｶﾅ ٣") == words("fine iv water カナ 3")
    assert words("wa\u00adter\u200b") == {"water": 1}


def test_unspaced_scripts_are_pairs_and_chinese_characters_and_korean_syllables_alone() -> None:
    assert words("東京東京の2nd水") == {"東京": 2, "京東": 1, "京の": 1, "東": 2, "京": 2, "2nd": 1, "2": 1, "水": 1}
    assert [*words("ภาษาไทย")][:2] == ["ภา", "าษ"]
    assert words("물은") == {"물은": 1, "물": 1, "은": 1}
    assert words("の") == {"の": 1}


def test_vowel_points_are_dropped() -> None:
    assert words("مُحَمَّد שָׁלוֹם") == words("محمد שלום") == {"محمد": 1, "שלום": 1}


def test_combining_marks_stay_in_their_word() -> None:
    assert [*words("नमस्ते दुनिया")] == ["नमस्ते", "दुनिया"]


def test_long_words_are_cut() -> None:
    assert words("w" * 1000 + " " + "é" * 1000) == {"w" * LONGEST: 1, "é" * LONGEST: 1, "e" * LONGEST: 1}


def test_phrases_are_what_stands_in_quotation_marks() -> None:
    assert quoted('say "ring the bell" or “the gate opens”, „nie wieder“, «le quai», 「每年检查」') == [
        *("ring the bell", "the gate opens", "nie wieder", "le quai", "每年检查")
    ]
    assert quoted('"&#" “?!” the “bell”') == []
    assert quoted('"bell" it\'s "" 12" and 14" wide "?!"') == []


def test_a_phrase_is_held_where_its_words_follow_one_another() -> None:
    text = "He said: ring the Bell, twice. Zürich! 每年检查一次"
    assert all(holds(text, phrase) for phrase in ("ring the bell", "THE BELL TWICE", "twice Zurich", "年检查"))
    assert not any(holds(text, phrase) for phrase in ("ring bell", "the bell ring", "ring the bel", "检查年"))


@given(st.text())
@example("\u00a8#")
def test_any_text_gives_words_that_a_table_can_hold(text: str) -> None:
    for word, times in words(text).items():
        assert 0 < len(word) <= LONGEST
        assert "\0" not in word
        assert " " not in word
        assert times > 0
    assert distinct(text).keys() == words(text).keys()


def test_the_number_of_the_rules_changes_with_them() -> None:
    """When the words of the sample change, raise `RULES`, by which older indexes are known, and change the digest."""
    made = json.dumps([words(SAMPLE), asked(SAMPLE)], ensure_ascii=False)
    assert (RULES, sha256(made.encode()).hexdigest()[:16]) == (2, "60fa1e796ba4f7c2")
