"""Plain text: paragraphs separated by empty lines."""

from __future__ import annotations

import re

from adapters.documents.formats.encodings import decode
from adapters.documents.formats.parsed import Parsed, Piece, clean, joined

_BLANK = re.compile(r"\n[^\S\n]*+\n\s*+|\f\s*+")
_ITEM = re.compile(r"\A\s*+(?:[-*•‣▪>|#]|\(?\w{1,3}[.)])\s")


def read(data: bytes) -> Parsed:
    text = clean(decode(data))
    return Parsed([Piece(unwrapped(part)) for part in _BLANK.split(text) if part.strip()])


def unwrapped(paragraph: str) -> str:
    """Join the lines of a paragraph that was wrapped to a width; lists, verses and tables keep their lines."""
    lines = [line.rstrip() for line in paragraph.strip("\n").split("\n")]
    full = [len(line) for line in lines[:-1]]
    if not full or max(full) > 200 or min(full) < max(45, max(len(line) for line in lines) * 0.6):
        return "\n".join(lines).strip()
    if any(_ITEM.match(line) or "\t" in line.strip() or "   " in line.strip() for line in lines):
        return "\n".join(lines).strip()
    return joined(lines)
