"""Difference of two texts, by words; in scripts without spaces, by characters."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import groupby
from operator import itemgetter
from typing import Literal, NamedTuple

from domain.language import BURMESE, COMPATIBLE, UNSPACED

Kind = Literal["same", "gone", "come"]

WORDS = 4000
"""Maximum number of words that are compared directly; longer texts are compared by lines and sentences first."""

_UNSPACED = UNSPACED + BURMESE + COMPATIBLE + "\uff66-\uff9f"  # half-width kana
_WORD = re.compile(rf"\s+|[{_UNSPACED}]|[^\W{_UNSPACED}]+|.", re.DOTALL)
_LINE = re.compile(r"[^\n.!?。！？]*[\n.!?。！？]+|[^\n.!?。！？]+", re.DOTALL)


class Part(NamedTuple):
    """A part of text in both, only in the first (`gone`), or only in the second (`come`)."""

    kind: Kind
    text: str


def diff(old: str, new: str) -> list[Part]:
    """The parts of both texts in order: without the added ones they are the old text, without the removed ones the new.

    The time is bounded, about a second for megabytes: long parts that differ too much are not compared further.
    """
    parts = _of_words(_WORD.findall(old), _WORD.findall(new))
    return [
        Part(kind, "".join(part.text for part in group))
        for kind, group in groupby(filter(itemgetter(1), _in_order(parts)), key=itemgetter(0))
    ]


def similarity(parts: Sequence[Part]) -> float:
    """Share of both texts that is equal, from 0.0 to 1.0."""
    same = 2 * sum(len(part.text) for part in parts if part.kind == "same")
    other = sum(len(part.text) for part in parts if part.kind != "same")
    return same / (same + other) if same + other else 1.0


def _of_words(old: Sequence[str], new: Sequence[str]) -> Iterator[Part]:
    head = _shared(old, new)
    tail = _shared(old[head:][::-1], new[head:][::-1])
    removed, added = old[head : len(old) - tail], new[head : len(new) - tail]
    yield Part("same", "".join(old[:head]))
    if max(len(removed), len(added)) <= WORDS:
        yield from _compared(removed, added)
    else:
        yield from _of_lines(_LINE.findall("".join(removed)), _LINE.findall("".join(added)))
    yield Part("same", "".join(old[len(old) - tail :]))


def _of_lines(old: Sequence[str], new: Sequence[str]) -> Iterator[Part]:
    """Compare by anchors, lines that occur once in both; between them by words, if there are not too many."""
    left = WORDS
    i = j = 0
    for k, m in [*_anchors(old, new), (len(old), len(new))]:
        removed, added = "".join(old[i:k]), "".join(new[j:m])
        words = _WORD.findall(removed), _WORD.findall(added)
        if (most := max(map(len, words))) <= left:
            left -= most if all(words) else 0
            yield from _compared(*words)
        else:
            yield from (Part("gone", removed), Part("come", added))
        yield Part("same", "".join(old[k : k + 1]))
        i, j = k + 1, m + 1


def _anchors(old: Sequence[str], new: Sequence[str]) -> list[tuple[int, int]]:
    """Positions (in the old, in the new) of lines that occur once in both, the most that keep their order."""
    once = [{line for line, count in Counter(lines).items() if count == 1} for lines in (old, new)]
    both = once[0] & once[1]
    places = {line: place for place, line in enumerate(new) if line in both}
    pairs = [(place, places[line]) for place, line in enumerate(old) if line in places]
    ends: list[int] = []  # by length of a sequence of lines: its least last position, and that pair
    last: list[int] = []
    before: list[int | None] = []
    for number, (_, place) in enumerate(pairs):
        length = bisect_left(ends, place)
        before.append(last[length - 1] if length else None)
        ends[length : length + 1], last[length : length + 1] = [place], [number]
    found: list[tuple[int, int]] = []
    at = last[-1] if last else None
    while at is not None:
        found.append(pairs[at])
        at = before[at]
    return found[::-1]


def _compared(old: Sequence[str], new: Sequence[str]) -> Iterator[Part]:
    # With autojunk, frequent items are ignored: without, the time grows with the cube of the length.
    for tag, i, j, k, m in SequenceMatcher(None, old, new).get_opcodes():
        if tag == "equal":
            yield Part("same", "".join(old[i:j]))
        else:
            yield from (Part("gone", "".join(old[i:j])), Part("come", "".join(new[k:m])))


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    """Number of equal items at the beginning."""
    pairs = zip(one, other, strict=False)
    return next((count for count, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _in_order(parts: Iterator[Part]) -> Iterator[Part]:
    """Merge each run of differences into all removed and then all added text.

    A single equal space between two changed words would be unreadable.
    """
    gone: list[str] = []
    come: list[str] = []
    for part in parts:
        if not part.text:
            continue
        if part.kind == "gone":
            gone.append(part.text)
        elif part.kind == "come":
            come.append(part.text)
        elif gone and come and part.text.isspace():
            gone.append(part.text)
            come.append(part.text)
        else:
            yield from (Part("gone", "".join(gone)), Part("come", "".join(come)), part)
            gone, come = [], []
    yield from (Part("gone", "".join(gone)), Part("come", "".join(come)))
