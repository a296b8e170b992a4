"""More than the workers manage: memory stays within bounds, publishers get an error, and what was accepted is done.

`OVERLOAD_S=60` goes on for a minute.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import psutil
import pytest
from nats.js.errors import APIError

from adapters.jetstream.client import Client, NoOutcome, NotSent
from adapters.jetstream.streams import LARGEST
from domain.aggregate import new_id
from ops.servers.embedded import EmbeddedNats, EmbeddedPostgres
from ops.settings import Settings
from tests.conftest import fresh_database
from tests.journeys.stack import Stack

log = logging.getLogger(__name__)

SECONDS = float(os.environ.get("OVERLOAD_S", "6"))
PUBLISHERS, AT_ONCE = 4, 250
WAITING = 2000
ROOM_MB = 600
"""Maximum growth of a process."""

FULL, BEHIND, TOO_LARGE = 10077, 10167, 10054


@pytest.fixture(scope="module")
async def nats(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedNats]:
    async with EmbeddedNats(tmp_path_factory.mktemp("overrun")) as server:
        yield server


@pytest.fixture(scope="module")
async def overrun(nats: EmbeddedNats, postgres: EmbeddedPostgres) -> AsyncIterator[Stack]:
    async with fresh_database(postgres) as url:
        settings = Settings.load(home=nats.home, nats_url=nats.url, postgres_url=url)
        async with Stack.running(settings, ()) as stack:
            limits = {
                "HEADRACE_MAX_WAITING_COMMANDS": str(WAITING),
                "HEADRACE_MAX_WAITING_PER_ACTOR": str(10 * WAITING),
            }
            await stack.start("commands", "project", **limits)
            yield stack


class Memory:
    """The most that each process had while it was watched, in MB, against what it had before."""

    def __init__(self, processes: dict[str, psutil.Process]) -> None:
        self.processes = processes
        self.before = self._now()
        self.most = dict(self.before)

    def _now(self) -> dict[str, float]:
        return {name: process.memory_info().rss / 2**20 for name, process in self.processes.items()}

    async def watch(self) -> None:
        while True:
            self.most = {name: max(self.most[name], now) for name, now in self._now().items()}
            await asyncio.sleep(0.05)

    def growth(self) -> dict[str, float]:
        return {name: round(self.most[name] - self.before[name]) for name in self.processes}


async def processes(stack: Stack, nats: EmbeddedNats) -> dict[str, psutil.Process]:
    server = nats.daemon.process()
    assert server is not None
    found = {"nats": server}
    for role in ("commands", "project"):
        card = await stack.client.connection.request(f"worker.{role}", timeout=5)
        found[role] = psutil.Process(json.loads(card.data)["pid"])
    return found


class Publisher:
    """Publishes without a pause, and counts what the log says."""

    def __init__(self, client: Client, payload: bytes, name: str = "app.create") -> None:
        self.client = client
        self.payload = payload
        self.subject = f"cmd.{client.tenant}.anon.{name}"
        self.accepted: list[str] = []
        self.refusals = Counter[int]()

    async def publish_for(self, seconds: float, at_once: int) -> None:
        end = time.monotonic() + seconds

        async def one_after_another() -> None:
            while time.monotonic() < end:
                await self.publish()

        await asyncio.gather(*(one_after_another() for _ in range(at_once)))

    async def publish(self) -> None:
        id = new_id()
        try:
            await self.client.stream.publish(self.subject, self.payload, timeout=30, headers={"Headrace-Id": id})
            self.accepted.append(id)
        except APIError as error:
            self.refusals[int(error.err_code or 0)] += 1


async def refused(client: Client) -> NotSent:
    """Return the error of a publisher that does not wait."""
    while True:
        try:
            await client.send("app.create", {"name": "impatient"}, wait=0.1)
        except NotSent as refusal:
            return refusal
        except NoOutcome:
            continue


@asynccontextmanager
async def deaf(url: str) -> AsyncIterator[None]:
    """Someone who wants to hear everything and never listens; the server cuts them off in the end."""
    address = urlsplit(url)
    _, writer = await asyncio.open_connection(address.hostname, address.port, limit=1)
    login = {"verbose": False, "user": address.username, "pass": address.password}
    writer.write(b"CONNECT " + json.dumps(login).encode() + b"\r\nSUB > 1\r\nPING\r\n")
    try:
        yield
    finally:
        writer.close()


async def drained(stack: Stack) -> None:
    async with asyncio.timeout(60 + SECONDS):
        while (await stack.client.stream.stream_info("COMMANDS")).state.messages:
            await asyncio.sleep(0.1)


@pytest.mark.long
async def test_publishers_are_refused_and_what_was_accepted_is_done(overrun: Stack, nats: EmbeddedNats) -> None:
    memory = Memory(await processes(overrun, nats))
    watching = asyncio.create_task(memory.watch())
    clients = [await Client.connect(overrun.nats_url, overrun.tenant) for _ in range(PUBLISHERS)]
    publishers = [Publisher(client, b'{"name": "one of many"}') for client in clients]
    began = time.monotonic()
    flood = asyncio.gather(*(publisher.publish_for(SECONDS, AT_ONCE // PUBLISHERS) for publisher in publishers))
    while not any(publisher.refusals for publisher in publishers):
        await asyncio.sleep(0.05)
    async with deaf(overrun.nats_url):
        refusal = await refused(clients[0])
        assert refusal.code == "queue_full"
        assert "try again later" in str(refusal)
        await flood
    elapsed = time.monotonic() - began
    refusals = sum((publisher.refusals for publisher in publishers), Counter())
    accepted = [id for publisher in publishers for id in publisher.accepted]
    assert set(refusals) <= {FULL, BEHIND}
    assert refusals[FULL] > 0

    patient = await clients[0].send("app.create", {"name": "patient"}, wait=60)
    assert patient["status"] == "accepted"
    await drained(overrun)
    [row] = await overrun.until(
        "SELECT count(*) AS done FROM headrace.apps WHERE id = ANY(%(ids)s)",
        lambda rows: rows[0]["done"] == len(accepted),
        ids=accepted,
    )
    assert row["done"] == len(set(accepted))
    watching.cancel()
    assert max(memory.growth().values()) < ROOM_MB, memory.growth()
    offered = len(accepted) + sum(refusals.values())
    log.info("%d s: %d/s offered, %d/s accepted", elapsed, offered / elapsed, len(accepted) / elapsed)
    log.info("grown by (MB): %s", memory.growth())
    for client in clients:
        await client.close()


@pytest.mark.parametrize(("size", "accepted"), [(LARGEST - 4096, 120), (8 * 2**20 - 4096, 0)])
async def test_a_flood_of_large_payloads(overrun: Stack, nats: EmbeddedNats, size: int, accepted: int) -> None:
    """A payload larger than a command may be gets an outcome that says so; a larger one still, not even that."""
    memory = Memory(await processes(overrun, nats))
    watching = asyncio.create_task(memory.watch())
    publisher = Publisher(overrun.client, b'{"name": "' + b"x" * (size - 12) + b'"}')
    for _ in range(12):
        await asyncio.gather(*(publisher.publish() for _ in range(10)))
    await drained(overrun)
    watching.cancel()
    assert (len(publisher.accepted), publisher.refusals[TOO_LARGE]) == (accepted, 120 - accepted)
    for id in publisher.accepted:
        outcome = await overrun.client.outcome(id)
        assert outcome is not None
        assert outcome["code"] == "too_large"
    log.info("%d bytes: grown by (MB) %s", size, memory.growth())
    assert max(memory.growth().values()) < ROOM_MB, memory.growth()
