from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from copy import copy
from pathlib import Path
from random import Random
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from adapters.jetstream import streams
from adapters.jetstream.blobs import JetStreamBlobs
from adapters.jetstream.keys import JetStreamKeys
from adapters.jetstream.log import JetStreamLog
from adapters.jetstream.outcomes import JetStreamOutcomes
from adapters.jetstream.store import JetStreamEventStore
from adapters.postgres import feed, tables
from domain.access.end_user import EndUser
from domain.aggregate import Event
from domain.knowledge.document import Document
from domain.log import EVENTS, OUTCOMES, Commit, Position, Verdict
from handlers.files import Files
from ops.cli import main
from ops.servers.embedded import EmbeddedNats
from ops.settings import Settings
from ops.upkeep.rebuild import check, rebuild
from projections.catalog import READ_MODELS
from tests.adapters.test_postgres import projecting
from tests.projections.history import History
from tests.projections.wandering import wander

SLOWLY = """
from adapters.postgres import copy, feed
from ops.cli import main

feed.BATCH, copy.NEAR = 5, 0
main(["rebuild"])
"""


def keys(client: Client, home: Path) -> JetStreamKeys:
    """The keys of people, as a worker on this home has them."""
    return JetStreamKeys(client, Settings.load(home=home).vault())


async def publish(url: str, history: History, home: Path) -> None:
    client = await nats.connect(url)
    await streams.set_up(client.jetstream())
    people = keys(client, home)
    store, outcomes, blobs = JetStreamEventStore(client, people), JetStreamOutcomes(client), JetStreamBlobs(client)
    for (tenant, _), blob in history.blobs.items():
        await blobs.put(tenant, blob)
    last: dict[str, int] = {}
    for message in history.messages:
        match message:
            case Commit(subject, events, metadata):
                if metadata.person:
                    await people.make(subject.tenant, metadata.person)
                if subject.noun == EndUser.TOPIC:  # the key goes before that is recorded
                    await people.erase(subject.tenant, subject.id)
                events = await sealed(Files(blobs, people), history, message)
                position = await store.append(subject, events, metadata, last.get(str(subject), 0))
                last[str(subject)] = position.sequence
            case Verdict(_, (outcome,)):
                await outcomes.put(outcome)
    await client.close()


async def sealed(files: Files, history: History, commit: Commit) -> list[Event]:
    """The events of a commit; the segments of a person's document are a sealed blob."""
    events = [copy(event) for event in commit.events]
    for event in events if commit.metadata.person else ():
        if isinstance(event, Document.Split | Document.Indexed | Document.Replaced):
            tenant, plain = commit.subject.tenant, history.blobs[commit.subject.tenant, event.segments]
            event.__dict__["segments"] = await files.put(tenant, commit.metadata.person, "segments", plain)
    return events


async def test_a_rebuild_from_the_streams_gives_the_rows_of_the_projector(tmp_path: Path, database_url: str) -> None:
    history = wander(Random(31), 200)
    async with EmbeddedNats(tmp_path) as server:
        await publish(server.url, history, tmp_path)
        client = await nats.connect(server.url)
        log, files = JetStreamLog(client, keys(client, tmp_path)), Files(JetStreamBlobs(client), keys(client, tmp_path))
        async with projecting(database_url, log, files):
            for stream in (EVENTS, OUTCOMES):
                await tables.wait_for(database_url, Position(stream, len(history.streams[stream])))
        await client.close()
        live = await tables.table_digests(database_url)
        settings = Settings(home=tmp_path, nats_url=server.url, postgres_url=database_url)
        assert await rebuild(settings) == [model.name for model in READ_MODELS]
    assert await tables.table_digests(database_url) == live
    assert gc.isenabled()


@pytest.mark.long
async def test_a_killed_rebuild_goes_on_where_it_was(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = wander(Random(33), 600, few=8)
    async with EmbeddedNats(tmp_path) as server:
        await publish(server.url, history, tmp_path)
        client = await nats.connect(server.url)
        log, files = JetStreamLog(client, keys(client, tmp_path)), Files(JetStreamBlobs(client), keys(client, tmp_path))
        async with projecting(database_url, log, files):
            for stream in (EVENTS, OUTCOMES):
                await tables.wait_for(database_url, Position(stream, len(history.streams[stream])))
        await client.close()
        live = await tables.table_digests(database_url)
        options = {
            "HEADRACE_HOME": str(tmp_path),
            "HEADRACE_NATS_URL": server.url,
            "HEADRACE_POSTGRES_URL": database_url,
        }
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", SLOWLY, env=os.environ | options)
        try:
            reached = {}
            async with tables.connect(database_url) as connection:
                while sum(reached.values()) < 100:
                    assert process.returncode is None
                    cursor = await connection.execute(
                        "SELECT stream, min(sequence) FROM headrace_projection.copies "
                        "WHERE schema = 'headrace_next' GROUP BY 1"
                    )
                    reached = dict(await cursor.fetchall())
        finally:
            process.kill()
            await process.wait()
        monkeypatch.setattr(feed, "BATCH", 5)
        done_first: dict[str, int] = {}
        settings = Settings(home=tmp_path, nats_url=server.url, postgres_url=database_url)
        await rebuild(settings, progress=lambda stream, done, total: done_first.setdefault(stream, done))
    assert sum(done_first.values()) > sum(reached.values()) >= 100
    assert await tables.table_digests(database_url) == live


async def test_the_command_line_finds_repairs_and_puts_back(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    history = wander(Random(30), 150)

    async def headrace(*arguments: str) -> tuple[int, list[Any]]:
        """The exit code and the lines of JSON."""
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            await asyncio.to_thread(main, [*arguments, "--json"])
        return int(ended.value.code or 0), [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    async with EmbeddedNats(tmp_path) as server:
        await publish(server.url, history, tmp_path)
        settings = Settings(home=tmp_path, nats_url=server.url, postgres_url=database_url)
        for name, value in (("HOME", tmp_path), ("NATS_URL", server.url), ("POSTGRES_URL", database_url)):
            monkeypatch.setenv(f"HEADRACE_{name}", str(value))
        client = await nats.connect(server.url)
        log, files = JetStreamLog(client, keys(client, tmp_path)), Files(JetStreamBlobs(client), keys(client, tmp_path))
        async with projecting(database_url, log, files):
            for stream in (EVENTS, OUTCOMES):
                await tables.wait_for(database_url, Position(stream, len(history.streams[stream])))
        await client.close()
        async with tables.connect(database_url) as connection:
            await connection.execute("UPDATE headrace.apps SET name = 'Edited'")
        code, [apps] = await headrace("rebuild", "--check", "apps")
        assert (code, apps["table"], apps["different"]) == (1, "apps", apps["live"])
        assert apps["first"].endswith("differs in name.")
        assert await headrace("rebuild", "apps") == (0, [{"rebuilt": ["apps"]}])
        code, [apps] = await headrace("rebuild", "--check", "apps")
        assert (code, apps["different"], apps["first"]) == (0, 0, None)
        assert await headrace("rebuild", "--undo") == (0, [{"restored": ["apps"]}])
        assert [table.different > 0 for table in await check(settings, ["apps"])] == [True]
        assert await headrace("rebuild", "--drop-old") == (0, [{"dropped": ["apps"]}])
        code, [refused] = await headrace("rebuild", "--undo")
        assert (code, refused["error"]["message"]) == (1, "No old tables are kept.")
        code, [refused] = await headrace("rebuild", "lights")
        assert (code, refused["error"]["message"]) == (1, "There is no table 'lights'.")
