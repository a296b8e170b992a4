"""Tables with separated values: by comma, semicolon, tab or bar."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from adapters.documents.formats.encodings import decode
from adapters.documents.formats.parsed import Parsed, Refused, clean
from adapters.documents.formats.tables import pieces

_SEPARATORS = ",;\t|"
_SAMPLE = 2**15
_HINT = "sep="
"""A first line that declares the separator to Excel."""

_SINGLE = re.compile(r"(?:^|[,;\t|]) ?'[^'\n]*+'(?=[,;\t|\n]|\Z)", re.MULTILINE)
"""A value in single quotes."""

_ESCAPED = re.compile(r"\\\"(?![,;\t|\n]|\Z)")
_DOUBLED = re.compile(r'[^,;\t|\n]""')
"""A quote within a value, as databases and as spreadsheets write it."""

_MOST_OPEN = 10
"""Maximum number of rows that are read again because of a quote that is never closed."""


class _Dialect(NamedTuple):
    """The signs of a table: around values, before a quote within a value (None: a second quote), between values."""

    quote: str = '"'
    escape: str | None = None
    separator: str = ","


def read(data: bytes) -> Parsed:
    csv.field_size_limit(sys.maxsize)
    text, warnings = decode(data)
    text = clean(text)
    dialect = _quoted(text[:_SAMPLE])
    if text[:4].lower() == _HINT and text[5:6] == "\n":
        separator, text = text[4], text[6:]
    else:
        separator = separator_of(text[:_SAMPLE], dialect)
    try:
        rows = _rows(text, dialect._replace(separator=separator))
        return Parsed(list(pieces(rows, several=False)), warnings=warnings)
    except csv.Error as error:
        raise Refused("broken_file", f"The table cannot be read: {error}.") from None


def separator_of(sample: str, dialect: _Dialect) -> str:
    """The separator with which most rows have the same number of values, the largest number if there is a choice."""
    lines = _lines(sample)

    def agreement(separator: str) -> tuple[int, int]:
        rows = list(_reader(lines, dialect._replace(separator=separator)))
        widths = Counter(len(row) for row in (rows[:-1] or rows) if len(row) > 1)
        width, count = max(widths.items(), key=lambda each: (each[1], each[0]), default=(0, 0))
        return count, width

    return max(_SEPARATORS, key=agreement)


def _quoted(sample: str) -> _Dialect:
    if '"' not in sample:
        is_single = len(_SINGLE.findall(sample)) > sample.strip().count("\n")
        return _Dialect("'") if is_single else _Dialect()
    return _Dialect(escape="\\") if _ESCAPED.search(sample) and not _DOUBLED.search(sample) else _Dialect()


def _lines(text: str) -> list[str]:
    return io.StringIO(text, newline="\n").readlines()


def _rows(text: str, dialect: _Dialect) -> Iterator[list[str]]:
    """The rows of a table. A quote that is never closed costs only its own row: it is part of the text."""
    lines = _lines(text)
    start = 0
    for _ in range(_MOST_OPEN):
        reader = _reader(lines[start:], dialect)
        begin = end = start
        for row in reader:
            begin, end = end, start + reader.line_num
            if end == len(lines) and end - begin > 1 and _is_open(lines[begin:], dialect):
                break
            yield row
        else:
            return
        yield from csv.reader([lines[begin]], delimiter=dialect.separator, quoting=csv.QUOTE_NONE)
        start = begin + 1
    yield from _reader(lines[start:], dialect)


def _is_open(lines: Sequence[str], dialect: _Dialect) -> bool:
    """True if a quote in these lines is not closed."""
    try:
        list(_reader(lines, dialect, strict=True))
    except csv.Error as error:
        return "end of data" in str(error)
    return False


def _reader(lines: Sequence[str], dialect: _Dialect, *, strict: bool = False) -> Any:
    return csv.reader(
        lines,
        delimiter=dialect.separator,
        quotechar=dialect.quote,
        escapechar=dialect.escape,
        skipinitialspace=True,
        strict=strict,
    )
