"""Tables as text: every row with the labels of its columns, many rows per block."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from itertools import chain, groupby, islice, pairwise

from adapters.documents.formats.parsed import SEPARATOR, Piece, clean, one_line

Cell = str | int | float | bool | date | datetime | time | timedelta | None
Row = Sequence[Cell]
Filled = dict[int, Cell]
"""The non-empty cells of a row, by column."""

BLOCK = 1000
"""Approximate length of a block of rows, in characters, which fills a segment."""

LOOK = 500
"""Number of rows from which the structure of a table is derived."""

_LONG = 300
"""Length of a cell, in characters, from which it counts as a text rather than a value."""

_LONGEST_LABEL = 120
_NUMBER = re.compile(r"\A[-+−(]?[\s$€£¥]*+\d[\d.,'\s]*(?:%|[$€£¥]|[A-Z]{3})?\)?")
_YEAR = re.compile(r"(?:19|20)\d\d")


def pieces(rows: Iterable[Row], heading: str | None = None, *, several: bool = True) -> Iterator[Piece]:
    """The blocks of a sheet below a heading: its tables, separated by empty rows, and the texts between them.

    With `several`, empty columns separate tables, too.
    """
    above = _Table(None, heading)
    for filled, band in groupby(map(_filled, rows), key=bool):
        if not filled:
            continue
        head = list(islice(band, LOOK))
        starts = _side_by_side(head) if several else []
        if starts:
            whole = list(chain(head, band))  # noqa: B031  # what follows the head
            for start, end in pairwise([*starts, sys.maxsize]):
                yield from _Table(above, heading).pieces(filter(None, (_between(row, start, end) for row in whole)))
            above = _Table(None, heading)
        else:
            above = _Table(above, heading)
            yield from above.pieces(chain(head, band))  # noqa: B031


def blocks(lines: Iterable[str], heading: str | None) -> Iterator[Piece]:
    """Lines in blocks of similar size."""
    block: list[str] = []
    size = 0
    for line in lines:
        if block and size + len(line) > BLOCK:
            yield Piece("\n".join(block), None, heading)
            block, size = [], 0
        block.append(line)
        size += len(line) + 1
    if block:
        yield Piece("\n".join(block), None, heading)


def record(fields: Iterable[tuple[str, str]]) -> Iterator[str]:
    """A row from its names and values: a line, or a line for each value of a long row.

    One that is longer than a block is split into parts, each of which begins with the row's first value.
    """
    parts = [f"{name}: {value}" if name else value for name, value in fields]
    if sum(map(len, parts)) <= BLOCK and not any("\n" in part for part in parts):
        yield "; ".join(parts)
        return
    key = parts[:1] if len(parts[0]) <= _LONGEST_LABEL else []
    lines, size = parts[:1], len(parts[0])
    for part in parts[1:]:
        if size + len(part) > BLOCK:
            yield "\n".join(lines)
            lines, size = list(key), sum(map(len, key))
        lines.append(part)
        size += len(part)
    yield "\n".join(lines)


def written(cell: Cell) -> str:
    """A value as a spreadsheet shows it: with at most 15 digits; a date without its time at midnight."""
    match cell:
        case None:
            return ""
        case bool():
            return "true" if cell else "false"
        case float():
            return f"{cell:.15g}"
        case datetime():
            return (cell.date() if cell.time() == time() else cell).isoformat()[:19].replace("T", " ")
        case date() | time() | timedelta() | int():
            return str(cell)
    text = clean(cell).strip()
    return text if len(text) > _LONG else one_line(text)


class _Table:
    """A table, or texts of their own; `above` is the table there, whose columns it may continue."""

    def __init__(self, above: _Table | None, heading: str | None) -> None:
        self._above = above
        self._heading = heading
        self._section = heading
        self._title: str | None = None
        self._labels: dict[int, str] = {}
        self._has_labels = False  # its own labels, not those of the table above
        self._columns: set[int] = set()
        self._texts_only = False

    def pieces(self, rows: Iterator[Filled]) -> Iterator[Piece]:
        above, self._above = self._above, None
        first = list(islice(rows, LOOK))
        texts = _texts(first)
        yield from blocks(texts, self._heading)
        if len(texts) == len(first):
            self._title = next(filter(_is_title, reversed(texts)), None)
            if above and not self._title:
                self._take_over(above)
            yield from blocks((" | ".join(map(written, row.values())) for row in rows), self._heading)
            return
        body = first[len(texts) :]
        self._columns = {column for row in body for column in row}
        self._title = next(filter(_is_title, texts), above._title if above else None)
        if self._title is None and above and self._goes_on_with(above, body):
            self._take_over(above)
        else:
            self._section = SEPARATOR.join(filter(None, (self._heading, self._title))) or None
            self._labels, headers = _labels(body)
            self._has_labels = headers > 0
            body = body[headers:]
        self._texts_only = all(_is_label(cell) for row in body[:20] for cell in row.values())
        self._title = None
        yield from blocks(self._lines(chain(body, rows)), self._section)

    def _take_over(self, above: _Table) -> None:
        self._section, self._labels, self._columns = above._section, above._labels, above._columns
        self._texts_only = above._texts_only

    def _goes_on_with(self, above: _Table, body: list[Filled]) -> bool:
        """True if the rows have the columns of the table above, and no labels of their own."""
        if not above._labels or not self._columns <= above._columns:
            return False
        return above._texts_only or not _labels(body)[0]

    def _lines(self, rows: Iterable[Filled]) -> Iterator[str]:
        empty = dict(self._labels)
        for row in rows:
            cells = {column: written(cell) for column, cell in row.items()}
            if self._labels:
                yield from record([(self._labels.get(column, ""), text) for column, text in cells.items()])
                for column in cells:
                    empty.pop(column, None)
            else:
                yield " | ".join(cells.values())
        if self._has_labels and any(empty.values()):
            yield " | ".join(filter(None, empty.values()))


def _filled(row: Row) -> Filled:
    return {
        column: cell
        for column, cell in enumerate(row)
        if cell is not None and cell != "" and not (isinstance(cell, str) and cell.isspace())
    }


def _is_title(text: str) -> bool:
    return len(text) <= _LONGEST_LABEL and not text.endswith((".", "!", "?", ";"))


def _texts(rows: list[Filled]) -> list[str]:
    """The texts of the leading rows with one cell each; for a table of one column, all."""
    texts: list[str] = []
    for row in rows:
        if len(row) > 1:
            break
        texts += map(written, row.values())
    return texts


def _labels(rows: list[Filled]) -> tuple[dict[int, str], int]:
    """The labels of a table's columns, and their number of rows: two where upper labels span columns."""
    head = rows[:3]
    if len(head) < 2 or not all(map(_is_label, head[0].values())):
        return {}, 0
    if len(head) == 3 and len(head[1]) > len(head[0]) and _are_labels(head[1]) and not _are_labels(head[2]):
        labels, span = {}, ""
        for column in range(max(head[1]) + 1):
            span = written(head[0].get(column)) or span
            labels[column] = " ".join(filter(None, (span, written(head[1].get(column)))))
        return labels, 2
    used = {column for row in rows[1:20] for column in row}
    if len(head[0]) * 2 < len(used) or not _are_labels(head[0]):
        return {}, 0
    return {column: written(cell) for column, cell in head[0].items()}, 1


