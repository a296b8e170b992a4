"""JSON of strangers, read as data."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.code.data import DEEPEST, DIGITS, VALUES, read

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=20,
)


def encoded(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


@given(JSON)
def test_data_is_read_as_it_was_written(value: Any) -> None:
    for ascii in (True, False):
        assert repr(read(json.dumps(value, ensure_ascii=ascii).encode())) == repr(value)


@given(st.binary(max_size=60) | st.text('[]{}",:\\0129-eE.truefalsn \ud800', max_size=60).map(encoded))
def test_anything_else_is_refused_or_can_be_stored(data: bytes) -> None:
    value = None
    with suppress(ValueError):
        value = read(data)
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1), "It is nested deeper than 64 levels."),
        (b"[" * 10**6, "It is nested deeper than 64 levels."),
        (b'{"a":' * 10**5, "It is nested deeper than 64 levels."),
        (b"[" + b"0," * VALUES + b"0]", "It has more than 1,000,000 values."),
        (b"9" * (DIGITS + 1), "A number has more than 1,000 digits."),
        (b"-0.1e" + b"9" * 10**6, "A number has more than 1,000 digits."),
        (b"1e999", "The number 1e999 is too large."),
        (b"[NaN]", "It has NaN, which is not JSON."),
        (b"[-Infinity]", "It has -Infinity, which is not JSON."),
        (b'"\\ud800"', "It has half a surrogate pair, which is no text."),
        (b'"\\uDC00\\ud800"', "It has half a surrogate pair, which is no text."),
        (b'"\xed\xa0\x80"', "It has half a surrogate pair, which is no text."),
        (b'"' + b"\\" * 10**6, "Unterminated string starting at at character 0."),
        (b"", "Expecting value at character 0."),
        (b"1 2", "Extra data at character 2."),
    ],
    ids=range(15),
)
def test_hostile_data_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        read(data)


@pytest.mark.parametrize(
    "value",
    ["[" * 10**4 + '"\\' * 10**4, ",{[" * VALUES, "9" * 10**4, "\U0001f9a6", "NaN", {"{" * 99: "}" * 99}, 10**999],
    ids=range(7),
)
def test_texts_are_not_taken_for_data(value: Any) -> None:
    assert read(json.dumps(value).encode()) == value


def test_a_pair_of_surrogates_is_a_text() -> None:
    assert read(b'"\\ud83e\\udda6"') == "\U0001f9a6"
