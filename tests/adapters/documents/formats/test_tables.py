"""Tables, records and separated values as text: nothing is lost, every value has its label, blocks are of a size."""

from __future__ import annotations

import csv as writing
import io
import json as encoding
import string
from datetime import date, datetime, time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adapters.documents.formats import csv, json, tables
from adapters.documents.formats.parsed import Parsed, Refused, one_line, unbroken
from adapters.documents.formats.tables import Row, pieces

WORDS = st.text(string.ascii_letters + "äß水 \n", min_size=1, max_size=12).filter(str.strip)
CELLS = st.one_of(
    st.just(""), st.none(), WORDS, st.integers(-(10**9), 10**9), st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(), st.dates(), st.text(max_size=400),
)  # fmt: skip
GRIDS = st.integers(1, 6).flatmap(lambda width: st.lists(st.lists(CELLS, min_size=width, max_size=width), max_size=30))


def lines(rows: list[Row], **options: bool) -> list[tuple[str | None, str]]:
    return [(piece.heading, line) for piece in pieces(rows, **options) for line in piece.text.split("\n")]


@given(GRIDS, st.booleans())
def test_no_cell_is_lost(rows: list[Row], several: bool) -> None:
    found = one_line(" ".join(piece.text for piece in pieces(rows, several=several)))
    for row in rows:
        for cell in row:
            assert one_line(tables.written(cell)) in found


@given(st.lists(st.tuples(WORDS, st.text(max_size=900)), min_size=1, max_size=40))
def test_a_record_keeps_to_its_size_where_its_values_do(fields: list[tuple[str, str]]) -> None:
    longest = max(len(f"{name}: {value}") for name, value in fields)
    for part in tables.record(fields):
        assert len(part) <= max(tables.BLOCK, longest) + 3 * len(fields) + 200


def test_rows_come_with_the_labels_of_their_columns() -> None:
    rows: list[Row] = [["Unit", "Turns", 2023], ["Agnes", 7, 0.5], ["Bert", None, True]]
    assert lines(rows) == [(None, "Unit: Agnes; Turns: 7; 2023: 0.5"), (None, "Unit: Bert; 2023: true")]


def test_many_rows_make_few_blocks() -> None:
    rows: list[Row] = [["Unit", "Turns"], *([f"Turbine {number}", number] for number in range(10_000))]
    found = list(pieces(rows))
    assert len(found) < 400
    assert all(len(piece.text) <= tables.BLOCK for piece in found)
    assert sum(piece.text.count("Unit: ") for piece in found) == 10_000


def test_a_text_above_a_table_is_its_title() -> None:
    rows: list[Row] = [
        ["Units of 2024", ""], ["", ""], ["Unit", "Turns"], ["Agnes", 7], ["", ""],
        ["Agnes has a new bearing.", ""], ["", ""], ["Bert", 9], ["Carla", 8],
    ]  # fmt: skip
    assert lines(rows) == [
        (None, "Units of 2024"),
        ("Units of 2024", "Unit: Agnes; Turns: 7"),
        (None, "Agnes has a new bearing."),
        ("Units of 2024", "Unit: Bert; Turns: 9"),
        ("Units of 2024", "Unit: Carla; Turns: 8"),
    ]


def test_a_table_goes_on_below_an_empty_row() -> None:
    rows: list[Row] = [["Unit", "Turns"], ["Agnes", 7], ["", ""], ["Bert", 9], ["Carla", 8]]
    assert [line for _, line in lines(rows)] == [
        "Unit: Agnes; Turns: 7",
        "Unit: Bert; Turns: 9",
        "Unit: Carla; Turns: 8",
    ]


def test_tables_side_by_side_are_separated() -> None:
    rows: list[Row] = [
        ["Unit", "Turns", "", "Unit", "Power"], ["Agnes", 7, "", "Carla", 180], ["Bert", 9, "", "Dora", 170],
    ]  # fmt: skip
    assert [line for _, line in lines(rows)] == [
        "Unit: Agnes; Turns: 7", "Unit: Bert; Turns: 9", "Unit: Carla; Power: 180", "Unit: Dora; Power: 170",
    ]  # fmt: skip
    assert lines(rows, several=False)[0] == (None, "Unit: Agnes; Turns: 7; Unit: Carla; Power: 180")


def test_an_empty_column_within_a_table_divides_nothing() -> None:
    rows: list[Row] = [["Unit", "Since", "", "Turns", "Power"], ["Agnes", 1924, "", 7, 180]]
    assert lines(rows) == [(None, "Unit: Agnes; Since: 1924; Turns: 7; Power: 180")]


