"""The index in OpenSearch when its servers end: one of three, and the only one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from adapters.index.opensearch.client import Access, connected
from adapters.index.opensearch.health import health
from adapters.index.opensearch.store import opensearch_index
from adapters.index.opensearch.tables import set_up
from adapters.index.versions.index import VersionedIndex
from handlers.ports.index import Entry
from handlers.ports.log import Unavailable
from ops.servers.opensearch.server import EmbeddedOpenSearch
from tests.nats_cluster import free_ports

MODEL = "a-model"


@pytest.fixture
async def three(tmp_path: Path, java_and_maven: None) -> AsyncIterator[list[EmbeddedOpenSearch]]:
    """Three servers that form a cluster, the first of them alone at first."""
    ports = free_ports(3)
    nodes, cluster = [], f"three-{uuid4().hex}"
    for number, port in enumerate(ports):
        settings: dict[str, str | int] = {"transport.port": port, "discovery.seed_hosts": f"127.0.0.1:{ports[0]}"}
        if number == 0:
            settings["cluster.initial_cluster_manager_nodes"] = "Node 1"
        nodes.append(EmbeddedOpenSearch(tmp_path / f"node{number}", cluster=cluster, settings=settings, heap="512m"))
    async with AsyncExitStack() as stack:
        await asyncio.gather(*(stack.enter_async_context(node) for node in nodes))
        yield nodes


def entries(count: int) -> list[Entry]:
    vectors = np.eye(8, dtype=np.float32)
    return [Entry(str(uuid4()), n, f"Water {n}", None, None, vectors[n % 8]) for n in range(count)]


async def found(index: VersionedIndex, dataset: str) -> set[str]:
    near = np.ones(8, np.float32) / np.sqrt(np.float32(8))
    hits = await index.search("acme", [dataset], "water", near, model=MODEL, mode="hybrid", top_k=50)
    return {hit.id for hit in hits}


@pytest.mark.long
async def test_one_of_three_is_lost(database_url: str, three: list[EmbeddedOpenSearch]) -> None:
    """Every segment has a copy elsewhere: nothing is lost, and it is written and searched on."""
    access = Access(",".join(node.url for node in three))
    await set_up(database_url, access, shards=3)
    dataset, written = str(uuid4()), entries(30)
    async with connected(access) as client, opensearch_index(database_url, access) as index:
        for entry in written[:20]:
            await index.write("acme", dataset, str(uuid4()), [entry], model=MODEL, version=1)
        await client.cluster.health(params={"wait_for_status": "green", "wait_for_nodes": 3})
        assert (await health(access)).nodes == 3
        process = three[2].daemon.process()
        assert process is not None
        process.kill()
        for entry in written[20:]:
            await until_it_can(index, dataset, entry)
        assert await found(index, dataset) == {entry.id for entry in written}


@pytest.mark.long
async def test_what_is_away_is_waited_for(database_url: str, tmp_path: Path, java_and_maven: None) -> None:
    """Its outage is said in a sentence; what was written before is there when it is back, and what waited comes in."""
    dataset, written = str(uuid4()), entries(12)
    server = EmbeddedOpenSearch(tmp_path, heap="512m")
    async with server:
        access = Access(server.url)
        await set_up(database_url, access)
        async with opensearch_index(database_url, access) as index:
            await index.write("acme", dataset, str(uuid4()), written[:6], model=MODEL, version=1)
            process = server.daemon.process()
            assert process is not None
            process.kill()
            await asyncio.to_thread(process.wait)
            for attempt in (
                index.write("acme", dataset, str(uuid4()), written[6:], model=MODEL, version=2),
                found(index, dataset),
                index.delete("acme", dataset, str(uuid4()), version=3),
            ):
                with pytest.raises(Unavailable, match="OpenSearch cannot be reached"):
                    await attempt
            waiting = asyncio.create_task(until_it_can(index, dataset, *written[6:]))
            await server.start()
            await waiting
            assert await found(index, dataset) == {entry.id for entry in written}


async def until_it_can(index: VersionedIndex, dataset: str, *entries: Entry) -> None:
    """Write as a worker does, whose message comes again."""
    document = str(uuid4())
    async with asyncio.timeout(60):
        while True:
            with suppress(Unavailable):
                return await index.write("acme", dataset, document, entries, model=MODEL, version=2)
            await asyncio.sleep(0.05)
