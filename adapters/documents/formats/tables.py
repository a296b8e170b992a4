"""Tables as text: every row with the labels of its columns, many rows per block."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from itertools import chain, groupby, islice, pairwise
from typing import NamedTuple

from adapters.documents.formats.parsed import SEPARATOR, Piece, clean, one_line, unbroken

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
_LONGEST_QUESTION = 400
_QUESTION = re.compile(r"[?:？：][)\]]?$")
"""The end of a label that may be long, such as that of a survey."""

_MOST_HEADERS = 4
_MOST_FIELDS = 60
"""Maximum rows of a sheet of names and values."""

_WIDEST = 1000
"""Maximum number of columns over which the cells of a row are spread."""

_NUMBER = re.compile(r"\A[-+−(]?[\s$€£¥]*+\d[\d.,'\s]*(?:%|[$€£¥]|[A-Z]{3})?\)?")
_DIGITS = re.compile(r"\d{1,300}(?:\.\d{1,20})?")
_DATE = re.compile(r"\d{4}-\d\d?-\d\d?|\d{1,2}[./]\d{1,2}[./]\d{2,4}")
_MISSING = frozenset(["n/a", "na", "-", "–", "—", "?", "none", "null", "tbd"])
"""Values that say that there is none."""

_YEAR = re.compile(r"(?:19|20)\d\d")


class Across(str):
    """The text of a cell that is merged across columns, in each of them."""


class Span(NamedTuple):
    """A cell and the number of columns and rows that it spans."""

    text: str
    columns: int = 1
    rows: int = 1


def spanned(value: str | None) -> int:
    """The number of columns or rows that a cell spans, by its attribute: 1 if that is missing, 0 or no number."""
    return max(int(value), 1) if value and value.isdecimal() and len(value) < 4 else 1


def grid(rows: Iterable[Iterable[Span]]) -> Iterator[Row]:
    """Rows of spanning cells, with the text of each in all its columns and rows."""
    below: dict[int, tuple[int, str]] = {}
    for row in rows:
        cells: dict[int, Cell] = {}
        for column, (left, text) in list(below.items()):
            cells[column] = text
            below[column] = (left - 1, text)
            if left == 1:
                del below[column]
        column = 0
        for span in row:
            while column in cells:
                column += 1
            text = Across(span.text) if span.columns > 1 else span.text
            for place in range(column, min(column + span.columns, _WIDEST)):
                cells[place] = text
                if span.rows > 1:
                    below[place] = (span.rows - 1, text)
            column += span.columns
        yield [cells.get(place, "") for place in range(max(cells, default=-1) + 1)]


def pieces(
    rows: Iterable[Row], heading: str | None = None, *, several: bool = True, headers: int | None = None
) -> Iterator[Piece]:
    """The blocks of a sheet below a heading: its tables, separated by empty rows, and the texts between them.

    With `several`, empty columns separate tables, too. `headers` is the number of rows with labels where it is known.
    """
    if headers is not None:
        yield from _Table(None, heading, headers).pieces(filter(None, map(_filled, rows)))
        return
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
        case timedelta():
            minutes, seconds = divmod(round(cell.total_seconds()), 60)
            return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
        case date() | time() | int():
            return str(cell)
    text = clean(cell).strip()
    return text if len(text) > _LONG else one_line(unbroken(text))


class _Table:
    """A table, or texts of their own; `above` is the table there, whose columns it may continue."""

    def __init__(self, above: _Table | None, heading: str | None, headers: int | None = None) -> None:
        self._above = above
        self._headers = headers
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
        texts = _texts(first) if self._headers is None else []
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
            headers = _count_headers(body) if self._headers is None else min(self._headers, len(body))
            self._labels = _labels(body[:headers])
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
        return above._texts_only or not _count_headers(body)

    def _lines(self, rows: Iterable[Filled]) -> Iterator[str]:
        empty = dict(self._labels)
        for row in rows:
            cells = {column: written(cell) for column, cell in row.items()}
            if self._labels and not (len(row) == 1 and isinstance(next(iter(row.values())), Across)):
                yield from record([(self._labels.get(column, ""), text) for column, text in cells.items()])
                for column in cells:
                    empty.pop(column, None)
            else:
                yield " | ".join(cells.values())
        if self._has_labels and any(empty.values()):
            yield " | ".join(filter(None, empty.values()))


def _filled(row: Row) -> Filled:
    filled: Filled = {
        column: cell
        for column, cell in enumerate(row)
        if cell is not None and cell != "" and not (isinstance(cell, str) and cell.isspace())
    }
    values = list(filled.values())
    if len(values) > 1 and isinstance(values[0], Across) and all(value is values[0] for value in values):
        return {next(iter(filled)): values[0]}
    return filled


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


def _labels(headers: list[Filled]) -> dict[int, str]:
    """The labels of columns by the rows of labels; those of upper rows go before."""
    labels: dict[int, str] = {}
    for row in headers:
        spread = row is not headers[-1] and not any(isinstance(cell, Across) for cell in row.values())
        span = ""
        for column in range(max(column for row in headers for column in row) + 1):
            text = written(row.get(column))
            span = text or (span if spread else "")
            before = labels.get(column, "")
            if span and before != span and not before.endswith(f" {span}"):
                labels[column] = f"{before} {span}".strip()
    return labels


def _count_headers(rows: list[Filled]) -> int:
    """The number of leading rows with the labels of columns, 0 for none."""
    if len(rows) < 2 or _is_form(rows):
        return 0
    for count in range(_MOST_HEADERS, 1, -1):
        if len(rows) > count and _are_headers(rows[:count], rows[count]):
            return count
    return int(_is_header(rows))


def _are_headers(rows: list[Filled], below: Filled) -> bool:
    """True if the cells of all rows but the last span columns, so that the rows are labels together."""
    *upper, last = rows
    spanned = [any(isinstance(cell, Across) for cell in row.values()) for row in upper]
    repeated = [any(before == cell for before, cell in pairwise(row.values())) for row in upper]
    if not all(_is_label(cell) for row in upper for cell in row.values()):
        return False
    if not _are_labels(last) and not (all(spanned) and _are_numbered(last, upper[-1])):
        return False
    groups = zip(spanned, repeated, upper, strict=True)
    if not all(spans or repeats or len(row) < len(last) for spans, repeats, row in groups):
        return False
    return all(spanned) or not _are_labels(below)


def _are_numbered(cells: Filled, above: Filled) -> bool:
    """True if the cells are different numbers below spanning labels, or labels that go on from above."""
    numbers: set[tuple[str, str]] = set()
    for column, cell in cells.items():
        if isinstance(above.get(column), Across) and _is_number(cell):
            numbers.add((written(above[column]), written(cell)))
        elif written(cell) != written(above.get(column)):
            return False
    return len(numbers) > 1 and len(numbers) == sum(map(_is_number, cells.values()))


def _is_header(rows: list[Filled]) -> bool:
    """True if the first row has the labels of the columns; they may be numbers, such as sizes, next to texts."""
    first, body = rows[0], rows[1:20]
    used = {column for row in body for column in row}
    if len(first) * 2 < len(used):
        return False
    numbers = [column for column, cell in first.items() if not _is_label(cell)]
    if not numbers:
        return _are_labels(first)
    if not all(map(_is_number, (first[column] for column in numbers))) or min(used, default=0) in numbers:
        return False
    values = [_number(first[column]) for column in numbers]
    if len(set(values)) < len(values):
        return False
    for column in first.keys() - numbers:
        below = [row[column] for row in body if column in row]
        if isinstance(first[column], str) and not _is_year(first[column]) and below and all(map(_is_number, below)):
            return True
    found = [_order([_number(row[column]) for column in numbers if column in row]) for row in body]
    order = _order(values)
    return len(values) > 2 and order > 0 and sum(each >= order for each in found) * 2 <= len(body)


def is_form(rows: Iterable[Row]) -> bool:
    """True if the rows are names and values rather than a table with labels."""
    return _is_form([filled for row in islice(rows, LOOK) if (filled := _filled(row))])


def _is_form(rows: list[Filled]) -> bool:
    """True if the rows are names and values, in one or more pairs of columns, rather than a table with labels."""
    columns = sorted({column for row in rows[:LOOK] for column in row})
    if len(columns) % 2 or len(rows) > _MOST_FIELDS or not 0 < len(columns) < 9:
        return False
    names = [row[column] for row in rows for column in columns[::2] if column in row]
    if len(set(map(written, names))) < len(names) or not all(
        isinstance(name, str) and _is_label(name) for name in names
    ):
        return False
    if sum(written(name).endswith((":", "：")) for name in names) * 2 > len(names):
        return True
    found = {_are_values([row[column] for row in rows if column in row]) for column in columns[1::2]}
    return True in found and False not in found


def _are_values(cells: list[Cell]) -> bool | None:
    """True if the cells are values of different kinds, or begin with one; False for a label above numbers."""
    if not cells or not _is_label(cells[0]):
        return None
    body = [cell for cell in cells[1:] if written(cell).lower() not in _MISSING]
    is_date = not isinstance(cells[0], str) or bool(_DATE.fullmatch(cells[0]))
    if sum(map(str.isdecimal, written(cells[0]))) > 2 and not _is_year(cells[0]) and not is_date:
        return True
    kinds = Counter(
        "number" if _is_number(cell) else "date" if not isinstance(cell, str) or _DATE.fullmatch(cell) else "text"
        for cell in body
    )
    if len(kinds) > 1 and max(kinds.values()) < 0.7 * len(body):
        return True
    return False if body and kinds["number"] == len(body) and not is_date else None


def _are_labels(cells: dict[int, Cell]) -> bool:
    """True if the cells of a row may be labels of columns: texts, years or dates."""
    values = list(cells.values())
    return all(map(_is_label, values)) and any(isinstance(value, str) and not _is_year(value) for value in values)


def _is_label(cell: Cell) -> bool:
    if isinstance(cell, str):
        longest = _LONGEST_QUESTION if _QUESTION.search(cell) else _LONGEST_LABEL
        return len(cell) <= longest and (_is_year(cell) or not _NUMBER.fullmatch(cell.strip()))
    return (isinstance(cell, date) or _is_year(cell)) and not isinstance(cell, bool)


def _is_number(cell: Cell) -> bool:
    return not isinstance(cell, bool) and (isinstance(cell, int | float) or _number(cell) is not None)


def _number(cell: Cell) -> float | None:
    """The value of a number, also of one in a text."""
    if isinstance(cell, int | float):
        return float(cell)
    if isinstance(cell, str) and _NUMBER.fullmatch(cell.strip()):
        digits = _DIGITS.search(cell.replace(",", "."))
        return float(digits[0]) if digits else None
    return None


def _order(values: list[float | None]) -> int:
    """2 for numbers with equal steps, 1 for those that rise or fall, 0 for others or fewer than two."""
    numbers = [value for value in values if value is not None]
    steps = [after - before for before, after in pairwise(numbers)]
    if not steps or not (all(step > 0 for step in steps) or all(step < 0 for step in steps)):
        return 0
    return 2 if len(set(steps)) == 1 else 1


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
