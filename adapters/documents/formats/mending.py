"""Sheets before they are read: formulas without a value get their text, raised digits a sign, far cells come near.

The reader of spreadsheets knows values only, and takes memory for every cell between the first and the last.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable
from xml.sax.saxutils import escape, unescape

from adapters.documents.formats.office import Package
from adapters.documents.formats.parsed import Refused, counted, lowered, raised

_FEW = 5_000_000
"""Number of cells, full or empty, that a sheet may have at any rate."""

_FULLNESS = 20
"""Maximum number of empty cells for each full one, in larger sheets."""

_GAP = 2
"""Number of empty rows or columns that a longer gap becomes."""

_FORMULA = re.compile(
    rb"<((?:\w{1,20}:)?)c\b([^<>]*)>\s*+<\1f\b(?:[^<>]*/>|[^<>]*>([^<]*)</\1f>)\s*+"
    rb"(?:<\1v\b[^<>]*/>|<\1v\b[^<>]*>(\s*+0?)</\1v>)?\s*+</\1c>"
)
"""A cell with a formula without a value, or with 0."""

_WITH_FORMULA = re.compile(rb"<(?:\w{1,20}:)?f\b")
_KIND = re.compile(rb"\s(?:t|s)=\"[^\"<>]*\"")
_EMPTY = b't="str"'
"""The attribute of a cell whose value is a text, which may be empty."""

_AT_ONCE = b'fullCalcOnLoad="1"'
_ERROR = b't="e"'

HYPERLINK = re.compile(
    rb"<(?:\w{1,20}:)?c\b[^<>]*?\br=\"([A-Z]{1,3})(\d{1,7})\"[^<>]*><(?:\w{1,20}:)?f>HYPERLINK\(\"([^\"<>]+)\""
)
"""A cell whose formula is a link, its column, row and address."""

_CELL = re.compile(rb"(<(?:\w{1,20}:)?(?:c|row)\b[^<>]*?\br=\")([A-Z]{0,3})(\d{1,7})\"")
_RANGE = re.compile(
    rb"(<(?:\w{1,20}:)?(?:mergeCell|hyperlink|dimension)\b[^<>]*?\bref=\")([A-Z]{1,3})(\d{1,7})(?::([A-Z]{1,3})(\d{1,7}))?"
)


_SCRIPT = b"vertAlign"
_RAISED = re.compile(rb"vertAlign val=\"(super|sub)script\"")
_RICH = re.compile(rb"<(?:\w{1,20}:)?si\b[^<>]*>(?:[^<]|<(?!/?(?:\w{1,20}:)?si\b))*+</(?:\w{1,20}:)?si>")
_RUN = re.compile(
    rb"(<(?:\w{1,20}:)?r>(?:(?!</?(?:\w{1,20}:)?[rt]\b).)*+)<((?:\w{1,20}:)?)t\b[^<>]*>([^<>]*)</\2t>", re.DOTALL
)
"""A text of a sheet with raised or lowered parts, and each of its runs: properties and text."""

_EMPTY_ROWS = re.compile(
    rb"(<table:table-row\b[^<>]*\bnumber-rows-repeated=\")\d{4,9}(\"[^<>]*>(?:\s*+<table:table-cell\b[^<>]*/>)*+\s*+</table:table-row>)"
)
_EMPTY_CELLS = re.compile(rb"(<table:table-cell\b[^<>]*\bnumber-columns-repeated=\")\d{3,9}(\"[^<>]*/>)")


_UNTYPED = re.compile(rb"(<table:table-cell\b(?![^<>]*\bvalue-type=)[^<>]*)(?<!/)>(?=\s*+<text:p\b)")
"""A cell of OpenDocument with text, whose type is left out."""


def mended(package: Package, parts: Iterable[str], warnings: list[str]) -> dict[str, bytes]:
    """The sheets among these parts, and the shared texts, that had to be changed."""
    sheets = {}
    for part in parts:
        try:
            sheets[part] = package.read(part)
        except Refused:
            package.warn(part)
    formulas = sum(len(_WITH_FORMULA.findall(data)) for data in sheets.values())
    main = package.main("xl/workbook.xml")
    # Some programs write 0 for each value, and have the next program calculate.
    zeros = _AT_ONCE in package.read(main) if formulas and main in package else False
    zeros = zeros and formulas == sum(len(_FORMULA.findall(data)) for data in sheets.values())
    found: dict[str, bytes] = {}
    written = 0

    def write(cell: re.Match[bytes]) -> bytes:
        nonlocal written
        if ((cell[4] or b"").strip() and not zeros) or (cell[4] is not None and _EMPTY in cell[2]):
            return cell[0]
        written += 1
        name, text = cell[1], b"=" + (cell[3] or b"(formula)").lstrip(b"=")
        attributes = _KIND.sub(b"", cell[2])
        return b'<%bc%b t="inlineStr"><%bis><%bt>%b</%bt></%bis></%bc>' % (
            name, attributes, name, name, text, name, name, name,
        )  # fmt: skip

    for part in package.related(main, "sharedStrings"):
        try:
            if _SCRIPT in (data := package.read(part)):
                found[part] = _RICH.sub(_with_scripts, data)
        except Refused:
            package.warn(part)
    for part, data in sheets.items():
        changed = _FORMULA.sub(write, data) if formulas else data
        if _is_sparse(changed):
            changed = _compact(changed)
        if changed != data:
            found[part] = changed
    warnings += counted(written, "formula without a value", "formulas without a value")
    errors = sum(data.count(_ERROR) for data in sheets.values())
    warnings += counted(errors, "error in a cell left out", "errors in cells left out")
    return found


def mended_content(data: bytes) -> bytes:
    """The content of an OpenDocument spreadsheet, with shorter gaps between rows and columns, and types of cells."""
    data = _UNTYPED.sub(rb'\1 office:value-type="string">', data)
    return _EMPTY_CELLS.sub(rb"\g<1>3\g<2>", _EMPTY_ROWS.sub(rb"\g<1>3\g<2>", data))


def _with_scripts(text: re.Match[bytes]) -> bytes:
    """A text of several runs, with the raised and lowered ones marked as such."""
    if _SCRIPT not in text[0]:
        return text[0]
    before = ""

    def run(found: re.Match[bytes]) -> bytes:
        nonlocal before
        words = unescape(found[3].decode("utf-8", "replace"))
        if (script := _RAISED.search(found[1])) and words.strip():
            words = (raised if script[1] == b"super" else lowered)(before, words)
        before = (before + words)[-5:]
        return b'%b<%bt xml:space="preserve">%b</%bt>' % (found[1], found[2], escape(words).encode(), found[2])

    return _RUN.sub(run, text[0])


def column_of(letters: bytes) -> int:
    """The column from 0 with these letters."""
    number = 0
    for letter in letters:
        number = number * 26 + letter - 64
    return number - 1


def _letters(column: int) -> bytes:
    letters = b""
    while column >= 0:
        letters = bytes([65 + column % 26]) + letters
        column = column // 26 - 1
    return letters


def _used(data: bytes) -> tuple[list[int], list[int], int]:
    """The used rows and columns, and the number of cells."""
    rows, columns, cells = set(), set(), 0
    for found in _CELL.finditer(data):
        if found[2]:
            rows.add(found[3])
            columns.add(found[2])
            cells += 1
    return sorted(map(int, rows)), sorted(map(column_of, columns)), cells


def _is_sparse(data: bytes) -> bool:
    place = max(data.rfind(b"<row"), data.rfind(b":row"))
    last = _CELL.search(data, max(place - 20, 0)) if place >= 0 else None
    if not last or int(last[3]) < 2000:
        return False
    rows, columns, cells = _used(data)
    if not cells:
        return False
    area = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
    return area > _FEW and area > cells * _FULLNESS


def _compact(data: bytes) -> bytes:
    """The sheet with shorter gaps between rows and columns."""
    rows, columns, _ = _used(data)
    near_rows, near_columns = _near(rows), _near(columns)

    def row(text: bytes) -> bytes:
        return b"%d" % near_rows[min(bisect_left(rows, int(text)), len(rows) - 1)]

    def column(text: bytes) -> bytes:
        return _letters(near_columns[min(bisect_left(columns, column_of(text)), len(columns) - 1)]) if text else b""

    def cell(found: re.Match[bytes]) -> bytes:
        return b'%b%b%b"' % (found[1], column(found[2]), row(found[3]))

    def range_(found: re.Match[bytes]) -> bytes:
        end = b":" + column(found[4]) + row(found[5]) if found[4] else b""
        return found[1] + column(found[2]) + row(found[3]) + end

    return _RANGE.sub(range_, _CELL.sub(cell, data))


def _near(used: list[int]) -> list[int]:
    """The new places of used rows or columns."""
    places: list[int] = []
    for before, at in zip([used[0] - 1, *used], used, strict=False):
        places.append(min(at, (places[-1] if places else 0) + min(at - before, _GAP + 1)))
    return places
