"""The bus by key on three servers, with two workers that answer."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import nats.errors
import pytest
from nats.aio.client import Client

from adapters.jetstream import accounts, nats_py
from adapters.jetstream.callout import Callout, Keys
from adapters.jetstream.key_uses import JetStreamKeyUses
from adapters.jetstream.registry import JetStreamRegistry
from adapters.jetstream.streams import set_up
from tests.adapters.jetstream.test_callout import EVERYTHING, closed, quiet, reports, text
from tests.handlers.access.test_may import key
from tests.handlers.desk import Desk
from tests.nats_cluster import NatsCluster, Node, once_there

KEYS = Keys.of(b"the key of an operator of three servers")


@pytest.fixture(scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NatsCluster]:
    folder = tmp_path_factory.mktemp("asking")
    configured = accounts.configuration(lambda user: f"P{user}", {"acme": ()}, callout=KEYS.public)
    more = "\n" + accounts.written(configured)
    async with NatsCluster(folder, more=more, login="admin:Padmin") as cluster:
        async with connected(cluster.nodes[0].url) as nc:
            await once_there(lambda: set_up(nc.jetstream(timeout=15), replicas=3))
        yield cluster
    shutil.rmtree(folder)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Client]:
    nc = await nats_py.connect(url, error_cb=quiet)
    yield nc
    await nc.close()


@asynccontextmanager
async def answering(*nodes: Node) -> AsyncIterator[list[asyncio.Task[None]]]:
    """A worker that answers, connected to each of these servers."""
    async with AsyncExitStack() as stack:
        tasks = []
        for node in nodes:
            nc = await stack.enter_async_context(connected(node.url_of("worker:Pworker")))
            own = await stack.enter_async_context(connected(node.url_of("callout:Pcallout")))
            registry = JetStreamRegistry(nc, Desk(nc, "acme").keys)  # type: ignore[arg-type]
            await registry.start()
            tasks.append(asyncio.create_task(Callout(own, registry, KEYS, reports(nc), JetStreamKeyUses(nc)).run()))
            await own.flush()
        yield tasks
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def by_key(node: Node, shown: str) -> Client:
    return await nats_py.connect(node.url_of(shown), allow_reconnect=False, error_cb=quiet)


async def test_a_revoked_key_is_disconnected_from_every_server(cluster: NatsCluster) -> None:
    first, second, third = cluster.nodes
    async with connected(first.url) as nc, answering(first, second):
        desk = Desk(nc, "acme")
        revoked, kept = text(), text()
        gone, _ = await key(desk, revoked, permissions=EVERYTHING), await key(desk, kept, permissions=EVERYTHING)
        lost = [await by_key(node, revoked) for node in cluster.nodes for _ in range(10)]
        left = [await by_key(node, kept) for node in cluster.nodes for _ in range(10)]
        for _ in range(3):
            await desk.done("api_key.rename", api_key=gone[2:], name="N")
        assert not any(nc.is_closed for nc in (*lost, *left))
        await desk.done("api_key.revoke", api_key=gone[2:])
        since = time.monotonic()
        for connection in lost:
            await closed(connection)
        assert time.monotonic() - since < 1.0
        for node in (first, second, third):
            with pytest.raises(nats.errors.Error, match="Authorization"):
                await by_key(node, revoked)
        for connection in left:
            assert connection.is_connected
            await connection.close()


async def test_one_worker_answers_where_the_other_has_ended(cluster: NatsCluster) -> None:
    """Also for clients of a server that it is not connected to."""
    first, second, third = cluster.nodes
    async with connected(first.url) as nc:
        shown = text()
        await key(Desk(nc, "acme"), shown, permissions=EVERYTHING)
        async with answering(first):
            async with answering(second):
                for node in cluster.nodes * 5:
                    await (await by_key(node, shown)).close()
            for node in cluster.nodes * 5:
                async with asyncio.timeout(5):
                    while True:
                        with suppress(nats.errors.TimeoutError, TimeoutError):
                            await (await by_key(node, shown)).close()
                            break
        async with connected(third.url_of("worker:Pworker")) as own:
            assert await own.jetstream().stream_info("EVENTS")
