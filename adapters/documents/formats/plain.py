"""Plain text: paragraphs separated by empty lines."""

from __future__ import annotations

import re
from itertools import pairwise

from adapters.documents.formats.encodings import decode
from adapters.documents.formats.parsed import WIDE, Parsed, Piece, are_records, clean, joined

_BLANK = re.compile(r"\n(?:[^\S\n]*+\n)++|\f\s*+")
_ITEM = re.compile(r"\A\s*+(?:[-*•‣▪>|#]|\(?\w{1,3}[.)])\s")
_ENDED = re.compile(r"[.!?:;…。！？：；।۔؟][\"'”’»」』）)\]]*$")

_NARROWEST, _WIDEST = 45, 200
"""Widths to which prose is wrapped, in columns; a character of Chinese has two."""


def read(data: bytes) -> Parsed:
    text, warnings = decode(data)
    parts = [part for part in _BLANK.split(clean(text)) if part.strip()]
    return Parsed([Piece(unwrapped(part)) for part in parts], warnings=warnings)


def unwrapped(paragraph: str) -> str:
    """Join the lines of a paragraph of prose that was wrapped to a width; all other lines stay lines."""
    lines = [line.rstrip() for line in paragraph.strip("\n").split("\n")]
    return joined(lines) if len(lines) > 1 and _is_wrapped(lines) else "\n".join(lines).strip("\n")


def _is_wrapped(lines: list[str]) -> bool:
    """True if the lines are full and go on within sentences; those of logs and lists begin alike or do not end."""
    full = [_width(line) for line in lines[:-1]]
    if max(full) > _WIDEST or min(full) < max(_NARROWEST, max(map(_width, lines)) * 0.6):
        return False
    if any(_ITEM.match(line) or "\t" in line.strip() or "   " in line.strip() for line in lines):
        return False
    if not _ENDED.search(lines[-1]):
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
