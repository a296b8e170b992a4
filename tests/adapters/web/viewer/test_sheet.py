from __future__ import annotations

import csv
import io

import pytest

from adapters.web.viewer.sheet import line

FORMULAS = [
    "=1+1",
    "=cmd|'/C calc'!A0",
    "+1+1",
    "@SUM(1)",
    "-2+3",
    "-",
    "\t=1+1",
    "\r=1+1",
    "\n=1+1",
    "\uff1d1+1",
    "+49 30 1234",
    "-0x1",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_a_text(text: str) -> None:
    [[first, second]] = csv.reader(io.StringIO(line([text, "x"]).decode(), newline=""))
    assert (first, second) == (f"'{text}", "x")
    [[raw, _]] = csv.reader(io.StringIO(line([text, "x"], raw=True).decode(), newline=""))
    assert raw == text


@pytest.mark.parametrize("cell", ["-2.5", "+2", "-1e-7", "-.5", "-Infinity", -2.5, -3, 0, 1.5])
def test_a_number_stays_one(cell: object) -> None:
    assert line([cell]) == f"{cell}\r\n".encode()


def test_null_is_not_the_empty_text() -> None:
    assert line([None, "", 'a"b', "x,y", "a'b=c"]) == b',"","a""b","x,y",a\'b=c\r\n'
