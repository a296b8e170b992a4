"""Sends every ended span to a collector, once, and waits through outages of the collector and the servers."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

import psycopg
import structlog
from nats.aio.client import Client
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from psycopg import AsyncConnection, errors
from psycopg.rows import TupleRow

from adapters.postgres.tables import EXPORT_LOCK, connect, turn
from adapters.telemetry.otlp.checkpoint import Checkpoint, Checkpoints, Moved
from adapters.telemetry.otlp.collector import Away, Collector, Refused
from adapters.telemetry.otlp.ended import AFTER_ALL, Place, Row, ended, window
from adapters.telemetry.otlp.endpoint import target
from adapters.telemetry.otlp.spans import Content, resource_spans, span_of
from handlers.ports.log import Unavailable

log = structlog.get_logger(__name__)

SPANS = 512
BYTES = 2**20
"""Maximum size of a request before compression, in bytes; a larger span is sent alone."""

PERIOD_S = 1.0
"""Interval between queries for ended rows, in seconds."""

SHORTEST_WAIT_S, LONGEST_WAIT_S = 0.5, 10.0

OUTAGES = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    errors.UndefinedTable,
    errors.UndefinedColumn,
    Unavailable,
    Away,
    Moved,
)
"""Errors that pass when a server returns, or when the projector has made its tables."""

Sendable = tuple[Place, str, Span]
"""The place of a row, its tenant and its span."""


class Exporter:
    """The exporter. Of several on a database, one works and the others wait to take over."""

    def __init__(self, url: str, nc: Client, collector: Collector, endpoint: str, content: Content) -> None:
        self._url = url
        self._checkpoints = Checkpoints(nc)
        self._collector = collector
        self._target = target(endpoint)
        self._content = content

    async def run(self) -> None:
        """Work until cancelled."""
        wait = SHORTEST_WAIT_S
        while True:
            began = time.monotonic()
            try:
                async with connect(self._url) as connection:
                    await turn(connection, EXPORT_LOCK)
                    await self._follow(connection)
            except OUTAGES as error:
                if time.monotonic() - began > LONGEST_WAIT_S:
                    wait = SHORTEST_WAIT_S
                log.warning("export.waiting", reason=str(error), seconds=round(wait, 1))
                await asyncio.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT_S)

    async def _follow(self, connection: AsyncConnection[TupleRow]) -> None:
        checkpoint = await self._checkpoints.get(self._target)
        log.info("export.following", target=self._target, **checkpoint.place._asdict())
        place = checkpoint.place
        while True:
            upto, whole = await window(connection, place, SPANS)
            rows = await ended(connection, place, upto, SPANS, content=bool(self._content))
            for batch in batches(self._sendable(row) for row in rows):
                checkpoint = await self._export(batch, checkpoint)
                place = checkpoint.place
            if len(rows) < SPANS:
                place = max(place, Place(upto, AFTER_ALL))
                if whole:
                    await asyncio.sleep(PERIOD_S)

    def _sendable(self, row: Row) -> Sendable:
        return Place.of(row), *span_of(row, self._content)

    async def _export(self, batch: Sequence[Sendable], checkpoint: Checkpoint) -> Checkpoint:
        """Send until all spans are accepted or refused for good, and only then move the checkpoint."""
        refused = await self._deliver(batch)
        last, _, _ = batch[-1]
        return await self._checkpoints.put(checkpoint.moved(last, len(batch) - refused, refused))

    async def _deliver(self, batch: Sequence[Sendable]) -> int:
        """The number of spans that the collector refuses for good: a refused request is halved until they are found."""
        with suppress(Refused):
            return await self._send(batch)
        if len(batch) > 1:
            half = len(batch) // 2
            return await self._deliver(batch[:half]) + await self._deliver(batch[half:])
        await self._send([])  # a collector that refuses this, too, does not refuse the span
        try:
            return await self._send(batch)
        except Refused as error:
            _, tenant, span = batch[0]
            about = {"tenant": tenant, "trace": span.trace_id.hex(), "span": span.span_id.hex(), "name": span.name}
            log.error("export.set_aside", **about, reason=str(error))
            return 1

    async def _send(self, batch: Sequence[Sendable]) -> int:
        """The number of spans that the collector dropped. Raises: Refused."""
        spans = resource_spans((tenant, span) for _, tenant, span in batch)
        wait = SHORTEST_WAIT_S
        while True:
            try:
                taken = await self._collector.send(spans)
            except Away as error:
                pause = error.after or wait * random.uniform(0.8, 1.2)
                log.warning("export.waiting", reason=str(error), seconds=round(pause, 1))
                await asyncio.sleep(min(pause, 30 * LONGEST_WAIT_S))
                wait = min(2 * wait, LONGEST_WAIT_S)
            except Refused as error:
                if batch:
                    raise
                raise Away(str(error)) from error
            else:
                if taken.rejected:
                    log.error("export.rejected", spans=taken.rejected, target=self._target, reason=taken.reason)
                return min(taken.rejected, len(batch))


def batches(spans: Iterable[Sendable]) -> Iterator[list[Sendable]]:
    """The spans in order, in groups that fit a request."""
    batch: list[Sendable] = []
    size = 0
    for sendable in spans:
        length = sendable[2].ByteSize()
        if batch and size + length > BYTES:
            yield batch
            batch, size = [], 0
        batch.append(sendable)
        size += length
    if batch:
        yield batch
