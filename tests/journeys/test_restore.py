"""A disk that lies, and a disk that is gone: what is lost is found, never served, and comes back from the archive."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from adapters.archive.archiver import Archiver, Differs, check, live
from adapters.archive.store import Archive
from adapters.jetstream.log import JetStreamLog
from adapters.jetstream.message import Message
from adapters.jetstream.store import JetStreamEventStore
from adapters.jetstream.streams import set_up
from adapters.postgres.feed import Gap
from adapters.postgres.projector import Halted, Projector
from adapters.postgres.tables import table_digests, wait_for
from domain.aggregate import new_id
from domain.chat.app import App, features
from domain.chat.app import settings as how
from domain.log import EVENTS, OUTCOMES, Metadata, Position, Subject
from handlers.work.progress import no_progress
from ops.servers.embedded import EmbeddedNats, EmbeddedPostgres
from ops.settings import Settings
from ops.upkeep.rebuild import rebuild
from ops.upkeep.restore import restore
from ops.upkeep.verify import verify
from tests.adapters.archive.test_archive import NOW, flip
from tests.conftest import fresh_database
from tests.handlers.desk import files_of
from tests.journeys.stack import Stack
from tests.journeys.test_handbook import HANDBOOK, QUESTIONS

COMMITS = 50
KEY = "sk-0123456789abcdef"
BIG = 200_000
"""Characters of each, so that they fill more than one file: one has 2 MB where files are encrypted, else 8 MB."""


class PlainNats(EmbeddedNats):
    """A server that does not encrypt what it stores, and so has no tag that a changed byte would break."""

    def configuration(self) -> str:
        lines = super().configuration().splitlines()
        return "\n".join(line for line in lines if '"cipher"' not in line and '"key"' not in line)


@asynccontextmanager
async def connected(server: EmbeddedNats) -> AsyncIterator[Client]:
    client = await nats.connect(server.url)
    try:
        yield client
    finally:
        await client.close()


async def commit(nc: Client, count: int) -> None:
    store = JetStreamEventStore(nc)
    for number in range(count):
        app = App.begin(App.Created, new_id(), NOW, name=f"Rules {number}", description="")
        app.configure(
            NOW,
            model={"provider": "builtin", "name": "extractive", "max_tokens": 1, "context_window": 8, "parameters": {}},
            prompt="",
            variables=[],
            datasets=[os.urandom(4000).hex() for _ in range(BIG // 8000)],  # each is small enough to stay in the commit
            retrieval=how({"mode": "hybrid", "top_k": 4, "score_threshold": None}),
            features=features({}),
        )
        metadata = Metadata(new_id(), "acme", new_id(), new_id(), "ada")
        await store.append(Subject("acme", "app", app.id), app.pending(), metadata, 0)


async def stored(nc: Client) -> dict[int, Message]:
    source = live(nc, EVENTS)
    chunks = source.read(0, await source.last())
    return {message.sequence: message async for messages in chunks for message in messages}


def blocks(server: EmbeddedNats) -> list[Path]:
    """The files that hold the messages of EVENTS, oldest first."""
    [folder] = (server.home / "nats").rglob("EVENTS/msgs")
    return sorted(folder.glob("*.blk"), key=lambda path: int(path.stem))


def flip_a_bit_of_an_old_block(server: EmbeddedNats) -> None:
    oldest = blocks(server)[0]
    assert oldest != blocks(server)[-1]
    flip(oldest, oldest.stat().st_size // 2, 4)


def flip_a_bit_of_the_newest_block(server: EmbeddedNats) -> None:
    newest = blocks(server)[-1]
    flip(newest, newest.stat().st_size // 2, 4)


def delete_a_block(server: EmbeddedNats) -> None:
    assert len(blocks(server)) > 1
    blocks(server)[0].unlink()


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        (EmbeddedNats, flip_a_bit_of_an_old_block),
        pytest.param(EmbeddedNats, flip_a_bit_of_the_newest_block, marks=pytest.mark.long),
        (EmbeddedNats, delete_a_block),
        (PlainNats, flip_a_bit_of_an_old_block),
    ],
)
async def test_a_damaged_file_is_found_and_brought_back(
    kind: type[EmbeddedNats], damage: Callable[[EmbeddedNats], None], tmp_path: Path, postgres: EmbeddedPostgres
) -> None:
    """JetStream leaves out what does not have its checksum: in an old block that makes a gap, in the newest the stream
    ends earlier, and would give the same sequences again."""
    archive = Archive.at(str(tmp_path / "archive"))
    server = kind(tmp_path / "home", sync="2m")
    async with server, fresh_database(postgres) as url:
        settings = Settings.load(home=server.home, nats_url=server.url, postgres_url=url)
        async with connected(server) as client:
            await set_up(client.jetstream())
            await commit(client, COMMITS)
            await Archiver(client, archive, segment_bytes=2**20).update()
            before = await stored(client)
        await projected(settings)
        digests = await table_digests(url)

        await server.stop()
        damage(server)
        await server.start()
        async with connected(server) as client:
            served = await stored(client)
            lost = sorted(set(before) - set(served))
            assert lost
            assert all(served[sequence] == before[sequence] for sequence in served)
            found = {found.name: found async for found in check(client, archive)}
            if damage is flip_a_bit_of_the_newest_block:
                assert found["archived log"].first == [f"EVENTS {lost[0]}: is archived, and the log ends before it"]
                with pytest.raises(Differs, match=f"EVENTS ends at {lost[0] - 1}, and its archive at {COMMITS}"):
                    await Archiver(client, archive, segment_bytes=2**20).update()
                assert f"ends before {COMMITS}" in await halted(client, url)
            else:
                assert found["archived log"].faults == len(lost)
                assert found["archived log"].first[0] == f"EVENTS {lost[0]}: is archived, and missing in the log"
                async with fresh_database(postgres) as elsewhere:
                    assert f"goes from {lost[0] - 1} to {lost[-1] + 1}" in await halted(client, elsewhere)
        with pytest.raises(Gap):
            await rebuild(settings)
        assert await table_digests(url) == digests

        await server.stop()
        shutil.rmtree(server.home / "nats")
        await server.start()
        await restore(settings, archive)
        await rebuild(settings)
        assert await table_digests(url) == digests
        async with connected(server) as client:
            assert await stored(client) == before
            assert not [found async for found in check(client, archive) if found.faults]


async def halted(nc: Client, url: str) -> str:
    """Why a projector ends."""
    async with asyncio.timeout(60):
        with pytest.raises(Halted) as raised:
            await Projector(url, JetStreamLog(nc), files_of(nc)).run()
    return str(raised.value)


async def projected(settings: Settings) -> None:
    """Take the tables as far as the log is."""
    async with await nats.connect(settings.nats_url) as client:
        projector = Projector(
            settings.postgres_url,
            JetStreamLog(client),
            files_of(client),
        )
        working = asyncio.create_task(projector.run())
        for stream in (EVENTS, OUTCOMES):
            await wait_for(settings.postgres_url, Position(stream, await JetStreamLog(client).last(stream)))
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


# --- everything is gone --------------------------------------------------------------------------------------


async def headrace(settings: Settings, *arguments: str, **variables: str) -> Any:
    """Return the output of a command as JSON."""
    command = [sys.executable, "-m", "ops.cli", *arguments, "--json"]
    environment = os.environ | settings.variables() | variables
    child = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, complained = await child.communicate()
    assert child.returncode == 0, (said + complained).decode()
    return json.loads(said.splitlines()[-1])


@pytest.mark.long
async def test_from_nothing_but_the_archive_every_row_is_as_before(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    home, archive_url = tmp_path / "home", str(tmp_path / "archive")
    question = QUESTIONS[0]["question"]
    async with EmbeddedNats(home) as server, fresh_database(postgres) as url:
        settings = Settings.load(home=home, nats_url=server.url, postgres_url=url, archive_url=archive_url)
        async with Stack.running(settings, ["all"]) as stack:
            dataset = await stack.make("dataset.create", name="handbook")
            app = await stack.make("app.create", name="assistant")
            await stack.send("app.configure", app=app, datasets=[dataset])
            await stack.send("provider.register", name="far", base_url="http://127.0.0.1:9/v1", key=KEY)
            await stack.refused("app.configure", app=new_id(), datasets=[dataset])
            await stack.ended(await stack.upload(dataset, *HANDBOOK[:2]))
            answer = (await stack.ask(app, question))[-1]
            assert answer["type"] == "answered"
            await stack.ask(app, QUESTIONS[1]["question"])
            ends = await caught_up(stack)
        before = await table_digests(url)
        await headrace(settings, "archive")
    shutil.rmtree(home / "nats")

    restored = await headrace(Settings.load(home=home, archive_url=archive_url), "restore", "--trust")
    assert {stream: restored["last"][stream] for stream in ends} == ends
    assert restored["lost"] == {}
    async with EmbeddedNats(home) as server, fresh_database(postgres) as url:
        settings = Settings.load(home=home, nats_url=server.url, postgres_url=url, archive_url=archive_url)
        async with Stack.running(settings, ["all"]) as stack:
            assert await caught_up(stack) == ends
            assert await table_digests(url) == before
            await headrace(settings, "rebuild")
            assert await table_digests(url) == before
            await headrace(settings, "index", "rebuild")
            again = (await stack.ask(app, question))[-1]
            assert (again["type"], again["answer"]) == (answer["type"], answer["answer"])
            assert (await caught_up(stack))[EVENTS] > ends[EVENTS]
            assert (await headrace(settings, "archive"))["added"][EVENTS] > 0
            checks = [check async for check in verify(settings, timedelta(minutes=5), no_progress, archive=True)]
            assert [check.first for check in checks if check.faults] == []
            assert {"tables", "index", "archive", "archived log", "archived blobs"} < {check.name for check in checks}


async def caught_up(stack: Stack) -> dict[str, int]:
    """Where the streams end, as soon as the tables are there."""
    log = JetStreamLog(stack.client.connection)
    ends = {stream: await log.last(stream) for stream in (EVENTS, OUTCOMES)}
    for stream, last in ends.items():
        await wait_for(stack.postgres_url, Position(stream, last))
    return ends
