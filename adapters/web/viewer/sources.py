"""Texts of prompts in the parts that they were made of, each with where it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WHOLE = 6000
"""Characters up to which a text is shown as a whole."""

HEAD, TAIL = 3000, 800
"""What is shown at once of a longer one, from its beginning and its end."""

FOLDED = 100_000
"""Characters that are on the page, though folded; what is between in a longer text has an address of its own."""


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of text; `source` is the number of where it comes from, None for what is between."""

    text: str
    source: int | None


@dataclass(frozen=True, slots=True)
class Shown:
    """A text as it is shown: its beginning, what is folded, and its end; `left_out` characters are not there at all."""

    head: list[Part]
    folded: list[Part]
    tail: list[Part]
    left_out: int
    length: int


def shown(text: str, sources: Sequence[Mapping[str, Any]] = ()) -> Shown:
    """The text cut into the parts of its sources, each of which has a `number`, a `start` and an `end`."""
    parts = cut(text, sources)
    length = len(text)
    if length <= WHOLE:
        return Shown(parts, [], [], 0, length)
    head, rest = split(parts, HEAD)
    middle, tail = split(rest, length - HEAD - TAIL)
    between = length - HEAD - TAIL
    return Shown(head, [], tail, between, length) if between > FOLDED else Shown(head, middle, tail, 0, length)


def cut(text: str, sources: Sequence[Mapping[str, Any]]) -> list[Part]:
    """Where sources overlap, the one that begins first has what both claim; outside of the text there is nothing."""
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
