"""The words of a text, the same for what is indexed and for what is asked."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from snowballstemmer import stemmer  # type: ignore[import-untyped]

LONGEST = 64
"""Characters of a word that count."""

_STOP_WORDS = """
a an and are as at be but by can could did do does for from had has have he her his how i if in into is it its may me my
no not of on or our s she should so such t than that the their them then there these they this those to us was we were
what when where which who why will with would you your
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())

_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\U00020000-\U0003ffff"  # Chinese, Japanese, Korean
)
_MARKS = "".join(chr(code) for code in range(0x300, 0x10000) if unicodedata.category(chr(code)).startswith("M"))
_RUNS = re.compile(rf"([{_UNSPACED}]+)|(?:(?![{_UNSPACED}_])[\w{_MARKS}])+")

_VOWEL_POINTS = dict.fromkeys([*range(0x591, 0x5C8), 0x640, *range(0x64B, 0x660), 0x670])


def words(text: str) -> list[str]:
    """The words in order, without English stop words and cut at 64 characters.

    English is stemmed; scripts without spaces, and Korean, become pairs of neighbouring characters; the vowel points of
    Arabic and Hebrew, which most writers leave out, are dropped.
    """
    text = unicodedata.normalize("NFKC", text).lower().translate(_VOWEL_POINTS)
    found: list[str] = []
    for run in _RUNS.finditer(text):
        word = run.group()
        if run.lastindex and len(word) > 1:
            found.extend(word[at : at + 2] for at in range(len(word) - 1))
        elif word not in STOP_WORDS:
            found.append(_stem(word[:LONGEST]))
    return found


@lru_cache(maxsize=100_000)
def _stem(word: str) -> str:
    return str(stemmer("english").stemWord(word)) if word.isascii() else word
