"""An archive that an older version has written: restored by this one, it has the same tables, and goes on."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from adapters.jetstream.client import Client
from adapters.postgres.tables import wait_for
from domain.log import EVENTS, OUTCOMES, Position
from ops import supervisor
from ops.settings import Settings
from projections.catalog import READ_MODELS
from tests.golden.archives import make

OLD = Path(make.__file__).with_name("0.1.0.tar.xz")

CHANGED: dict[str, set[str]] = {
    "model_calls": {"request", "sources"},
    "spans": {"attributes", "started_at", "duration_ms"},
    "traces": {"words"},
}
"""Columns that this version fills in otherwise than the old one did, by table; each needs a line in the changelog."""

QUESTION = "How loud is the screw at ten metres with the trough open?"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Content of the file, and a home with its key."""
    folder = Path(mkdtemp(prefix="headrace-upgrade-"))
    with tarfile.open(OLD) as tar:
        tar.extractall(folder, filter="data")
    (folder / "home").mkdir()
    shutil.copy(folder / "secret.key", folder / "home" / "secret.key")
    yield folder
    shutil.rmtree(folder)


def headrace(settings: Settings, *arguments: str) -> list[Any]:
    """The lines of JSON that a command prints, which ends with 0."""
    done = subprocess.run(
        supervisor.command_line(*arguments, "--json"),
        env=supervisor.environment(settings),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.long
async def test_what_an_older_version_has_archived_is_all_there(folder: Path) -> None:
    settings = Settings.load(home=folder / "home", archive_url=str(folder / "archive"), view_address="127.0.0.1:0")
    [restored] = headrace(settings, "restore", "--trust")
    assert restored["lost"] == {}
    last = restored["last"]
    settings = settings.model_copy(update={"archive_url": ""})
    try:
        headrace(settings, "up", "--detach")
        running = settings.located()
        for stream in (EVENTS, OUTCOMES):
            await wait_for(running.postgres_url, Position(stream, last[stream]))
        assert_as_recorded(await make.dumped(running.postgres_url), folder / "tables")
        headrace(settings, "index", "rebuild")  # which embeds again, and records that
        compared = headrace(settings, "rebuild", "--check")
        assert {table["table"] for table in compared} == {model.name for model in READ_MODELS}
        checks = headrace(settings, "verify")
        assert all(check["checked"] for check in checks if check["name"] in ("events", "tables", "index", "blobs"))
        async with await Client.connect(running.nats_url) as client:
            [app] = headrace(settings, "sql", "select id from apps where name = 'Handbook assistant'")
            answer = [frame async for frame in client.ask(app["id"], QUESTION, user="ada")][-1]
        assert answer["type"] == "answered"
        assert "58 decibels" in answer["answer"]
        [citation, *_] = answer["citations"]
        assert (citation["document_name"], citation["page"]) == ("acceptance-report-clara.pdf", 2)
        headrace(settings, "verify")
    finally:
        await supervisor.down(settings)


def assert_as_recorded(found: dict[str, list[dict[str, Any]]], recorded: Path) -> None:
    """The rows are those that the old version had, and have in the columns of then what they had."""
    assert len(list(recorded.iterdir())) == 22
    for file in recorded.iterdir():
        then = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        columns = {name for row in then for name in row} - CHANGED.get(file.stem, set())
        now = [{name: row[name] for name in row if name in columns} for row in found[file.stem]]
        assert now == [{name: row[name] for name in row if name in columns} for row in then], file.stem
        assert then, file.stem
