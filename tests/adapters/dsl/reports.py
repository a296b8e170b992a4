"""Writes the report on every app file that has none yet: `python -m tests.adapters.dsl.reports`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from adapters.dsl.importing import imported
from domain.aggregate import Rejection
from domain.workflows.mapping import replacements
from domain.workflows.needs import Known

HERE = Path(__file__).parent
FILES = sorted((HERE / "files").iterdir())

DATASET, ENCRYPTED = "7d0c2a1e-5d0f-4b62-9d4b-0a6f2f0b9c11", "kq0bq2V3m1p6b8mM0l0Yf7jz0cWmZb4mQw2d1mPdX8o="

KNOWN = Known(
    models={"openai": frozenset({"gpt-4o", "gpt-4o-mini"}), "local": frozenset(), "builtin": frozenset({"extractive"})},
    datasets=frozenset({DATASET}),
    toolsets={"time": frozenset({"current_time"}), "web": frozenset({"search"}), "builtin": frozenset({"time"})},
)
"""Models, knowledge bases and tools of the tenant of the reports."""

MAPPING = replacements(
    {
        "model": {"anthropic/claude-3-5-sonnet": "local/large"},
        "dataset": {ENCRYPTED: DATASET},
        "tool": {"google": "web/search"},
    }
)
"""Names that stand for those of the files."""


def report(data: bytes) -> dict[str, Any]:
    """The report on a file, or its rejection."""
    try:
        return imported(data, KNOWN, MAPPING).report.plain
    except Rejection as rejection:
        return {"rejected": rejection.code, "field": rejection.field, "message": rejection.message}


def expected(file: Path) -> Path:
    return HERE / "expected" / f"{file.name}.json"


if __name__ == "__main__":
    for file in FILES:
        if not expected(file).exists():
            text = json.dumps(report(file.read_bytes()), ensure_ascii=False, indent=1)
            expected(file).write_text(text + "\n", encoding="utf-8")
