"""Upload of files to a dataset, and their progress into the index."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import Progress

from adapters.jetstream.client import Client, NoOutcome, NotSent, rejection

AT_ONCE = 4
LARGEST = 256 * 2**20
PATIENCE = 600.0
"""Maximum time without an event of the documents, in seconds, before the upload stops waiting."""

ENDS = {"document.completed": "completed", "document.failed": "error", "document.deleted": "deleted"}


class Upload:
    """An upload; `documents` has a dict for each file: name, document id, status, reason, segments, warnings."""

    def __init__(self, client: Client, dataset: str, progress: Progress, **fields: Any) -> None:
        """`fields` are further fields of the command, the same for every file: segmentation, metadata, user."""
        self.client = client
        self.common = {"dataset": dataset} | {name: value for name, value in fields.items() if value is not None}
        self.progress = progress
        self.documents: list[dict[str, Any]] = []
        self._first: int | None = None

    async def send(self, files: Sequence[Path]) -> None:
        """Upload the files; a failure does not stop the others."""
        bar = self.progress.add_task("upload", total=len(files))
        turn = asyncio.Semaphore(AT_ONCE)

        async def one(file: Path) -> dict[str, Any]:
            async with turn:
                document = await self._send(file)
            self.progress.advance(bar)
            return document

        self.documents = await asyncio.gather(*map(one, files))

    async def _send(self, file: Path) -> dict[str, Any]:
        document: dict[str, Any] = {
            "name": readable_name(file),
            "document": None,
            "status": "rejected",
            "reason": None,
            "segments": 0,
            "warnings": [],
        }
        if document["name"] != file.name:
            return document | {"reason": "its name is not valid UTF-8: rename the file"}
        try:
            data = await asyncio.to_thread(read, file)
            payload = self.common | {"name": file.name}
            if "user" in self.common:
                payload["digest"], payload["key"] = await self.client.upload_packed(data)
            else:
                payload["digest"] = await self.client.upload_blob(data)
            outcome = await self.client.send("document.upload", payload, wait=60)
        except (OSError, ValueError, NotSent, NoOutcome) as error:
            return document | {"reason": str(error)}
        if outcome["status"] == "rejected":
            return document | {"reason": rejection(outcome)}
        self._first = min(self._first or outcome["sequence"], outcome["sequence"])
        return document | {"document": outcome["command"], "status": "waiting"}

    async def follow(self) -> None:
        """Wait until each document is completed, failed or deleted."""
        open_ = {document["document"]: document for document in self.documents if document["status"] == "waiting"}
        if not open_:
            return
        bar = self.progress.add_task("index", total=None)
        done: dict[str, int] = {}
        total: dict[str, int] = {}
        commits = self.client.commits("document", since=self._first)
        while open_:
            try:
                commit = await asyncio.wait_for(anext(commits), PATIENCE)
            except TimeoutError:
                for silent in open_.values():
                    silent |= {"status": "error", "reason": f"no progress for {PATIENCE:.0f} s: is a worker running?"}
                break
            if (document := open_.get(commit.id)) is None:
                continue
            for event in commit.events:
                kind, state = event["type"].rpartition(".")[0], event["state"]
                if kind == "document.parsed":
                    document["warnings"] = state.get("warnings", [])
                elif kind == "document.split":
                    total[commit.id] = document["segments"] = state["count"]
                elif kind == "document.indexed":
                    done[commit.id] = state["first"] + state["count"]
                elif kind in ENDS:
                    document |= {"status": ENDS[kind], "reason": state.get("reason")}
                    open_.pop(commit.id, None)
            self.progress.update(bar, completed=sum(done.values()), total=sum(total.values()))
        await commits.aclose()


def readable_name(file: Path) -> str:
    """The name of a file, with U+FFFD for bytes that are not UTF-8."""
    return os.fsencode(file.name).decode("utf-8", "replace")


def read(file: Path) -> bytes:
    """Content of a file. Raises: OSError; ValueError when it is too large."""
    if file.stat().st_size > LARGEST:
        raise ValueError(f"larger than {LARGEST // 2**20} MB")
    return file.read_bytes()