def test_labels_of_two_rows_are_put_together() -> None:
    rows: list[Row] = [["", 2023, "", 2024, ""], ["Region", "Q1", "Q2", "Q1", "Q2"], ["North", 1, 2, 3, 4]]
    assert lines(rows) == [(None, "Region: North; 2023 Q1: 1; 2023 Q2: 2; 2024 Q1: 3; 2024 Q2: 4")]


def test_a_row_of_long_texts_has_a_line_for_each_and_keeps_its_first_value() -> None:
    rows: list[Row] = [["Name", "About", "More"], ["Agnes", "a " * 400, "b " * 400]]
    found = [piece.text.split("\n") for piece in pieces(rows)]
    assert [[line[:8] for line in part] for part in found] == [["Name: Ag", "About: a"], ["Name: Ag", "More: b "]]


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (7.0, "7"), (0.1 + 0.2, "0.3"), (1e7, "10000000"), (1e20, "1e+20"), (-0.5, "-0.5"), (12345678, "12345678"),
        (datetime(1924, 5, 1), "1924-05-01"), (datetime(1924, 5, 1, 6, 30), "1924-05-01 06:30:00"),
        (date(1924, 5, 1), "1924-05-01"), (time(6, 30), "06:30:00"), (True, "true"), ("  a\n b ", "a b"), (None, ""),
    ],
)  # fmt: skip
def test_values_are_written_as_a_spreadsheet_shows_them(cell: tables.Cell, text: str) -> None:
    assert tables.written(cell) == text


# --- separated values ----------------------------------------------------------------------------------------


def texts(parsed: Parsed) -> list[str]:
    return [line for piece in parsed.pieces for line in piece.text.split("\n")]


@given(st.lists(st.lists(WORDS, min_size=2, max_size=5), min_size=1, max_size=20), st.sampled_from(",;\t|"))
@example([["A", "水\n水"]], ",")
def test_separated_values_are_read_as_they_were_written(rows: list[list[str]], separator: str) -> None:
    file = io.StringIO()
    writing.writer(file, delimiter=separator, quoting=writing.QUOTE_ALL).writerows(rows)
    found = one_line(" ".join(texts(csv.read(file.getvalue().encode()))))
    assert all(one_line(unbroken(cell)) in found for row in rows for cell in row)


@pytest.mark.parametrize(
    "data",
    [
        b"Unit,Turns\nAgnes,7\n",
        b"Unit;Turns\r\nAgnes;7\r\n",
        b"Unit\tTurns\rAgnes\t7",
        b'sep=|\n"Unit"|"Turns"\n"Agnes"|7',
        "\ufeffUnit;Turns\nAgnes;7".encode(),
        "Unit,Turns\nAgnes,7\n".encode("utf-16"),
    ],
)
def test_the_separator_is_found(data: bytes) -> None:
    assert texts(csv.read(data)) == ["Unit: Agnes; Turns: 7"]


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ("'name';'note'\n'Ann';'a;b'\n'Bob';'it''s'\n", ["name: Ann; note: a;b", "name: Bob; note: it's"]),
        (
            'name,note\n"Ann","she said \\"hi, you\\" ok"\n"Bob","x"\n',
            ['name: Ann; note: she said "hi, you" ok', "name: Bob; note: x"],
        ),
        ('name,note\n"Ann","C:\\"\n"Bob","say ""x"""\n', ["name: Ann; note: C:\\", 'name: Bob; note: say "x"']),
        ("name,note\nAnn,it's\nBob,'x'\n", ["name: Ann; note: it's", "name: Bob; note: 'x'"]),
        (
            'id,note\n1,"a\nb"\n2,"open\n3,fine\n4,good\n',
            ["id: 1; note: a b", 'id: 2; note: "open', "id: 3; note: fine", "id: 4; note: good"],
        ),
        ("a,b\r\r\n1,2\r\r\n3,4\r\r\n", ["a: 1; b: 2", "a: 3; b: 4"]),
    ],
)
def test_quotes_of_other_programs(data: str, found: list[str]) -> None:
    assert texts(csv.read(data.encode())) == found


def test_a_long_question_is_the_label_of_its_column() -> None:
    question = f"How do you like {'the harbour and ' * 20}the weir?"
    assert texts(csv.read(f'Id,"{question}"\n1,good\n2,fine\n'.encode())) == [
        f"Id: 1; {question}: good", f"Id: 2; {question}: fine",
    ]  # fmt: skip


