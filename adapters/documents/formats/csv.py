"""Tables with separated values: by comma, semicolon, tab or bar."""

from __future__ import annotations

import csv
import io
import sys
from collections import Counter

from adapters.documents.formats.encodings import decode
from adapters.documents.formats.parsed import Parsed, Refused, clean
from adapters.documents.formats.tables import pieces

_SEPARATORS = ",;\t|"
_SAMPLE = 2**15
_HINT = "sep="
"""A first line that declares the separator to Excel."""


def read(data: bytes) -> Parsed:
    csv.field_size_limit(sys.maxsize)
    text, warnings = decode(data)
    text = clean(text)
    if text[:4].lower() == _HINT and text[5:6] == "\n":
        separator, text = text[4], text[6:]
    else:
        separator = separator_of(text[:_SAMPLE])
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
        return Parsed(list(pieces(rows, several=False)), warnings=warnings)
    except csv.Error as error:
        raise Refused("broken_file", f"The table cannot be read: {error}.") from None


def separator_of(sample: str) -> str:
    """The separator with which most rows have the same number of values, the largest number if there is a choice."""

    def agreement(separator: str) -> tuple[int, int]:
        rows = list(csv.reader(io.StringIO(sample, newline=""), delimiter=separator, skipinitialspace=True))
        widths = Counter(len(row) for row in (rows[:-1] or rows) if len(row) > 1)
        width, count = max(widths.items(), key=lambda each: (each[1], each[0]), default=(0, 0))
        return count, width

    return max(_SEPARATORS, key=agreement)
