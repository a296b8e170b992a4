"""The result of reading a file, and its refusal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

SEPARATOR = " › "

_UNWANTED = re.compile("[\0-\x08\x0e-\x1f\x7f\xad\u200b\u2060\ufeff\ufffe\uffff\ud800-\udfff]")
"""Control characters (PostgreSQL cannot store a NUL), soft hyphens, places where a line may break, byte order marks and
lone surrogates."""

_LINE_END = re.compile("\r(?:\r?\n)?|\v|\u2028|\u2029")
"""A line end. Text that was converted twice has two carriage returns."""

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*+[ -/]*+[@-~]|\][^\x07\x1b]*+(?:\x07|\x1b\\)|[@-Z\\^_])")
"""An escape sequence for terminals, such as that of a colour."""

_SOFT_HYPHEN = re.compile("\xad[^\\S\n]*+\n[^\\S\n]*+")
"""A soft hyphen at the end of a line."""

_SCRIPTS = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
)
"""Characters of scripts without spaces between words."""

WIDE = re.compile(f"[{_SCRIPTS}]")
_SHARED = "\u2014\u2018\u2019\u201c\u201d\u2026\u00b7"
"""Punctuation that these scripts have in common with others."""

_WIDE_BREAK = re.compile(
    rf"(?<=[{_SCRIPTS}])[^\S\n]*+\n\s*+(?=[{_SCRIPTS}{_SHARED}])|(?<=[{_SHARED}])[^\S\n]*+\n\s*+(?=[{_SCRIPTS}])"
)
_SPACES = re.compile(r"[ \t\n\r\f]+")

BREAK = "\0"
"""A line break that is one, in text whose line ends are white space; clean text has no such character."""

_DIGIT = re.compile(r"\d")
_MARK = re.compile(r"[\d\s,;–*†‡§-]+|[a-z]")
_MARKED = re.compile(r"(?:\b(?:19|20)\d\d|[^\W\d_]{4}|[^\w\s])\Z")
"""The text before the mark of a note: a year, a word or punctuation."""


class Piece(NamedTuple):
    """A block: `page` counts from 1; `heading` is the path of headings above it, with its own text if it is one."""

    text: str
    page: int | None = None
    heading: str | None = None


class Parsed(NamedTuple):
    """The blocks of a file; `warnings` name what was guessed or left out, for people."""

    pieces: list[Piece]
    pages: int | None = None
    title: str | None = None
    warnings: Sequence[str] = ()


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
    if "\x1b" in text:
        text = _ESCAPE.sub("", text)
    text = _LINE_END.sub("\n", text)
    return _UNWANTED.sub("", _SOFT_HYPHEN.sub("", text))


def one_line(text: str) -> str:
    return " ".join(text.split())


def flowed(text: str) -> str:
    """Text of markup, whose line ends are white space, as it is shown: only each BREAK ends a line."""
    text = _SPACES.sub(" ", _WIDE_BREAK.sub("", text))
    return re.sub(f" ?{BREAK} ?", "\n", text).strip()


def unbroken(text: str) -> str:
    """Text without line ends, as spaces where the script has spaces."""
    return _WIDE_BREAK.sub("", text).replace("\n", " ")


def joined(lines: Iterable[str]) -> str:
    """The joined lines of a paragraph, with spaces between them where the script has spaces."""
    return unbroken("\n".join(filter(None, map(str.strip, lines))))


def are_records(lines: Sequence[str]) -> bool:
    """True if most lines begin with the same word as the one before, as those of logs and tables do; digits are
    alike."""
    words = [_DIGIT.sub("0", line.split(maxsplit=1)[0]) if line.strip() else "" for line in lines]
    return sum(before == word for before, word in pairwise(words)) * 2 >= len(lines) - 1


def raised(before: str, text: str) -> str:
    """A superscript after the text before it: the mark of a note after a word or a year, else a power."""
    text = text.strip()
    if not before[-1:].strip() or (text.isalpha() and len(text) > 1):
        return text
    if text.startswith(("[", "(")):
        return f" {text}"
    return f" [{text}]" if _MARK.fullmatch(text) and _MARKED.search(before[-5:]) else f"^{text}"


def lowered(before: str, text: str) -> str:
    """A subscript after the text before it; only the number of a formula such as H2O is part of the word."""
    text = text.strip()
    return text if not before[-1:].strip() or (before[-1].isalpha() and text.isdecimal()) else f"_{text}"


def grouped(text: str) -> str:
    """A part of a formula on one line, in brackets if it is more than a number or a word."""
    return text if len(text) == 1 or text.isalnum() else f"({text})"


def counted(count: int, one: str, many: str) -> list[str]:
    """A warning about a number of things, none for 0."""
    return [f"{count:,} {one if count == 1 else many}"] if count else []
