"""Excerpts: names and previews that are made from longer texts."""

from __future__ import annotations

READ = 8
"""Characters of a text that are read for each character of its excerpt, since line ends and spaces are joined."""


def excerpt(text: str, length: int) -> str:
    """The beginning of a text in one line, of at most `length` characters.

    Where it was cut it ends with an ellipsis, after a whole word unless that is very long.
    """
    line = " ".join(text[: READ * length].split())
    if len(line) <= length:
        return line if len(text) <= READ * length else f"{line[: length - 1]}…"
    kept = line[: length - 1]
    if line[length - 1] != " ":
        words, _, _ = kept.rpartition(" ")
        kept = words if 2 * len(words) > length else kept
    return f"{kept.rstrip()}…"
