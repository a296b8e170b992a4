"""The result of reading a file, and its refusal."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

SEPARATOR = " › "

_UNWANTED = re.compile("[\0-\x08\x0e-\x1f\x7f\xad\ufeff\ufffe\uffff\ud800-\udfff]")
"""Control characters (PostgreSQL cannot store a NUL), soft hyphens, byte order marks and lone surrogates."""

_WIDE = re.compile(r"[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]")
"""Characters of scripts without spaces between words."""


class Piece(NamedTuple):
    """A block: `page` counts from 1; `heading` is the path of headings above it, with its own text if it is one."""

    text: str
    page: int | None = None
    heading: str | None = None


class Parsed(NamedTuple):
    pieces: list[Piece]
    pages: int | None = None
    title: str | None = None


class Refused(Exception):
    """The file cannot be read: `code` is for programs, the message for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Outline:
    """The path of headings at the reader's current place."""

    def __init__(self) -> None:
        self._open: list[tuple[int, str]] = []

    def enter(self, level: int, title: str) -> None:
        """Enter a heading; level 1 is the highest."""
        while self._open and self._open[-1][0] >= level:
            self._open.pop()
        self._open.append((level, title))

    @property
    def path(self) -> str | None:
        return SEPARATOR.join(title for _, title in self._open) or None


def clean(text: str) -> str:
    """The text with line ends `\\n`, without characters that do not belong in texts."""
    return _UNWANTED.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def one_line(text: str) -> str:
    return " ".join(text.split())


def joined(lines: Iterable[str]) -> str:
    """The joined lines of a paragraph, with spaces between them where the script has spaces."""
    whole = ""
    for line in map(str.strip, lines):
        solid = not whole or (_WIDE.match(whole[-1]) and _WIDE.match(line))
        whole += line if solid else f" {line}"
    return whole
