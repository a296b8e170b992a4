"""Spreadsheets (XLSX, XLSM, XLSB, XLS, ODS): the visible sheets, and the notes of their cells.

Formulas count with their cached values. A cell that is merged with those below it counts for their rows, too.
"""

from __future__ import annotations

import io
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
from adapters.documents.formats.office import Package, text_of
from adapters.documents.formats.parsed import Parsed, Piece, Refused, one_line
from adapters.documents.formats.tables import Cell, Row, pieces

_MANIFEST = "META-INF/manifest.xml"
_THREAD = "[Threaded comment]"
"""Placeholder of a threaded discussion for old programs."""


def read(data: bytes) -> Parsed:
    package = Package(data) if data.startswith(b"PK") else None
    if package and _MANIFEST in package and b"encryption-data" in package.read(_MANIFEST):
        raise Refused("encrypted_file", "The file is encrypted: upload a copy without a password.")
    try:
        with CalamineWorkbook.from_filelike(io.BytesIO(data)) as workbook:
            found = list(_sheets(workbook, _notes(package) if package else {}))
    except PasswordError:
        raise Refused("encrypted_file", "The file is encrypted: upload a copy without a password.") from None
    except CalamineError as error:
        raise Refused("broken_file", f"The spreadsheet cannot be read: {one_line(str(error)).rstrip('.')}.") from None
    return Parsed(found, None, package.title() if package else None)


def _sheets(workbook: CalamineWorkbook, notes: dict[str, list[str]]) -> Iterator[Piece]:
    for place, sheet in enumerate(workbook.sheets_metadata):
        if sheet.typ == SheetTypeEnum.WorkSheet and sheet.visible == SheetVisibleEnum.Visible:
            heading = one_line(sheet.name) or None
            yield from pieces(_rows(workbook.get_sheet_by_index(place)), heading)
            yield from (Piece(note, None, heading) for note in notes.get(sheet.name, ()))


def _rows(sheet: CalamineSheet) -> Iterator[Row]:
    """The rows, with values of merged cells filled in."""
    offset = sheet.start[1] if sheet.start else 0
    merged: dict[int, list[tuple[int, int]]] = {}
    for (top, left), (bottom, _) in sheet.merged_cell_ranges or ():
        if bottom > top:
            merged.setdefault(top, []).append((left - offset, bottom))
    open_: dict[int, tuple[int, Cell]] = {}
    for number, row in enumerate(sheet.iter_rows()):
        values: list[Cell] = list(row)
        if open_ and any(value != "" for value in values):
            for column, (bottom, value) in open_.items():
                if number <= bottom and values[column] == "":
                    values[column] = value
        open_.update(
            (left, (bottom, values[left])) for left, bottom in merged.get(number, ()) if 0 <= left < len(values)
        )
        yield values


def _notes(package: Package) -> dict[str, list[str]]:
    """The notes of cells, by sheet name."""
    main = package.main("xl/workbook.xml")
    if not main.endswith(".xml") or main not in package:  # notes of XLSB and ODS cannot be read
        return {}
    relations = package.relations(main)
    found: dict[str, list[str]] = {}
    for sheet in xml.every(package.tree(main), "sheet"):
        relation = relations.get(next((value for key, value in sheet.items() if key.endswith("}id")), ""))
        parts = package.related(relation.target, "comments") if relation else []
        found[sheet.get("name", "")] = [
            f"{comment.get('ref', '')}: {note}"
            for part in parts
            for comment in xml.every(package.tree(part), "comment")
            if (note := one_line(text_of(comment))) and not note.startswith(_THREAD)
        ]
    return found