def _are_labels(cells: dict[int, Cell]) -> bool:
    """True if the cells of a row may be labels of columns: texts, years or dates."""
    values = list(cells.values())
    return all(map(_is_label, values)) and any(isinstance(value, str) and not _is_year(value) for value in values)


def _is_label(cell: Cell) -> bool:
    if isinstance(cell, str):
        return len(cell) <= _LONGEST_LABEL and (_is_year(cell) or not _NUMBER.fullmatch(cell.strip()))
    return (isinstance(cell, date) or _is_year(cell)) and not isinstance(cell, bool)


def _is_year(cell: Cell) -> bool:
    return isinstance(cell, str | int | float) and bool(_YEAR.fullmatch(written(cell)))


def _side_by_side(rows: list[Filled]) -> list[int]:
    """The first columns of the tables, when there are several.

    Columns separated by an empty one may still be of one table: only those with equal labels, or that end in different
    rows, are tables of their own.
    """
    used = sorted({column for row in rows for column in row})
    groups: list[list[int]] = []
    for column in used:
        if groups and column == groups[-1][-1] + 1:
            groups[-1].append(column)
        else:
            groups.append([column])
    if len(groups) < 2 or any(len(group) < 2 for group in groups):
        return []
    last = {max(place for place, row in enumerate(rows) if not row.keys().isdisjoint(group)) for group in groups}
    names = [{written(rows[0].get(column)) for column in group} for group in groups]
    if len(last) < 2 and not set.intersection(*names) - {""}:
        return []
    return [group[0] for group in groups]


def _between(row: Filled, start: int, end: int) -> Filled:
    return {column: cell for column, cell in row.items() if start <= column < end}
