from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from nats.aio.client import Client
from structlog.testing import capture_logs

from adapters.jetstream import nats_py
from adapters.jetstream.streams import set_up
from adapters.jetstream.workers import consumer
from adapters.jetstream.workers.consumers import Consumers
from ops.servers.embedded import EmbeddedNats

Running = Callable[[Callable[[Consumers], None]], Awaitable[Consumers]]


@pytest.fixture
async def fresh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    """A connection to a server of the test's own, with the streams made: its consumers begin at the first message."""
    folder = tmp_path_factory.mktemp("fresh")
    async with EmbeddedNats(folder) as server:
        client = await nats_py.connect(server.url)
        await set_up(client.jetstream())
        yield client
        await client.close()
    shutil.rmtree(folder)


@pytest.fixture
async def running(fresh: Client, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    """Starts consumers with their handlers; what fails comes again at once."""
    monkeypatch.setattr(consumer, "FIRST_DELAY_S", 0.005)
    async with AsyncExitStack() as stack:
        stack.enter_context(capture_logs())

        async def run(subscribe: Callable[[Consumers], None]) -> Consumers:
            consumers = Consumers(fresh.connected_url.geturl())
            subscribe(consumers)
            await consumers.start()
            stack.push_async_callback(consumers.stop)
            return consumers

        yield run
