"""Spreadsheets: labels of several rows, names and values, formulas without values, far cells, links, text boxes."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
import xlsxwriter  # type: ignore[import-untyped]

from adapters.documents.formats import csv, sheets
from adapters.documents.formats.parsed import Parsed
from tests.adapters.documents.formats.hostile import good


def made(fill: Callable[[Any, Any], object]) -> bytes:
    file = io.BytesIO()
    with xlsxwriter.Workbook(file) as book:
        fill(book.add_worksheet("Sheet"), book)
    return file.getvalue()


def changed(data: bytes, pattern: bytes, by: bytes, part: str = "sheet1") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            new.writestr(name, re.sub(pattern, by, old.read(name)) if part in name else old.read(name))
    return file.getvalue()


def rows(sheet: Any, table: list[list[Any]]) -> None:
    for number, row in enumerate(table):
        sheet.write_row(number, 0, row)


def lines(parsed: Parsed) -> list[str]:
    return [line for piece in parsed.pieces for line in piece.text.split("\n")]


# --- labels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "found"),
    [
        (
            "Size,36,37,38\nBoot A,4,0,2\nBoot B,3,1,5\n",
            ["Size: Boot A; 36: 4; 37: 0; 38: 2", "Size: Boot B; 36: 3; 37: 1; 38: 5"],
        ),
        (
            "Customer,Current,30,60,90\nMill Ltd,100,20,0,5\n",
            ["Customer: Mill Ltd; Current: 100; 30: 20; 60: 0; 90: 5"],
        ),
        (",36,37,38\nBoot,1,0,2\n", ["Boot; 36: 1; 37: 0; 38: 2"]),
        (
            "Month,1,2,3\nNorth,5,6,7\nSouth,3,8,9\n",
            ["Month: North; 1: 5; 2: 6; 3: 7", "Month: South; 1: 3; 2: 8; 3: 9"],
        ),
        ("Room,101,102,103\nMon,x,,x\n", ["Room: Mon; 101: x; 103: x", "102"]),
        ("Boot A,4,0,2\nBoot B,3,1,5\n", ["Boot A | 4 | 0 | 2", "Boot B | 3 | 1 | 5"]),
        ("Boot A,1,2,3\nBoot B,4,5,6\n", ["Boot A | 1 | 2 | 3", "Boot B | 4 | 5 | 6"]),
    ],
)
def test_numbers_are_labels_where_they_are_in_order_and_the_values_are_not(table: str, found: list[str]) -> None:
    assert lines(csv.read(table.encode())) == found


@pytest.mark.parametrize(
    "table",
    [
        "Order no.,A-4711\nCustomer,Mill Ltd\nDate,2026-03-01\nTotal,1250.5\n",
        "Name:,Ann\nCity:,Ulm\n",
        "Order no.,A-4711,Date,2026-03-01\nCustomer,Mill Ltd,Total,1250.5\n",
        "Customer,Mill Ltd\nContact,Ann Smith\nPhone,+49 123 456\nTotal,12.50\n",
        "Plant,Nord\nYear,2024\nSince,2020-01-01\nTotal,12\nKeeper,Ann\n",
    ],
)
def test_names_and_values_are_no_labels(table: str) -> None:
    assert lines(csv.read(table.encode())) == [line.replace(",", " | ") for line in table.splitlines()]


@pytest.mark.parametrize(
    ("table", "first"),
    [
        ("Name,City\nAnn,Ulm\nBob,Bonn\n", "Name: Ann; City: Ulm"),
        ("Item,Price\nOil,100\nGas,n/a\nCoal,3\n", "Item: Oil; Price: 100"),
        ("Question,Answer\nWhen?,At six.\nWho?,The keeper of 1924.\n", "Question: When?; Answer: At six."),
    ],
)
def test_two_columns_of_one_kind_are_a_table(table: str, first: str) -> None:
    assert lines(csv.read(table.encode()))[0] == first


@pytest.mark.parametrize(
    "first", ["Plant,2024,,2025,\n,Plan,Actual,Plan,Actual", "Plant,2024,2024,2025,2025\nPlant,Plan,Actual,Plan,Actual"]
)
def test_labels_of_two_rows_are_joined_also_without_merged_cells(first: str) -> None:
    assert lines(csv.read(f"{first}\nNord,1,2,3,4\n".encode())) == [
        "Plant: Nord; 2024 Plan: 1; 2024 Actual: 2; 2025 Plan: 3; 2025 Actual: 4"
    ]


def three(sheet: Any, book: Any) -> None:
    sheet.merge_range("A1:A3", "Plant")
    sheet.merge_range("B1:E1", "2024")
    sheet.merge_range("B2:C2", "H1")
    sheet.merge_range("D2:E2", "H2")
    sheet.write_row("B3", ["Plan", "Actual", "Plan", "Actual"])
    sheet.write_row("A4", ["Nord", 1, 2, 3, 4])


def two(sheet: Any, book: Any) -> None:
    sheet.merge_range("A1:A2", "Plant")
    sheet.merge_range("B1:C1", "2024")
    sheet.write_row("B2", ["Plan", "Keeper"])
    sheet.write_row("A3", ["Nord", "much", "Ann"])
    sheet.merge_range("A4:A5", "Sued")
    sheet.write_row("B4", ["little", "Bob"])
    sheet.write_row("B5", ["none", "Cid"])


def numbered(sheet: Any, book: Any) -> None:
    sheet.merge_range("A1:A2", "Plant")
    sheet.merge_range("B1:D1", "2024")
    sheet.write_row("B2", [1, 2, 3])
    sheet.write_row("A3", ["Nord", 5, 6, 7])


def in_one(sheet: Any, book: Any) -> None:
    sheet.write("A1", "Plant")
    sheet.merge_range("B1:C1", "2024")
    sheet.write_row("A2", ["Nord", 5, 6])


def titled(sheet: Any, book: Any) -> None:
    sheet.merge_range("A1:C1", "Plants of 2024")
    sheet.write_row("A2", ["Plant", "Plan", "Actual"])
    sheet.write_row("A3", ["Nord", 1, 2])
    sheet.merge_range("B4:C4", "closed")
    sheet.write("A4", "Sued")


@pytest.mark.parametrize(
    ("fill", "found"),
    [
        (three, ["Plant: Nord; 2024 H1 Plan: 1; 2024 H1 Actual: 2; 2024 H2 Plan: 3; 2024 H2 Actual: 4"]),
        (
            two,
            [
                "Plant: Nord; 2024 Plan: much; 2024 Keeper: Ann",
                "Plant: Sued; 2024 Plan: little; 2024 Keeper: Bob",
                "Plant: Sued; 2024 Plan: none; 2024 Keeper: Cid",
            ],
        ),
        (numbered, ["Plant: Nord; 2024 1: 5; 2024 2: 6; 2024 3: 7"]),
        (in_one, ["Plant: Nord; 2024: 5; 2024: 6"]),
        (titled, ["Plants of 2024", "Plant: Nord; Plan: 1; Actual: 2", "Plant: Sued; Plan: closed; Actual: closed"]),
    ],
)
def test_merged_labels_stand_in_all_their_columns_and_rows(fill: Callable[[Any, Any], None], found: list[str]) -> None:
    assert lines(sheets.read(made(fill))) == found


# --- formulas ------------------------------------------------------------------------------------------------

VALUE = rb"(</f>)<v>[^<]*</v>"
NET = [["Item", "Net", "Gross"], ["Oil", 100, "=B2*1.19"], ["Gas", 50, "=B3*1.19"]]


@pytest.mark.parametrize(
    ("pattern", "by"),
    [
        (rb"(</f>)<v>[^<]*</v>", rb"\1<v></v>"),
        (rb"(</f>)<v>[^<]*</v>", rb"\1<v/>"),
        (rb"(</f>)<v>[^<]*</v>", rb"\1"),
        (rb"x^", b""),
    ],
)
def test_formulas_that_were_never_calculated_are_read_as_formulas(pattern: bytes, by: bytes) -> None:
    parsed = sheets.read(changed(made(lambda sheet, _: rows(sheet, NET)), pattern, by))
    assert lines(parsed) == ["Item: Oil; Net: 100; Gross: =B2*1.19", "Item: Gas; Net: 50; Gross: =B3*1.19"]
    assert parsed.warnings == ["2 formulas without a value"]


def test_formulas_with_values_are_read_as_these() -> None:
    def fill(sheet: Any, book: Any) -> None:
        rows(sheet, [["Item", "Net", "Gross", "Note"], ["Oil", 100], ["Gas", 50]])
        sheet.write_formula("C2", "=B2*1.19", None, 119)
        sheet.write_formula("C3", "=B3*0", None, 0)
        sheet.write_formula("D2", '=IF(B2>0,"","x")', None, "")

    parsed = sheets.read(changed(made(fill), rb'"D2"', b'"D2" t="str"'))
    assert lines(parsed)[:2] == ["Item: Oil; Net: 100; Gross: 119", "Item: Gas; Net: 50; Gross: 0"]
    assert parsed.warnings == []


def test_errors_in_cells_are_counted() -> None:
    def fill(sheet: Any, book: Any) -> None:
        rows(sheet, [["Item", "Net"], ["Oil", 100]])
        sheet.write_formula("B3", "=1/0", None, "#DIV/0!")

    assert sheets.read(made(fill)).warnings == ["1 error in a cell left out"]


# --- far cells -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("row", "column"), [(1048575, 0), (1048575, 16383), (3, 16383), (500000, 2)])
def test_a_far_cell_does_not_make_a_sheet_large(row: int, column: int) -> None:
    def fill(sheet: Any, book: Any) -> None:
        rows(sheet, [["Name", "Tel"], ["Ann", 1]])
        sheet.write(1048575, 0, " ")
        sheet.write(0, 701, ".")
        sheet.write(row, column, "far")
        sheet.merge_range("A4:A5", "merged")

    found = lines(sheets.read(made(fill)))
    assert found[0] == "Name: Ann; Tel: 1"
    assert {"far", "merged"} <= {word for line in found for word in re.split(r"[ ;:|]+", line)}


def test_a_far_cell_of_open_document_does_not_make_a_sheet_large() -> None:
    def cell(text: str) -> str:
        return f'<table:table-cell office:value-type="string"><text:p>{text}</text:p></table:table-cell>'

    gap = '<table:table-cell table:number-columns-repeated="700"/>'
    rows = (
        f"<table:table-row>{cell('Name')}{cell('Tel')}{gap}{cell('.')}</table:table-row>"
        f"<table:table-row>{cell('Ann')}{cell('1')}</table:table-row>"
        f'<table:table-row table:number-rows-repeated="1048000">{gap}</table:table-row>'
        f"<table:table-row>{cell('far')}</table:table-row>"
    )
    by = rb"\1" + rows.encode() + rb"\2"
    found = lines(
        sheets.read(changed(good()["a.ods"].data, rb"(?s)(<table:table [^>]*>).*(</table:table>)", by, "content"))
    )
    assert found == ["Name: Ann; Tel: 1", ".", "far"]


def test_numbers_are_read_as_they_are_shown() -> None:
    def fill(sheet: Any, book: Any) -> None:
        rows(sheet, [["", "Share", "Town", "Price", "Cost", "Time", "Plain"]])
        formats = ["0.0%", "00000", '#,##0.00 "€"', '"$"#,##0', "[h]:mm", "[$-407]0.00"]
        for column, (value, code) in enumerate(zip([0.155, 1067, 1234.5, 12, 1.5, 3.25], formats, strict=True), 1):
            sheet.write_number(2, column, value, book.add_format({"num_format": code}))
            sheet.write_number(1, column, 2, book.add_format({"num_format": code}))
        sheet.write("A2", "a")
        sheet.write("A3", "b")

    assert lines(sheets.read(made(fill))) == [
        "a; Share: 200%; Town: 00002; Price: 2 €; Cost: $2; Time: 48:00:00; Plain: 2",
        "b; Share: 15.5%; Town: 01067; Price: 1234.5 €; Cost: $12; Time: 36:00:00; Plain: 3.25",
    ]


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("#,##0.00\\ [$€-407]", "12.5 €"),
        ("[$CHF-807]\\ 0.00", "CHF12.5"),
        ("[$-407]0.00 €", "12.5 €"),
        ("[$-407]0.00", "12.5"),
    ],
)
def test_the_currency_of_a_format_is_not_its_language(code: str, shown: str) -> None:
    def fill(sheet: Any, book: Any) -> None:
        sheet.write_number("A1", 12.5, book.add_format({"num_format": code}))

    assert lines(sheets.read(made(fill))) == [shown]


def test_raised_digits_of_a_cell_are_not_glued_to_others() -> None:
    def fill(sheet: Any, book: Any) -> None:
        sheet.write_rich_string("A1", "10", book.add_format({"font_script": 1}), "6", " l of H", book.add_format(), "x")
        sheet.write_rich_string("A2", "H", book.add_format({"font_script": 2}), "2", "O & ", book.add_format(), "x")
        sheet.write("A3", "plain")

    assert lines(sheets.read(made(fill))) == ["10^6 l of Hx", "H2O & x", "plain"]


def test_cells_of_open_document_without_a_type_are_texts() -> None:
    rows = b"".join(
        b"<table:table-row>%b</table:table-row>"
        % b"".join(
            b"<table:table-cell table:style-name='x'><text:p>%b</text:p></table:table-cell>" % cell for cell in row
        )
        for row in ((b"Name", b"Town"), (b"Ann", b"Ulm"))
    )
    data = changed(
        good()["a.ods"].data, rb"(?s)(<table:table [^>]*>).*(</table:table>)", rb"\1" + rows + rb"\2", "content"
    )
    assert lines(sheets.read(data)) == ["Name: Ann; Town: Ulm"]


# --- what is around the cells --------------------------------------------------------------------------------


def test_links_text_boxes_and_notes_are_read_and_hidden_sheets_counted() -> None:
    def fill(sheet: Any, book: Any) -> None:
        rows(sheet, [["Name", "Form"], ["Ann", ""], ["Bob", ""]])
        sheet.write_url("B2", "https://example.org/leave-7.pdf", string="leave")
        sheet.write_formula("B3", '=HYPERLINK("https://example.org/b","other")', None, "other")
        sheet.insert_textbox("D4", "Ask the keeper")
        sheet.write_comment("A2", "on leave")
        hidden = book.add_worksheet("Secret")
        hidden.write("A1", "unseen")
        hidden.hide()

    parsed = sheets.read(made(fill))
    assert lines(parsed) == [
        "Name: Ann; Form: leave (https://example.org/leave-7.pdf)",
        "Name: Bob; Form: other (https://example.org/b)",
        "A2: on leave",
        "Ask the keeper",
    ]
    assert parsed.warnings == ["1 hidden sheet left out"]


def test_a_broken_sheet_leaves_the_others() -> None:
    def fill(sheet: Any, book: Any) -> None:
        rows(sheet, [["Name", "Tel"], ["Ann", 1]])
        book.add_worksheet("Other").write_row("A1", ["gate", "opens"])

    parsed = sheets.read(changed(made(fill), rb"<sheetData>.*", b"<sheetData><row><c", "sheet1"))
    assert lines(parsed) == ["gate | opens"]
    assert parsed.warnings == ["sheet Sheet cannot be read"]


def test_a_line_break_within_a_chinese_cell_is_no_space() -> None:
    assert lines(csv.read('名称,说明\n门,"每年检\n查"\n'.encode())) == ["名称: 门; 说明: 每年检查"]
