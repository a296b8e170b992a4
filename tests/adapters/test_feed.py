"""The log in batches: what arrives together is one batch, and a slow reader gets fewer and larger ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import cast

import pytest

from adapters.postgres import feed
from adapters.postgres.feed import batches
from domain.log import EVENTS, OUTCOMES, Commit, Metadata, Position, Recorded, Subject
from handlers.ports.log import Log


class Growing:
    """A log whose streams grow by one message at a time."""

    def __init__(self) -> None:
        self.ends = {EVENTS: 0, OUTCOMES: 0}
        self.arrived: dict[str, asyncio.Queue[Recorded]] = {stream: asyncio.Queue() for stream in self.ends}

    def grow(self, stream: str = EVENTS, messages: int = 1) -> None:
        for _ in range(messages):
            self.ends[stream] += 1
            place = Position(stream, self.ends[stream])
            message = Commit(Subject("acme", "app", "a"), [], Metadata("", "acme", ""), place, datetime.now(UTC))
            self.arrived[stream].put_nowait(message)

    async def read(self, stream: str, after: int, *, follow: bool = True) -> AsyncGenerator[Sequence[Recorded]]:
        while True:
            yield [await self.arrived[stream].get()]

    def followed(self) -> AsyncGenerator[list[Recorded]]:
        return batches(cast("Log", self), {EVENTS: 0, OUTCOMES: 0}, None, lambda message: [message])


async def test_what_a_step_writes_to_both_streams_is_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "GATHER_S", 0.2)
    log = Growing()
    async with aclosing(log.followed()) as source:
        first = asyncio.ensure_future(anext(source))
        await asyncio.sleep(0.01)
        log.grow(EVENTS)
        await asyncio.sleep(0.01)
        log.grow(OUTCOMES)
        log.grow(EVENTS)
        assert sorted(message.position for message in await first) == [(EVENTS, 1), (EVENTS, 2), (OUTCOMES, 1)]


async def test_a_reader_that_takes_long_gets_fewer_and_larger_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "PERIOD_S", 0.0)
    log = Growing()
    async with aclosing(log.followed()) as source:
        log.grow()
        await anext(source)
        began = time.monotonic()
        await asyncio.sleep(0.04)
        log.grow()
        await anext(source)
        assert time.monotonic() - began >= 0.04 * feed.REST - 0.01


async def test_what_waits_already_waits_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "PERIOD_S", 60.0)
    monkeypatch.setattr(feed, "LONGEST_S", 60.0)
    monkeypatch.setattr(feed, "BLOBS", 2)
    log = Growing()
    log.grow(messages=4)
    async with aclosing(log.followed()) as source, asyncio.timeout(5):
        assert [len(await anext(source)) for _ in range(2)] == [2, 2]
