"""Lines of CSV files, which spreadsheets open: texts of strangers run nothing there."""

from __future__ import annotations

import re
from collections.abc import Iterable

_FORMULA = re.compile(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""The first characters of a cell that a spreadsheet takes for a formula, or skips before one."""

_NUMBER = re.compile(r"[+-]?(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][+-]?\d++)?|-Infinity")


def line(cells: Iterable[object], *, raw: bool = False) -> bytes:
    """A line: None is empty, the empty text is quoted. Unless `raw`, a text that begins a formula begins with `'`."""
    return (",".join(_cell(cell, raw) for cell in cells) + "\r\n").encode("utf-8", "replace")


def _cell(cell: object, raw: bool) -> str:
    if cell is None:
        return ""
    text = str(cell)
    if not raw and _FORMULA.match(text) and not _NUMBER.fullmatch(text):
        text = f"'{text}"
    if text and not re.search(r'[",\r\n]', text):
        return text
    return '"' + text.replace('"', '""') + '"'
