"""Uploads: one file that cannot be sent leaves the others; what was left out of a text is reported."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rich.progress import Progress

from ops.cli.upload import Upload


class Bus:
    """A client whose documents are all completed, with a warning."""

    def __init__(self) -> None:
        self.names: list[str] = []

    async def upload_blob(self, data: bytes) -> str:
        return f"digest of {len(data)}"

    async def send(self, type: str, payload: dict[str, Any], *, wait: float) -> dict[str, Any]:
        payload["name"].encode()
        self.names.append(payload["name"])
        return {"status": "accepted", "command": f"document {len(self.names)}", "sequence": len(self.names)}

    async def commits(self, noun: str, *, since: int | None) -> AsyncIterator[SimpleNamespace]:
        for number in range(1, len(self.names) + 1):
            events = [
                {"type": "document.parsed.v3", "state": {"warnings": ["1 comment left out"]}},
                {"type": "document.split.v2", "state": {"count": 3}},
                {"type": "document.completed.v1", "state": {}},
            ]
            yield SimpleNamespace(id=f"document {number}", events=events)


async def test_a_name_that_is_not_utf_8_leaves_the_other_files(tmp_path: Path) -> None:
    files = [tmp_path / "good.txt", Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.txt")), tmp_path / "größe.txt"]
    for file in files:
        file.write_text("The gate opens at six.")
    bus = Bus()
    job = Upload(bus, "dataset", Progress(disable=True))  # type: ignore[arg-type]
    await job.send(files)
    await job.follow()
    assert sorted(bus.names) == ["good.txt", "größe.txt"]
    assert [(each["name"], each["status"], each["reason"], each["warnings"]) for each in job.documents] == [
        ("good.txt", "completed", None, ["1 comment left out"]),
        ("��.txt", "rejected", "its name is not valid UTF-8: rename the file", []),
        ("größe.txt", "completed", None, ["1 comment left out"]),
    ]
