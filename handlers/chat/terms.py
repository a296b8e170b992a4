"""Terms: the units by which a question and a sentence are compared."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from domain.language import COMPATIBLE, HAN, KOREAN, UNSPACED, without_accents

_UNSPACED = UNSPACED + KOREAN + COMPATIBLE

_SPACED_MARKS = re.sub(
    f"[{_UNSPACED}]",
    "",
    "".join(chr(code) for code in range(0x300, 0x10000) if unicodedata.category(chr(code))[0] == "M"),
)
"""Vowel signs and other marks within words, as of Hindi."""

WORD = re.compile(
    rf"(?<![\w.+-])[\w.+-]++@[\w.-]+\w|[{_UNSPACED}]+|\d+(?:[.,:/-]\d+)*"
    rf"|(?:(?![{_UNSPACED}])[^\W\d_][{_SPACED_MARKS}]*+)+"
)

_PIECE = re.compile(rf"\s*(?:[{_UNSPACED}]|(?:(?![{_UNSPACED}])\w)+|[^\w\s])|\s+")
_THOUSANDS = re.compile(r",(?=\d{3}(?:\D|$))")
_VOWEL = re.compile("[aeiouy]")
_HAN = re.compile(f"[{HAN}]")
_POINTS = dict.fromkeys([*range(0x591, 0x5C8), 0x640, *range(0x64B, 0x660), 0x670])
_ARABIC = re.compile("[\u0620-\u064a]+")
_ARABIC_BEGINNING = re.compile("(?:[وفبك]?ال|لل)(?=..)")
_ARABIC_END = re.compile("(?<=..)(?:ها|ان|ات|ون|ين|ية|ه|ة|ي)$")
_HINDI = re.compile("[\u0900-\u097f]+")
_HINDI_END = re.compile("(?<=..)(?:ियों|ियाँ|ाओं|ों|ें|ीं|ाँ|ा|ी|े|ि|ु|ू)$")


def pieces(text: str) -> list[str]:
    """Words and marks of a text, each with the white space before it; joined they are the text."""
    return _PIECE.findall(text)


def terms(text: str) -> list[str]:
    """The terms of a text in order: folded and stemmed words, numbers, pairs of characters of unspaced scripts.

    Each Chinese character is a term, too.
    """
    return [term for word in WORD.findall(fold(text)) for term in terms_of(word)]


def fold(text: str) -> str:
    """The text without upper case, accents, and the vowel points of Arabic and Hebrew."""
    folded = text.casefold()
    return folded if folded.isascii() else without_accents(unicodedata.normalize("NFKC", folded).translate(_POINTS))


@lru_cache(maxsize=1 << 16)
def terms_of(word: str) -> tuple[str, ...]:
    """The terms of one folded word."""
    if re.match(f"[{_UNSPACED}]", word):
        pairs = [word[at : at + 2] for at in range(len(word) - 1)]
        return (*pairs, *_HAN.findall(word)) if pairs else (word,)
    if _ARABIC.fullmatch(word):
        return (_ARABIC_END.sub("", _ARABIC_BEGINNING.sub("", word, count=1)),)
    if _HINDI.fullmatch(word):
        return (_HINDI_END.sub("", word),)
    return (_THOUSANDS.sub("", word) if word[0].isdigit() else stem(word),)


def stem(word: str) -> str:
    """An English word, folded, without its plural or verb ending; the same for all forms, not always a word."""
    if len(word) < 4 or not (word.isascii() and word.isalpha()):
        return word
    if word.endswith(("ies", "ied")) and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "shes", "ches", "xes", "zzes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed", "ation"):
        root = word.removesuffix(ending)
        if root != word and len(root) > 2 and _VOWEL.search(root) and not word.endswith("eed"):
            doubled = len(root) > 3 and root[-1] == root[-2] and root[-1] not in "lsz"
            return root[:-1] if doubled else root.removesuffix("e")
    return word.removesuffix("e") if len(word) > 3 else word
