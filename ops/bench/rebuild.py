"""Throughput of a rebuild in events per second, compared with reading them raw and copying the same rows."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

import psycopg
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig, DeliverPolicy
from psycopg.sql import SQL, Identifier
from rich.progress import Progress

from adapters.jetstream.keys import JetStreamKeys
from adapters.jetstream.log import JetStreamLog
from adapters.jetstream.streams import CONSUMERS
from adapters.postgres import tables
from domain.log import EVENTS, OUTCOMES, Position
from ops.bench.history import COMMITS_PER_STORY, History
from ops.bench.measure import Aim, Measure, in_turns
from ops.bench.stack import Sizes, Stack
from ops.bench.verify import verifies
from ops.upkeep.rebuild import rebuild
from projections.catalog import READ_MODELS

PATIENCE_S = 1800.0


async def measure(stack: Stack, sizes: Sizes, bars: Progress) -> list[Measure]:
    await write_past(stack, sizes.commits, bars)
    rebuilt = await rebuilds(stack, sizes, bars)
    began = time.perf_counter()
    for stream, sequence in (await caught_up(stack)).items():
        await _count(stack, stream, sequence)
    return [rebuilt, *await verifies(stack, time.perf_counter() - began)]


async def rebuilds(stack: Stack, sizes: Sizes, bars: Progress) -> Measure:
    """Measure a rebuild of the log as it is."""
    keys = JetStreamKeys(stack.client.connection, stack.settings.vault())
    log = JetStreamLog(stack.client.connection, keys, stack.client.blobs)
    last = await caught_up(stack)
    events = sum(
        [
            len(message.events)
            for stream in last
            async for batch in log.read(stream, 0, follow=False)
            for message in batch
        ]
    )
    bar = bars.add_task("rebuilds", total=2 * sizes.rounds)

    async def rebuilt_per_second(number: int) -> float:
        began = time.perf_counter()
        await rebuild(stack.settings, [], lambda stream, done, total: None)
        took = time.perf_counter() - began
        bars.advance(bar)
        return events / took

    async def copied_per_second(number: int) -> float:
        rows = await _rows(stack.settings.postgres_url)
        began = time.perf_counter()
        for stream, sequence in last.items():
            await _count(stack, stream, sequence)
        await _copy(stack.settings.postgres_url, rows)
        took = time.perf_counter() - began
        bars.advance(bar)
        return events / took

    figures = await in_turns(sizes.rounds, rebuilt_per_second, copied_per_second)
    return Measure("rebuild", figures[0], "events/s", figures[1], Aim(ratio=0.4))


async def caught_up(stack: Stack) -> dict[str, int]:
    """Wait until the projector has caught up. Return the last sequence by stream."""
    log = JetStreamLog(stack.client.connection)
    last = {stream: await log.last(stream) for stream in (EVENTS, OUTCOMES)}
    for stream, sequence in last.items():
        await tables.wait_for(stack.settings.postgres_url, Position(stream, sequence), PATIENCE_S)
    return last


async def write_past(stack: Stack, commits: int, bars: Progress) -> None:
    """Fill the log with the reactions stopped: they would process the synthetic events."""
    nc, js = stack.client.connection, stack.client.stream
    until = (datetime.now(UTC) + timedelta(hours=6)).isoformat()
    for name, (stream, _) in CONSUMERS.items():
        if stream == EVENTS:
            await js.pause_consumer(stream, name, until)
    stories = max(1, commits // COMMITS_PER_STORY)
    bar = bars.add_task("past", total=stories)
    last = await JetStreamLog(nc).last(EVENTS)
    keys = JetStreamKeys(nc, stack.settings.vault())
    await History(stack.settings.tenant, nc, last, keys, stack.client.blobs).write(stories, lambda: bars.advance(bar))


async def _count(stack: Stack, stream: str, last: int) -> None:
    """Read a stream to its end without decoding."""
    ended = asyncio.Event()
    count = 0

    async def take(message: Msg) -> None:
        nonlocal count
        count += 1
        if count == last:
            ended.set()

    subscription = await stack.client.stream.subscribe(
        ">",
        stream=stream,
        ordered_consumer=True,
        cb=take,
        config=ConsumerConfig(deliver_policy=DeliverPolicy.ALL),
    )
    async with asyncio.timeout(PATIENCE_S):
        await ended.wait()
    await subscription.unsubscribe()


async def _rows(url: str) -> dict[str, bytes]:
    """All rows of all tables, in binary COPY format."""
    rows = {}
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        for model in READ_MODELS:
            query = SQL("COPY {} TO STDOUT (FORMAT BINARY)").format(tables.name(model))
            async with connection.cursor().copy(query) as copy:
                rows[model.name] = b"".join([bytes(block) async for block in copy])
    return rows


async def _copy(url: str, rows: dict[str, bytes]) -> None:
    """Copy the rows into tables without indexes, then drop those."""
    async with tables.connect(url) as connection:
        async with connection.transaction():
            for name, data in rows.items():
                table, like = Identifier(f"bench_{name}"), Identifier(tables.SCHEMA, name)
                await connection.execute(SQL("CREATE TABLE {} AS TABLE {} WITH NO DATA").format(table, like))
                query = SQL("COPY {} FROM STDIN (FORMAT BINARY)").format(table)
                async with connection.cursor().copy(query) as copy:
                    await copy.write(data)
        for name in rows:
            await connection.execute(SQL("DROP TABLE {}").format(Identifier(f"bench_{name}")))
