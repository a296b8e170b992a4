"""JSON and JSON Lines: objects as records, with the names of enclosing objects as headings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from adapters.documents.formats import markdown
from adapters.documents.formats.encodings import decode
from adapters.documents.formats.parsed import SEPARATOR, Parsed, Piece, Refused, clean, one_line
from adapters.documents.formats.tables import blocks, pieces, record

_DEEPEST = 6
"""Maximum number of headings above a record; deeper values have their path."""

_COLUMNS = ("columns", "fields", "header", "headers")
_ROWS = ("data", "rows", "values", "records", "results")
"""Names for the columns and the rows of a table."""

_SURPLUS = re.compile(r'("(?:[^"\\\n]|\\.)*+"?)|//[^\n]*+|/\*(?:[^*]|\*(?!/))*+(?:\*/)?|,(?=\s*+[\]}])', re.DOTALL)
"""A string, or what only other programs allow in JSON: a comment, a comma after the last value."""

_LONG = 300
_NAMED = 10
"""Maximum number of broken lines that a warning names."""

_DECODER = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str, strict=False)
_SPACE = re.compile(r"[\s\x1e]*")
"""White space between values; RFC 7464 has a separator of its own."""


def read(data: bytes) -> Parsed:
    text, warnings = decode(data)
    try:
        values = list(_values(text))
    except Refused:
        values, broken = _by_lines(text)
        if not values and not (values := _with_surplus(text)):
            raise
        warnings = [*warnings, *broken]
    value: Any = values[0] if len(values) == 1 else values
    found = _notebook(value) if _is_notebook(value) else _section(value, ())
    return Parsed(list(found), warnings=warnings)


def _values(text: str) -> Iterator[Any]:
    """Consecutive values, as in JSON Lines. Raises: Refused `broken_file`."""
    place = _SPACE.match(text).end()  # type: ignore[union-attr]
    while place < len(text):
        try:
            value, place = _DECODER.raw_decode(text, place)
        except json.JSONDecodeError as error:
            line = text.count("\n", 0, error.pos) + 1
            raise Refused("broken_file", f"The file is not JSON: {error.msg} in line {line}.") from None
        yield value
        place = _SPACE.match(text, place).end()  # type: ignore[union-attr]


def _by_lines(text: str) -> tuple[list[Any], list[str]]:
    """The values of JSON Lines with broken lines, which stay as they are, and warnings; none if it is no such file."""
    values: list[Any] = []
    broken: list[int] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line := line.strip("\x1e\r\t "):
            try:
                values += list(_values(line))
            except Refused:
                values.append(line)
                broken.append(number)
    if sum(isinstance(value, dict | list) for value in values) < max(len(broken), 1):
        return [], []
    named = ", ".join(f"{number:,}" for number in broken[:_NAMED]) + ", …" * (len(broken) > _NAMED)
    lines = f"line {named} is" if len(broken) == 1 else f"{len(broken):,} lines ({named}) are"
    return values, [f"{lines} not JSON and kept as text"]


def _is_notebook(value: Any) -> bool:
    return isinstance(value, dict) and "nbformat" in value and isinstance(value.get("cells"), list)


def _notebook(value: dict[str, Any]) -> Iterator[Piece]:
    """The cells of a notebook of Jupyter: texts as Markdown, code, and what it printed."""
    heading: str | None = None
    for cell in value["cells"]:
        if not isinstance(cell, dict):
            continue
        if cell.get("cell_type") == "markdown":
            for piece in markdown.read(_source(cell.get("source")).encode()).pieces:
                heading = piece.heading or heading
                yield piece._replace(heading=heading)
            continue
        outputs = [each for each in cell.get("outputs") or () if isinstance(each, dict)]
        data = [each.get("data") for each in outputs]
        shown = [each.get("text/plain") for each in data if isinstance(each, dict)]
        for text in map(_source, (cell.get("source"), *(each.get("text") for each in outputs), *shown)):
            if text.strip():
                yield Piece(text.strip("\n"), None, heading)


def _source(lines: Any) -> str:
    """The text of a cell, which is one or a list of lines."""
    return clean("".join(map(str, lines)) if isinstance(lines, list) else str(lines or ""))


def _with_surplus(text: str) -> list[Any]:
    """The values of a file with comments, or with commas after last values; none if it is no such file."""
    try:
        return list(_values(_SURPLUS.sub(lambda found: found[1] or " ", text)))
    except Refused:
        return []


def _is_table(rows: list[Any]) -> bool:
    """True for rows of scalar values, more than one of them and of their columns."""
    return (
        len(rows) > 1
        and all(isinstance(row, list) and row for row in rows)
        and not any(isinstance(cell, dict | list) for row in rows for cell in row)
        and max(map(len, rows)) > 1
        and any(isinstance(cell, str) and not cell.isdecimal() for cell in rows[0])
    )


def _cells(row: list[Any]) -> list[str]:
    return list(map(_written, row))


def _table(value: dict[str, Any]) -> tuple[list[str], list[Any], dict[str, Any]] | None:
    """The names of the columns, the rows and the other fields of an object that is a table, as databases and data
    frames export it."""
    columns, rows = (
        next((name for name in names if isinstance(value.get(name), list)), None) for names in (_COLUMNS, _ROWS)
    )
    if not columns or not rows:
        return None
    labels: list[Any] = [each.get("name") if isinstance(each, dict) else each for each in value[columns]]
    if not labels or not all(isinstance(label, str) and label for label in labels):
        return None
    if not value[rows] or not all(isinstance(row, list) and len(row) <= len(labels) for row in value[rows]):
        return None
    return labels, value[rows], {name: each for name, each in value.items() if name not in (columns, rows)}


def _section(value: Any, path: tuple[str, ...]) -> Iterator[Piece]:
    """The blocks of a value below a path of names: its fields as one record, nested objects as sections."""
    heading = SEPARATOR.join(path) or None
    if isinstance(value, list) and _is_table(value):
        yield from pieces(map(_cells, value), heading, several=False)
    elif isinstance(value, list):
        yield from blocks((line for each in value for line in record_of(each)), heading)
    elif isinstance(value, dict) and len(path) < _DEEPEST:
        if table := _table(value):
            labels, rows, value = table
            yield from blocks(
                (line for row in rows for line in record_of(dict(zip(labels, row, strict=False)))), heading
            )
        inner = {name: each for name, each in value.items() if _holds_more(each)}
        own = {name: each for name, each in value.items() if name not in inner}
        yield from blocks(record_of(own), heading)
        for name, each in inner.items():
            yield from _section(each, (*path, one_line(clean(name))) if name.strip() else path)
    else:
        yield from blocks(record_of(value), heading)


def _holds_more(value: Any) -> bool:
    """True if a value is a section rather than a field: an object, or a list of objects."""
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(each, dict) for each in value))


def record_of(value: Any) -> Iterator[str]:
    """The lines of a record, every value with its path."""
    fields = [(name, text) for name, text in _fields(value, "") if text]
    return record(fields) if fields else iter(())


def _fields(value: Any, path: str) -> Iterator[tuple[str, str]]:
    match value:
        case dict():
            for name, each in value.items():
                yield from _fields(each, ".".join(filter(None, (path, one_line(clean(name))))))
        case list() if any(isinstance(each, dict | list) for each in value):
            for each in value:
                yield from _fields(each, path)
        case list():
            yield path, ", ".join(filter(None, map(_written, value)))
        case _:
            yield path, _written(value)


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = clean(value or "").strip()
    return text if len(text) > _LONG else one_line(text)
