"""The blob of a document's segments: what was stored once can be read for ever."""

from __future__ import annotations

import json
import zlib
from base64 import b64decode
from hashlib import sha256

from domain.knowledge.segments import Segment, decode_segments, encode_segments, unpack_segments

STORED = b64decode(
    "eJyrVsrNT0nNUbJSStSFsHSUilPTc1PzSoqVrKKrlQryizNLMvPzlKwMdJSS8/NKgDJA1SEZqQo5+cnZCvkFqXnFCoklCsWZFXogzSWJRSVgxal5"
    "KUpWRkY6SgWJ6alKVoY6ShmpiSmZeelA7UGlOanFCo8adimEZOamFgP1leRnAw1SsjKDMuMzU4A8pahAR0dH33IPR0eXELd0R8coIHZ0tLVVqtVB"
    "dpshstuebdjycvqKp61rnzftfLqn4XFDE8JdRiZQhxkbwByWV5qTg+Q2CBefczwdgc5xygU5RKk2thYAE95uPw=="
)
"""As it was written before segments had parents and answers."""

OLD = [
    Segment(0, "The lock opens at six.", 0, 22, 1, "Rules › Times", 6, [101, 1996, 5843, 102]),
    Segment(1, "水门六点开。", 24, 30, None, None, 6, [101, 1920, 102]),
]


def test_a_blob_of_before_still_says_the_same() -> None:
    assert decode_segments(STORED) == ("a-model", OLD)
    assert zlib.decompress(encode_segments("a-model", OLD)) == zlib.decompress(STORED)


def test_parents_and_answers_are_kept() -> None:
    segments = [
        Segment(0, "One. Two.", 0, 9, 1, None, 4, []),
        Segment(1, "One.", 0, 4, 1, None, 2, [101, 2028, 102], parent=0),
        Segment(2, "Who?", 11, 30, 1, None, 2, [101, 2040, 102], answer="Ada."),
    ]
    blob = encode_segments("a-model", segments)
    assert decode_segments(blob) == ("a-model", segments)
    assert [segment.is_parent for segment in segments] == [True, False, False]
    assert [sorted({"parent", "answer"} & plain.keys()) for plain in unpack_segments(blob)[1]] == [
        [],
        ["parent"],
        ["answer"],
    ]


def test_equal_segments_have_one_digest() -> None:
    first, second = encode_segments("a-model", OLD), encode_segments("a-model", list(OLD))
    assert sha256(first).digest() == sha256(second).digest()
    assert json.loads(zlib.decompress(first))["model"] == "a-model"