def test_a_comma_in_a_number_separates_nothing() -> None:
    data = "Unit;Power\n" + "".join(f"Turbine {number};{number},5\n" for number in range(9))
    assert texts(csv.read(data.encode()))[3] == "Unit: Turbine 3; Power: 3,5"


# --- JSON ----------------------------------------------------------------------------------------------------

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), WORDS)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4))


def scalars(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [found for each in value.values() for found in scalars(each)]
    return [found for each in value for found in scalars(each)] if isinstance(value, list) else [value]


@given(VALUES, st.sampled_from(["", "\n", "\r\n"]))
def test_no_value_is_lost(value: Any, end: str) -> None:
    data = encoding.dumps(value) + end
    for parsed in (json.read(data.encode()), json.read((data + "\n" + data).encode())):
        found = one_line(" ".join(piece.text for piece in parsed.pieces))
        for scalar in scalars(value):
            written = "" if scalar is None else str(scalar).lower() if isinstance(scalar, bool) else str(scalar)
            assert one_line(written) in found


def test_objects_are_records_below_the_names_of_what_they_stand_in() -> None:
    value = {
        "name": "The weir", "open": True, "closed": None,
        "units": [{"name": "Agnes", "place": {"river": "Elbe"}, "tags": ["a", "b"]}, {"name": "Bert", "turns": 7.50}],
        "owner": {"name": "Ada", "address": {"town": "Ulm"}},
    }  # fmt: skip
    found = [(piece.heading, piece.text) for piece in json.read(encoding.dumps(value).encode()).pieces]
    assert found == [
        (None, "name: The weir; open: true"),
        ("units", "name: Agnes; place.river: Elbe; tags: a, b\nname: Bert; turns: 7.5"),
        ("owner", "name: Ada"),
        ("owner › address", "town: Ulm"),
    ]


@pytest.mark.parametrize("data", [b'{"a": 1', b'{"a":\n1,\n"b":', b'{"a": 1\n}\nb', b"[1, 2"])
def test_json_that_breaks_off_names_the_line(data: bytes) -> None:
    with pytest.raises(Refused, match=rf"not JSON: .* in line {data.count(10) + 1}\.") as caught:
        json.read(data)
    assert caught.value.code == "broken_file"


@pytest.mark.parametrize(
    "data",
    [
        '[["name", "qty"], ["Oil", 1], ["Gas", null]]',
        '["name", "qty"]\n["Oil", 1]\n["Gas", null]\n',
        '{"columns": ["name", "qty"], "index": [], "data": [["Oil", 1], ["Gas", null]]}',
        '{"fields": [{"name": "name"}, {"name": "qty"}], "rows": [["Oil", 1], ["Gas", null]]}',
        '// tables\n[["name", "qty"], /* rows */ ["Oil", 1], ["Gas", null,],]',
    ],
)
def test_rows_of_json_have_the_names_of_their_columns(data: str) -> None:
    assert texts(json.read(data.encode())) == ["name: Oil; qty: 1", "name: Gas"]


def test_fields_next_to_a_table_of_json_are_kept() -> None:
    data = b'{"columns": ["x"], "data": [[1]], "results": {"y": "kept"}, "values": ["z"]}'
    assert [(piece.text, piece.heading) for piece in json.read(data).pieces] == [
        ("x: 1", None),
        ("values: z", None),
        ("y: kept", "results"),
    ]


def test_what_looks_like_a_comment_in_a_string_of_json_is_text() -> None:
    assert texts(json.read(b'{"a": "http://x /* y */ ,]", }')) == ["a: http://x /* y */ ,]"]


def test_a_notebook_is_read_as_its_texts_code_and_results() -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Gate\n", "\n", "It opens at **six**.\n"]},
        {
            "cell_type": "code",
            "source": "print(6)\n",
            "outputs": [{"text": ["6\n"]}, {"data": {"text/plain": ["<Figure>"], "image/png": "aGk="}}],
        },
    ]
    found = json.read(encoding.dumps({"cells": cells, "nbformat": 4}).encode()).pieces
    assert [(piece.text, piece.heading) for piece in found] == [
        ("Gate", "Gate"), ("It opens at six.", "Gate"), ("print(6)", "Gate"), ("6", "Gate"), ("<Figure>", "Gate"),
    ]  # fmt: skip
