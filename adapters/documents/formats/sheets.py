"""Spreadsheets (XLSX, XLSM, XLSB, XLS, ODS): the visible sheets, and the notes of their cells.

Formulas count with their cached values. A merged cell counts for all its rows and columns.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

from python_calamine import (
    CalamineError,
    CalamineSheet,
    CalamineWorkbook,
    PasswordError,
    SheetTypeEnum,
    SheetVisibleEnum,
)

from adapters.documents.formats import xml
from adapters.documents.formats.links import linked
from adapters.documents.formats.mending import HYPERLINK, column_of, mended, mended_content
from adapters.documents.formats.office import Package, relation_id, text_of
from adapters.documents.formats.parsed import Parsed, Piece, Refused, clean, counted, one_line
from adapters.documents.formats.tables import Across, Cell, Row, pieces, written

_CONTENT = "content.xml"
_MANIFEST = "META-INF/manifest.xml"
_LINK = re.compile(rb"<(?:\w{1,20}:)?hyperlink\b[^<>]*>")
_PLACE = re.compile(rb"\bref=\"([A-Z]{1,3})(\d{1,7})")
_CELLS = re.compile(rb"<(?:\w{1,20}:)?c\b[^<>]*>")
_CELL = re.compile(rb"\br=\"([A-Z]{1,3})(\d{1,7})\"")
_STYLE = re.compile(rb"\bs=\"(\d+)\"")
_ZEROS = re.compile("0{2,20}")
_CURRENCY = re.compile(r"\[\$([^-\[\]]++)(?:-[^\[\]]*+)?\]|(?<!\[)([$€£¥])")
"""A currency in a format of numbers: `[$CHF-807]` names a language, too, and `[$-407]` only that."""

_ID = re.compile(rb":id=\"([^\"<>]+)\"")
_WORKBOOK = "Workbook".encode("utf-16-le")
_STREAM = re.compile(re.escape(_WORKBOOK), re.IGNORECASE)
"""The name of the stream with the sheets of XLS, which some programs write in capitals."""

_THREAD = "[Threaded comment]"
"""Placeholder of a threaded discussion for old programs."""


def read(data: bytes) -> Parsed:
    package = Package(data) if data.startswith(b"PK") else None
    if package and _MANIFEST in package and b"encryption-data" in package.read(_MANIFEST):
        raise Refused("encrypted_file", "The file is encrypted: upload a copy without a password.")
    if not package:
        data = _STREAM.sub(_WORKBOOK, data)
    warnings: list[str] = []
    parts: dict[str, str] = {}
    if package:
        parts = _parts(package)
        if _CONTENT in package and (content := package.read(_CONTENT)) != (near := mended_content(content)):
            data = package.replaced({_CONTENT: near})
        if changed := mended(package, list(parts.values()), warnings):
            warnings += dict.fromkeys(package.warnings)
            data = package.replaced(changed)
            package = Package(data)
    try:
        with CalamineWorkbook.from_filelike(io.BytesIO(data)) as workbook:
            found = list(_sheets(workbook, package, parts, warnings))
    except PasswordError:
        raise Refused("encrypted_file", "The file is encrypted: upload a copy without a password.") from None
    except CalamineError as error:
        raise Refused("broken_file", f"The spreadsheet cannot be read: {one_line(str(error)).rstrip('.')}.") from None
    if package:
        warnings += dict.fromkeys(package.warnings)
    return Parsed(found, None, package.title() if package else None, warnings)


def _sheets(
    workbook: CalamineWorkbook, package: Package | None, parts: dict[str, str], warnings: list[str]
) -> Iterator[Piece]:
    hidden = 0
    formats = _formats(package) if package and parts else {}
    for place, sheet in enumerate(workbook.sheets_metadata):
        if sheet.typ != SheetTypeEnum.WorkSheet:
            continue
        if sheet.visible != SheetVisibleEnum.Visible:
            hidden += 1
            continue
        heading = one_line(sheet.name) or None
        part = parts.get(sheet.name)
        try:
            cells = workbook.get_sheet_by_index(place)
        except CalamineError:
            warnings.append(f"sheet {heading} cannot be read")
            continue
        links, shapes = _of_cells(package, part, formats) if package and part else ({}, {})
        yield from pieces(_rows(cells, links, shapes), heading)
        if package and part:
            yield from (Piece(line, None, heading) for line in _around(package, part))
    warnings += counted(hidden, "hidden sheet left out", "hidden sheets left out")


def _rows(
    sheet: CalamineSheet, links: dict[tuple[int, int], str], formats: dict[tuple[int, int], str]
) -> Iterator[Row]:
    """The rows, with values of merged cells filled in, numbers in their formats, and the addresses of links."""
    offset = sheet.start[1] if sheet.start else 0
    down: dict[int, list[tuple[int, int, int]]] = {}
    for (top, left), (bottom, right) in sheet.merged_cell_ranges or ():
        down.setdefault(top, []).append((left - offset, right - offset, bottom))
    linked_rows = {row for row, _ in links}
    shaped_rows = {row for row, _ in formats}
    open_: dict[int, tuple[int, Cell]] = {}
    for number, row in enumerate(sheet.iter_rows()):
        values: list[Cell] = list(row)
        if number in linked_rows:
            for column, value in enumerate(values):
                if (address := links.get((number, column + offset))) and value != "":
                    values[column] = linked(written(value), address)
        if number in shaped_rows:
            for column, value in enumerate(values):
                if isinstance(value, int | float) and not isinstance(value, bool):
                    values[column] = shown(value, formats.get((number, column + offset), ""))
        if open_ and any(value != "" for value in values):
            for column, (bottom, value) in open_.items():
                if number <= bottom and values[column] == "":
                    values[column] = value
        for left, right, bottom in down.get(number, ()):
            if not 0 <= left < len(values) or values[left] == "":
                continue
            end = min(right + 1, len(values))
            # A cell that is merged across all of a row is its only one: a title.
            if right > left and (left > 0 or any(value != "" for value in values[end:])):
                values[left:end] = [Across(written(values[left]))] * (end - left)
            open_.update((column, (bottom, values[column])) for column in range(left, end) if bottom > number)
        yield values


def _parts(package: Package) -> dict[str, str]:
    """The parts of XLSX with the sheets, by name."""
    main = package.main("xl/workbook.xml")
    if not main.endswith(".xml") or main not in package:  # those of XLSB and ODS cannot be read
        return {}
    relations = package.relations(main)
    found = {}
    for root in package.sound(main):
        for sheet in xml.every(root, "sheet"):
            relation = relations.get(relation_id(sheet))
            if relation and relation.target in package and relation.kind == "worksheet":
                found[sheet.get("name", "")] = relation.target
    return found


def _formats(package: Package) -> dict[str, str]:
    """The formats of numbers that change what is shown, by the number of the cells' style."""
    codes, found = {"9": "0%", "10": "0.00%"}, {}
    for part in package.related(package.main("xl/workbook.xml"), "styles"):
        for root in package.sound(part):
            codes |= {each.get("numFmtId", ""): each.get("formatCode", "") for each in xml.every(root, "numFmt")}
            for place, style in enumerate(xml.child(root, "cellXfs") or ()):
                if shown(1, code := codes.get(style.get("numFmtId", ""), "")) != 1:
                    found[str(place)] = code
    return found


