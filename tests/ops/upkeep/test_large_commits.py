"""A log of commits of 100 to 400 kB, and some of 4 MB: no reader is cut off, or holds more than it can bound."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
from nats.aio.client import Client

from adapters.jetstream import nats_py, streams
from adapters.jetstream.blobs import JetStreamBlobs
from adapters.jetstream.direct import DirectReader
from adapters.jetstream.keys import JetStreamKeys
from adapters.jetstream.log import JetStreamLog
from adapters.jetstream.raw import RawStream
from adapters.jetstream.workers.pull import Pull
from adapters.postgres import tables
from domain.aggregate import new_id
from domain.log import EVENTS, Metadata, Position, Subject
from domain.models.model_call import ModelCall
from ops.bench.history import Publisher
from ops.servers.embedded import EmbeddedNats
from ops.settings import Settings
from ops.upkeep.rebuild import rebuild
from tests.adapters.test_postgres import projecting

NOW = datetime(2026, 5, 4, 8, tzinfo=UTC)
COUNT = 240
SIZES = [100_000, 200_000, 300_000, 400_000]
LARGEST = 4_000_000
CHUNK = 8 * 2**20 + LARGEST + 100_000


@dataclass
class Large:
    """The log, with the errors of its connection."""

    server: EmbeddedNats
    nc: Client
    keys: JetStreamKeys
    errors: list[str] = field(default_factory=list)

    def assert_never_cut_off(self) -> None:
        assert self.errors == []
        assert self.nc.stats["reconnects"] == 0
        assert "Slow Consumer" not in self.server.daemon.log.read_text()


@pytest.fixture(scope="module")
async def large(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Large]:
    async with EmbeddedNats(tmp_path_factory.mktemp("large"), sync="2m") as server:
        errors: list[str] = []

        async def note(error: Exception) -> None:
            errors.append(repr(error))

        nc = await nats_py.connect(server.url, error_cb=note)
        await streams.set_up(nc.jetstream())
        keys = JetStreamKeys(nc, Settings.load(home=server.home).vault())
        await keys.macs.establish()
        await keys.start()
        await write(Publisher(nc, 0, keys))
        yield Large(server, nc, keys, errors)
        await nc.close()


async def write(publisher: Publisher) -> None:
    dice = Random(1)
    words = [f"word{number}" for number in range(500)]
    texts = [" ".join(dice.choices(words, k=size // 8)) for size in SIZES]
    longest = " ".join(dice.choices(words, k=LARGEST // 8))
    for number in range(COUNT):
        text = longest if number % 20 == 19 else texts[number % len(texts)]
        request = {"messages": [{"role": "user", "content": text}], "max_tokens": 1, "parameters": {}}
        what = {"kind": "chat", "provider": "p", "model": "m", "cause_noun": "message", "cause_id": new_id()}
        call = ModelCall.begin(ModelCall.Requested, new_id(), NOW, request=request, **what)
        metadata = Metadata(new_id(), "default", new_id(), new_id())
        await publisher.append(Subject("default", ModelCall.TOPIC, call.id), call.pending(), metadata)
        if number % 10 == 9:
            await publisher.finish()


def in_bulk(large: Large) -> AsyncGenerator[Any]:
    return JetStreamLog(large.nc, large.keys).messages(EVENTS, 0, follow=False)


def as_they_come(large: Large) -> AsyncGenerator[Any]:
    return JetStreamLog(large.nc, large.keys).messages(EVENTS, 0)


def as_stored(large: Large) -> AsyncGenerator[Any]:
    return RawStream(large.nc, EVENTS).read(0, COUNT)


@pytest.mark.parametrize("read", [in_bulk, as_they_come, as_stored])
async def test_a_reader_is_not_cut_off(large: Large, read: Callable[[Large], AsyncGenerator[Any]]) -> None:
    count, began = 0, time.monotonic()
    async with aclosing(read(large)) as chunks:
        async for chunk in chunks:
            assert sum(len(getattr(message, "body", "") or message.data) for message in chunk) < CHUNK
            count += len(chunk)
            await asyncio.sleep(0.02)  # it has work to do
            if count == COUNT:
                break
    assert count == COUNT
    assert time.monotonic() - began < 30
    large.assert_never_cut_off()


async def test_a_subject_is_read_whole(large: Large) -> None:
    messages = await DirectReader(large.nc, timeout_s=10).messages(EVENTS, "evt.>")
    assert len(messages) == COUNT
    large.assert_never_cut_off()


async def test_the_consumers_of_a_worker_are_not_cut_off(large: Large) -> None:
    """Six of them, as the role `ingest` has, on one connection."""
    found = [0] * 6
    pulls = []
    for number in range(len(found)):
        config = streams.ConsumerConfig(durable_name=f"c{number}", ack_policy=streams.AckPolicy.NONE)
        await large.nc.jetstream().add_consumer(EVENTS, config)

        def take(_: object, number: int = number) -> None:
            found[number] += 1

        pulls.append(Pull(large.nc, EVENTS, f"c{number}", take))
    for pull in pulls:
        await pull.start()
    async with asyncio.timeout(60):
        while found != [COUNT] * len(found):
            await asyncio.sleep(0.05)
    for number, pull in enumerate(pulls):
        await pull.end()
        await large.nc.jetstream().delete_consumer(EVENTS, f"c{number}")
    large.assert_never_cut_off()


async def test_a_log_is_restored_with_large_messages(large: Large, tmp_path: Path) -> None:
    async with EmbeddedNats(tmp_path, sync="2m") as other:
        nc = await nats_py.connect(other.url)
        await streams.set_up(nc.jetstream())
        restored = RawStream(nc, EVENTS)
        assert await restored.put_back(0, as_stored(large), lambda done: None) == COUNT
        assert await restored.end() == COUNT
        await nc.close()
    large.assert_never_cut_off()


@pytest.mark.long
async def test_tables_are_rebuilt_from_large_commits(large: Large, database_url: str) -> None:
    log, blobs = JetStreamLog(large.nc, large.keys), JetStreamBlobs(large.nc)
    await tables.set_up(database_url)
    async with projecting(database_url, log, blobs):
        await tables.wait_for(database_url, Position(EVENTS, COUNT), 120)
    live = await tables.table_digests(database_url)
    settings = Settings(home=large.server.home, nats_url=large.server.url, postgres_url=database_url)
    await rebuild(settings)
    assert await tables.table_digests(database_url) == live
    large.assert_never_cut_off()
