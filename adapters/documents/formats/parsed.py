"""What the reading of a file gives, and how it says no."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

SEPARATOR = " › "

_UNWANTED = re.compile("[\0-\x08\x0e-\x1f\x7f\xad\ufeff\ufffe\uffff\ud800-\udfff]")
"""Control signs (PostgreSQL cannot keep a NUL), soft hyphens, byte order marks and halves of surrogate pairs."""

_WIDE = re.compile(r"[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]")
"""Signs of scripts that put no space between words."""


class Piece(NamedTuple):
    """A block: `page` counts from 1; `heading` is the path of headings above it, with its own when it is one."""

    text: str
    page: int | None = None
    heading: str | None = None


class Parsed(NamedTuple):
    pieces: list[Piece]
    pages: int | None = None
    title: str | None = None


class Refused(Exception):
    """A file that cannot be read: `code` for programs, the message for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Outline:
    """The path of headings down to the place that a reader has come to."""

    def __init__(self) -> None:
        self._open: list[tuple[int, str]] = []

    def enter(self, level: int, title: str) -> None:
        """Go under a heading; level 1 is the highest."""
        while self._open and self._open[-1][0] >= level:
            self._open.pop()
        self._open.append((level, title))

    @property
    def path(self) -> str | None:
        return SEPARATOR.join(title for _, title in self._open) or None


def clean(text: str) -> str:
    """The text with line ends as `\\n` and without signs that no text has."""
    return _UNWANTED.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def one_line(text: str) -> str:
    return " ".join(text.split())


def joined(lines: Iterable[str]) -> str:
    """Lines of one paragraph as one, with a space between them where the script has spaces."""
    whole = ""
    for line in map(str.strip, lines):
        solid = not whole or (_WIDE.match(whole[-1]) and _WIDE.match(line))
        whole += line if solid else f" {line}"
    return whole
