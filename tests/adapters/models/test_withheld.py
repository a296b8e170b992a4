from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.models.withheld import SHORTEST, STARS, Pieces, Withheld

KEYS = st.one_of(st.just("sk-marked-0001"), st.text("ab", min_size=SHORTEST, max_size=12), st.just("abababab"))


@given(KEYS, st.data())
def test_a_key_is_withheld_however_the_text_is_cut(key: str, data: st.DataObject) -> None:
    words = st.sampled_from([key, key[:5], key[5:], "a", "b ", "水"])
    text = "".join(data.draw(st.lists(words, max_size=8)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    said = Pieces(key)
    whole = "".join(said(piece) for piece in pieces) + said.rest()
    assert key not in whole
    assert whole.replace(STARS, "") == text.replace(key, STARS).replace(STARS, "")


@pytest.mark.parametrize("key", ["", "none"])
def test_a_word_is_no_key(key: str) -> None:
    said = Pieces(key)
    assert (said("There is none"), said.rest()) == ("There is none", "")
    assert Withheld([key]).text("There is none") == "There is none"


def test_a_key_is_withheld_from_json_as_it_is_written_there() -> None:
    key = 'sk-"quoted"-\\-0001'
    assert json.loads(Withheld([key]).text(json.dumps({"id": f"chat-{key}"}))) == {"id": f"chat-{STARS}"}
