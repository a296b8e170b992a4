"""The words of a text, the same for what is indexed and for what is asked."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

from snowballstemmer import stemmer  # type: ignore[import-untyped]

from domain.language import BURMESE, KOREAN, STOP_WORDS, UNSPACED

LONGEST = 64
"""Maximum length of a word, in characters; the rest is cut off."""

_LEFT_OUT = STOP_WORDS | {"s", "t"}  # what is left of "it's" and "don't"

_UNSPACED = UNSPACED + BURMESE + KOREAN
_STARTS_UNSPACED = re.compile(f"[{_UNSPACED}]")
_MARKS = _STARTS_UNSPACED.sub(
    "", "".join(chr(code) for code in range(0x300, 0x10000) if unicodedata.category(chr(code)).startswith("M"))
)
_RUNS = re.compile(rf"[{_UNSPACED}]+|(?:[^\W_{_UNSPACED}]++|[{_MARKS}]++)++")
_TO_ASCII_RUNS = str.maketrans({code: chr(code).lower() if chr(code).isalnum() else " " for code in range(128)})
"""Lower-case letters and digits as they are, and spaces for all other ASCII characters: faster than a pattern."""

_VOWEL_POINTS = dict.fromkeys([*range(0x591, 0x5C8), 0x640, *range(0x64B, 0x660), 0x670])


def words(text: str) -> Counter[str]:
    """The number of times each word is in the text, in order of first occurrence, without English stop words.

    English is stemmed; scripts without spaces, and Korean, become pairs of neighbouring characters; the vowel points of
    Arabic and Hebrew, which most writers leave out, are dropped; a word is cut at 64 characters.
    """
    found: Counter[str] = Counter()
    for run, times in Counter(_runs(text)).items():
        if run.isascii():
            if run not in _LEFT_OUT:
                found[_stem(run[:LONGEST])] += times
        elif _STARTS_UNSPACED.match(run):
            for at in range(max(1, len(run) - 1)):
                found[run[at : at + 2]] += times
        else:
            found[run[:LONGEST]] += times
    return found


def distinct(text: str) -> dict[str, None]:
    """The words of the text without their counts."""
    if not text.isascii():
        return dict.fromkeys(words(text))
    return {stem: None for run in dict.fromkeys(_runs(text)) if (stem := _kept(run))}


def _runs(text: str) -> list[str]:
    if text.isascii():
        return text.translate(_TO_ASCII_RUNS).split()
    return _RUNS.findall(unicodedata.normalize("NFKC", text).lower().translate(_VOWEL_POINTS))


@lru_cache(maxsize=100_000)
def _kept(run: str) -> str | None:
    """The stem of an ASCII run; None for a stop word."""
    return None if run in _LEFT_OUT else _stem(run[:LONGEST])


@lru_cache(maxsize=100_000)
def _stem(word: str) -> str:
    # A stemmer of its own for every word: one must not be shared by threads, and they cost next to nothing.
    return str(stemmer("english").stemWord(word))
