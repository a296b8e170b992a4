"""Workers that start before the servers they need."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

from adapters.jetstream.client import Client
from ops.servers.embedded import EmbeddedNats, EmbeddedPostgres
from ops.settings import Settings
from tests.journeys.stack import Stack


@pytest.fixture
async def postgres_to_be() -> AsyncIterator[EmbeddedPostgres]:
    """A server that was there and is away."""
    home = Path(mkdtemp(prefix="headrace-late-"))
    async with EmbeddedPostgres(home) as server:
        await server.stop()
        yield server
    shutil.rmtree(home)


async def said(log: Path, what: str) -> None:
    async with asyncio.timeout(60):
        while not contains(log, what):
            await asyncio.sleep(0.1)


def contains(log: Path, what: str) -> bool:
    return what in log.read_text()


@pytest.mark.long
async def test_workers_wait_for_a_server_and_can_be_stopped_meanwhile(
    lone_nats: EmbeddedNats, postgres_to_be: EmbeddedPostgres, tmp_path: Path
) -> None:
    settings = Settings.load(home=tmp_path, nats_url=lone_nats.url, postgres_url=postgres_to_be.url)
    log = tmp_path / "workers.log"
    async with await Client.connect(settings.nats_url, settings.tenant) as client:
        stack = Stack(settings, client, log)
        try:
            await stack.spawn("answer")
            await said(log, "PostgreSQL, which has the versions of the index, does not answer")
            await stack.stop("answer")
            await stack.spawn("project")
            await said(log, "PostgreSQL does not answer")
            await postgres_to_be.start()
            await stack.ready("project")
        finally:
            await stack.end()
    assert not contains(log, "unforeseen")
