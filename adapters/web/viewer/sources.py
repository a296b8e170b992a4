"""Texts of prompts in their parts, each with its source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WHOLE = 6000
"""Maximum length of a text that is shown as a whole, in characters."""

HEAD, TAIL = 3000, 800
"""Shown length at the beginning and the end of a longer text, in characters."""

FOLDED = 100_000
"""Maximum length of folded text on the page, in characters; the rest of a longer text has a page of its own."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a text; `source` is the number of its source, None for text between sources."""

    text: str
    source: int | None


@dataclass(frozen=True, slots=True)
class Shown:
    """A text as shown: its beginning, the folded part, and its end; `left_out` characters are omitted."""

    head: list[Part]
    folded: list[Part]
    tail: list[Part]
    left_out: int
    length: int


def shown(text: str, sources: Sequence[Mapping[str, Any]] = (), folded: int = FOLDED) -> Shown:
    """The text split into the parts of its sources, each with a `number`, a `start` and an `end`.

    Of a long text, what is between its beginning and its end is left out if it has more than `folded` characters.
    """
    parts = cut(text, sources)
    length = len(text)
    if length <= WHOLE:
        return Shown(parts, [], [], 0, length)
    head, rest = split(parts, HEAD)
    middle, tail = split(rest, length - HEAD - TAIL)
    between = length - HEAD - TAIL
    return Shown(head, [], tail, between, length) if between > folded else Shown(head, middle, tail, 0, length)


def cut(text: str, sources: Sequence[Mapping[str, Any]]) -> list[Part]:
    """Resolve overlaps of sources in favour of the first, and clip them to the text."""
    parts, at = list[Part](), 0
    for source in sorted(sources, key=lambda source: (source["start"], source["end"])):
        start, end = max(at, source["start"]), min(len(text), source["end"])
        if start >= end:
            continue
        if start > at:
            parts.append(Part(text[at:start], None))
        parts.append(Part(text[start:end], source["number"]))
        at = end
    if at < len(text):
        parts.append(Part(text[at:], None))
    return parts


def split(parts: Sequence[Part], at: int) -> tuple[list[Part], list[Part]]:
    """The parts of the first `at` characters, and those of the others."""
    before, after = list[Part](), list[Part]()
    for part in parts:
        length = len(part.text)
        if at >= length:
            before.append(part)
        elif at <= 0:
            after.append(part)
        else:
            before.append(Part(part.text[:at], part.source))
            after.append(Part(part.text[at:], part.source))
        at -= length
    return before, after
