"""Plain text: paragraphs separated by empty lines."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

from adapters.documents.formats.encodings import decode
from adapters.documents.formats.parsed import WIDE, Parsed, Piece, are_records, clean, unbroken

_BLANK = re.compile(r"\n(?:[^\S\n]*+\n)++|\f\s*+")
_STRUCK = re.compile("[^\n]\x08")
"""A character that is struck over by the next one, as manuals are printed in bold."""

_DIVIDED = re.compile(r"(?<![^\W\d_])([^\W\d_]++)-\n([^\W\d_]++)")
"""A word with a hyphen at the end of a line."""

_WORD = re.compile(r"[^\W\d_]++")
_ITEM = re.compile(r"\A\s*+(?:[-*•‣▪>|#]|\(?\w{1,3}[.)])\s")
_ENDED = re.compile(r"[.!?:;…。！？：；।۔؟][\"'”’»」』）)\]]*$")
_WITHOUT_STOPS = re.compile("[\u0e00-\u0eff]$")
"""Text of Thai and Lao, whose sentences end without a sign."""

_NARROWEST, _WIDEST = 45, 200
"""Widths to which prose is wrapped, in columns; a character of Chinese has two."""


def read(data: bytes) -> Parsed:
    text, warnings = decode(data)
    text = clean(_STRUCK.sub("", text) if "\x08" in text else text)
    known = Counter(_WORD.findall(text.lower())) if _DIVIDED.search(text) else Counter[str]()
    parts = [part for part in _BLANK.split(text) if part.strip()]
    return Parsed([Piece(unwrapped(part, known)) for part in parts], warnings=warnings)


def unwrapped(paragraph: str, known: Counter[str]) -> str:
    """Join the lines of a paragraph of prose that was wrapped to a width; all other lines stay lines.

    `known` are the words of the text in lower case, by which words that were divided at line ends are rejoined.
    """
    lines = [line.rstrip() for line in paragraph.strip("\n").split("\n")]
    if len(lines) < 2 or not _is_wrapped(lines):
        return "\n".join(lines).strip("\n")

    def rejoined(found: re.Match[str]) -> str:
        head, tail = found[1].lower(), found[2].lower()
        # Each part counts as one of the known words.
        is_one_word = known[head + tail] > 0 or max(known[head], known[tail]) < 2
        return found[1] + ("" if is_one_word else "-") + found[2]

    return unbroken(_DIVIDED.sub(rejoined, "\n".join(filter(None, map(str.strip, lines)))))


def _is_wrapped(lines: list[str]) -> bool:
    """True if the lines are full and go on within sentences; those of logs and lists begin alike or do not end."""
    full = [_width(line) for line in lines[:-1]]
    if max(full) > _WIDEST or min(full) < max(_NARROWEST, max(map(_width, lines)) * 0.6):
        return False
    if any(_ITEM.match(line) or "\t" in line.strip() or "   " in line.strip() for line in lines):
        return False
    if not (_ENDED.search(lines[-1]) or _WITHOUT_STOPS.search(lines[-1])):
        return False
    breaks = list(pairwise(lines))
    return not are_records(lines) and sum(_goes_on(before, line) for before, line in breaks) * 3 >= len(breaks)


def _width(line: str) -> int:
    return len(line) + len(WIDE.findall(line))


def _goes_on(before: str, line: str) -> bool:
    """True if a sentence continues in the next line."""
    if _ENDED.search(before):
        return False
    return line.lstrip()[:1].islower() or bool(WIDE.match(before[-1:]) and WIDE.match(line.lstrip()))
