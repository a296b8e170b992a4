"""Keywords in texts: all of them are looked for in one pass, whatever their number (Aho and Corasick)."""

from __future__ import annotations

import unicodedata
from collections import deque
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple


class Matches(NamedTuple):
    """Places of keywords in a text, as (start, end), in order and without overlaps.

    `undecided` is the number of characters at its end that may begin a keyword which goes on in the next text.
    """

    spans: list[tuple[int, int]]
    undecided: int


class Keywords:
    """A matcher of keywords: case, compatibility forms (full width, ligatures), invisible characters and the length of
    white space do not matter. With `whole`, a keyword within a longer word does not count, in scripts with letter case.
    """

    def __init__(self, keywords: Sequence[str], *, whole: bool) -> None:
        self._whole = whole
        self._next: list[dict[str, int]] = [{}]
        self._depth = [0]
        self._ends = [False]
        for keyword in keywords:
            self._add("".join(char for char, _ in _forms(keyword)).strip())
        self._shorter, self._keyword = self._links()

    def _add(self, form: str) -> None:
        state = 0
        for char in form:
            if char not in self._next[state]:
                self._next[state][char] = len(self._next)
                self._next.append({})
                self._depth.append(self._depth[state] + 1)
                self._ends.append(False)
            state = self._next[state][char]
        self._ends[state] = state > 0

    def _links(self) -> tuple[list[int], list[int]]:
        """For each state: the state of its longest proper suffix, and the nearest of these that ends a keyword."""
        shorter, keyword = [0] * len(self._next), [0] * len(self._next)
        queue = deque(self._next[0].values())
        while queue:
            state = queue.popleft()
            suffix = shorter[state]
            keyword[state] = suffix if self._ends[suffix] else keyword[suffix]
            for char, following in self._next[state].items():
                shorter[following] = self._step(suffix, char, shorter)
                queue.append(following)
        return shorter, keyword

    def _step(self, state: int, char: str, shorter: Sequence[int]) -> int:
        while (following := self._next[state].get(char)) is None and state:
            state = shorter[state]
        return following or 0

    def find(self, text: str, *, last: bool = True) -> Matches:
        """Find the keywords; with another text to come (not `last`), what ends at the end is undecided."""
        forms = list(_forms(text))
        spans: list[tuple[int, int]] = []
        state = 0
        for at, (char, _) in enumerate(forms):
            state = self._step(state, char, self._shorter)
            if (found := state if self._ends[state] else self._keyword[state]) and (last or at + 1 < len(forms)):
                self._note(forms, at, found, len(text), spans)
        undecided = 0 if last or not state else len(text) - forms[len(forms) - self._depth[state]][1]
        return Matches(_joined(spans), undecided)

    def _note(
        self, forms: Sequence[tuple[str, int]], at: int, state: int, length: int, spans: list[tuple[int, int]]
    ) -> None:
        """Note the longest keyword that ends at a place and counts, if there is one."""
        after = forms[at + 1] if at + 1 < len(forms) else ("", length)
        if after[1] == forms[at][1] or (after[0] and unicodedata.combining(after[0])):
            return  # it ends within a character
        if self._whole and _is_one_word(forms[at][0], after[0]):
            return
        while state:
            first = at + 1 - self._depth[state]
            start = forms[first][1]
            before = forms[first - 1] if first else ("", -1)
            if before[1] != start and not (self._whole and _is_one_word(before[0], forms[first][0])):
                spans.append((start, after[1] if after[1] > forms[at][1] else length))
                return
            state = self._keyword[state]


@lru_cache(maxsize=64)
def keywords(words: tuple[str, ...], *, whole: bool) -> Keywords:
    """The matcher of these words, which is kept: configurations are asked again and again."""
    return Keywords(words, whole=whole)


def _forms(text: str) -> Iterator[tuple[str, int]]:
    """The characters that are compared, each with the place of the one in the text that it comes from."""
    space = False
    for at, char in enumerate(text):
        for form in _form(char):
            if form != " " or not space:
                yield form, at
            space = form == " "


@lru_cache(maxsize=4096)
def _form(char: str) -> str:
    if char.isspace():
        return " "
    if unicodedata.category(char) == "Cf":
        return ""
    return unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", char).casefold())


def _is_one_word(left: str, right: str) -> bool:
    """True if a word goes on from one character to the next; scripts without letter case may set no spaces."""
    return _is_of_word(left) and _is_of_word(right)


def _is_of_word(char: str) -> bool:
    return bool(char) and unicodedata.category(char) in ("Lu", "Ll", "Lt", "Mn", "Nd")


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if found and start < found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((start, end))
    return found
