"""The result of a query, as a model reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MOST_ROWS, LONGEST_VALUE, LONGEST = 200, 500, 30_000
"""Maximum number of rows, and of characters of a value and of all."""


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """The rows as a table in Markdown. There may be one row more than are shown."""
    if not columns:
        return "0 rows."
    lines = ["| " + " | ".join(map(_cell, columns)) + " |", "|" + "---|" * len(columns)]
    size, shown = sum(map(len, lines)), 0
    for row in rows[:MOST_ROWS]:
        line = "| " + " | ".join(map(_cell, row)) + " |"
        if size + len(line) > LONGEST:
            break
        size, shown = size + len(line), shown + 1
        lines.append(line)
    left = "; there are more: narrow the query" if shown < len(rows) else ""
    return "\n".join(lines) + f"\n\n{shown} rows{left}."


def _cell(value: Any) -> str:
    if value is None:
        return "NULL"
    text = value.hex() if isinstance(value, bytes) else str(value)
    text = " ".join(text.split()).replace("|", "\\|")
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"
