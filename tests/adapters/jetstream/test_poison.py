"""A command that kills its worker, whichever that is: after some deaths it is buried, and nothing else is."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nats.aio.client import Client

from domain.aggregate import new_id
from domain.work.dead_letter import DeadLetter, dead_letter_id
from tests.adapters.jetstream.poisoned import DEATHS
from tests.handlers.desk import Desk


@asynccontextmanager
async def immortal(url: str) -> AsyncIterator[list[int]]:
    """A worker that is started again whenever it dies; gives how each one ended."""
    ends: list[int] = []
    running: asyncio.subprocess.Process | None = None

    async def keep_alive() -> None:
        nonlocal running
        while True:
            command = (sys.executable, "-m", "tests.adapters.jetstream.poisoned", url)
            running = await asyncio.create_subprocess_exec(*command)
            ends.append(await running.wait())

    keeper = asyncio.create_task(keep_alive())
    try:
        yield ends
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        if running and running.returncode is None:
            running.kill()
            await running.wait()


async def test_what_kills_every_worker_is_buried_and_its_neighbours_are_not(fresh: Client) -> None:
    desk, poison, neighbours = Desk(fresh, "acme"), new_id(), [new_id() for _ in range(20)]

    async def send(id: str, name: bytes) -> None:
        payload = b'{"name": "%s"}' % name
        await fresh.jetstream().publish("cmd.acme.anon.app.create", payload, headers={"Headrace-Id": id})

    for id in neighbours[:10]:
        await send(id, b"Guide")
    await send(poison, b"poison")
    for id in neighbours[10:]:
        await send(id, b"Guide")
    async with immortal(fresh.connected_url.geturl()) as ends, asyncio.timeout(60):
        for id in (*neighbours, poison):
            while (outcome := await desk.outcomes.get("acme", id)) is None:
                await asyncio.sleep(0.05)
            assert outcome.code == (None if id != poison else "internal_error"), outcome
    assert ends == (DEATHS + 1) * [-9], "the first is not counted"
    [buried] = await desk.events("dead_letter", dead_letter_id("commands", "acme", poison))
    assert isinstance(buried, DeadLetter.Buried)
    assert (buried.failures, buried.deaths) == (0, DEATHS)
    assert buried.reason == f"{DEATHS} workers died while they handled it."
