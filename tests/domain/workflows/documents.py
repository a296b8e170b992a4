"""The text of documents, as recorded cases have it."""

from __future__ import annotations

import csv
import io
import json

from domain.workflows.values import File

PLAIN = {".txt", ".md", ".html", ".xml", ".py", ".vtt"}
BY_TYPE = {"text/plain": ".txt", "text/markdown": ".md", "text/html": ".html", "text/csv": ".csv"}


class Unreadable(Exception):
    """A document that cannot be read."""


def text_of(file: File, held: bytes) -> str:
    kind = file.extension or BY_TYPE.get(file.mime_type or "", "")
    if kind == ".pdf":
        raise Unreadable("It is no PDF.")
    spec = held.decode("utf-8", "replace")
    if kind in PLAIN:
        return spec
    if kind == ".json":
        try:
            return json.dumps(json.loads(spec), indent=2, ensure_ascii=False)
        except ValueError as error:
            raise Unreadable("It is no JSON.") from error
    if kind == ".csv":
        rows = list(csv.reader(io.StringIO(spec)))
        rows = [*rows[:1], *([["-"] * len(rows[0])] if rows else []), *rows[1:]]
        return "".join(f"| {' | '.join(row)} |\n" for row in rows)
    if kind == ".properties":
        lines = [line.replace("=", ": ", 1) if "=" in line else line for line in spec.splitlines()]
        return "\n".join(lines)
    raise Unreadable(f"No text is read from {kind}.")