def _of_cells(
    package: Package, part: str, formats: dict[str, str]
) -> tuple[dict[tuple[int, int], str], dict[tuple[int, int], str]]:
    """The addresses that the cells of a sheet lead to, and their formats, by row and column from 0."""
    try:
        data = package.read(part)
    except Refused:
        return {}, {}
    return _links(package, part, data), _formatted(data, formats)


def _formatted(data: bytes, formats: dict[str, str]) -> dict[tuple[int, int], str]:
    """The formats of the cells of a sheet, by row and column from 0."""
    found = {}
    for tag in _CELLS.finditer(data) if formats else ():
        style = _STYLE.search(tag[0])
        if style and (code := formats.get(style[1].decode())) and (place := _CELL.search(tag[0])):
            found[int(place[2]) - 1, column_of(place[1])] = code
    return found


def shown(value: float, code: str) -> Cell:
    """A number as its format shows it: a share in percent, with zeros before it, or with its currency."""
    positive = code.partition(";")[0]
    if "%" in positive:
        return f"{float(f'{value * 100:.12g}'):.15g}%"
    if (zeros := _ZEROS.fullmatch(positive)) and value == int(value) >= 0:
        return str(int(value)).zfill(len(zeros[0]))
    if sign := _CURRENCY.search(positive):
        words = written(float(value))
        name = sign[1] or sign[2]
        return f"{words} {name}" if positive.find("0") < sign.start() else f"{name}{words}"
    return value


def _links(package: Package, part: str, data: bytes) -> dict[tuple[int, int], str]:
    """The addresses that cells lead to, by row and column from 0."""
    found: dict[tuple[int, int], str] = {}
    for column, row, address in HYPERLINK.findall(data):
        found[int(row) - 1, column_of(column)] = clean(address.decode("utf-8", "replace")).replace("&amp;", "&")
    addresses = package.addresses(part) if b"hyperlink" in data else {}
    for tag in _LINK.findall(data) if addresses else ():
        place, id = _PLACE.search(tag), _ID.search(tag)
        if place and id and (address := addresses.get(id[1].decode())):
            found[int(place[2]) - 1, column_of(place[1])] = address
    return found


def _around(package: Package, part: str) -> Iterator[str]:
    """The notes of cells, and the text boxes and charts of a sheet."""
    for comments in package.related(part, "comments"):
        for root in package.sound(comments):
            for comment in xml.every(root, "comment"):
                if (note := one_line(text_of(comment))) and not note.startswith(_THREAD):
                    yield f"{comment.get('ref', '')}: {note}"
    for drawing in package.related(part, "drawing"):
        for root in package.sound(drawing):
            for box in xml.every(root, "txBody"):
                yield from filter(None, (text_of(paragraph) for paragraph in xml.every(box, "p")))
            yield from package.drawn(root, package.relations(drawing))
