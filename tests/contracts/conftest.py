"""The contracts of the log's ports hold in memory, on one NATS server and on three; those of the index, in both."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from nats.aio.client import Client

from adapters.code.contained import Allowance, ContainedCode
from adapters.index.opensearch.client import Access
from adapters.index.opensearch.store import opensearch_index
from adapters.index.opensearch.tables import set_up as set_up_opensearch
from adapters.index.pgvector.store import pgvector_index
from adapters.index.pgvector.tables import set_up as set_up_pgvector
from adapters.jetstream import nats_py
from adapters.jetstream.streams import BLOBS, FAILURES, OUTAGES, SNAPSHOTS, STREAMS, set_up
from adapters.sandbox.choice import Choice, candidates, tried
from handlers.ports.index import Index
from ops.servers.embedded import EmbeddedNats
from tests.contracts.running import LIMITS
from tests.memory import Memory
from tests.nats_cluster import NatsCluster, once_there


@pytest.fixture(scope="session")
async def nats_cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NatsCluster]:
    folder = tmp_path_factory.mktemp("cluster")
    async with NatsCluster(folder) as cluster:
        yield cluster
    shutil.rmtree(folder)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests of the streams themselves need a real server; all others run in memory too."""
    if "server" in metafunc.fixturenames:
        memory = [] if "nc" in metafunc.fixturenames else ["memory"]
        metafunc.parametrize("server", [*memory, "lone_nats", "nats_cluster"], indirect=True, scope="module")


@pytest.fixture(scope="module")
def memory() -> Memory:
    return Memory()


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> EmbeddedNats | NatsCluster | Memory:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, EmbeddedNats | NatsCluster | Memory)
    return found


@pytest.fixture(scope="module")
def place(request: pytest.FixtureRequest, server: EmbeddedNats | NatsCluster | Memory) -> Memory | Client:
    """Where a port keeps things: a memory, or a server by its connection."""
    if isinstance(server, Memory):
        return server
    client = request.getfixturevalue("nc")
    assert isinstance(client, Client)
    return client


@pytest.fixture(scope="module")
async def nc(server: EmbeddedNats | NatsCluster) -> AsyncIterator[Client]:
    """A connection with the streams made, for the tests of one module."""
    async with with_streams(server) as client:
        yield client


@asynccontextmanager
async def with_streams(server: EmbeddedNats | NatsCluster) -> AsyncIterator[Client]:
    """A connection to the server; the streams are there within the context."""
    urls, replicas = (server.urls, 3) if isinstance(server, NatsCluster) else (server.url, 1)
    client = await nats_py.connect(urls.split(","))
    js = client.jetstream(timeout=15)
    await once_there(lambda: set_up(js, replicas=replicas))
    yield client
    buckets = [f"KV_{bucket}" for bucket in (SNAPSHOTS, FAILURES, OUTAGES)]
    for stream in [*(str(it.name) for it in STREAMS), f"OBJ_{BLOBS}", *buckets]:
        await js.delete_stream(stream)
    await client.close()


@pytest.fixture
async def pgvector(module_database_url: str) -> AsyncIterator[Index]:
    await set_up_pgvector(module_database_url)
    async with pgvector_index(module_database_url) as index:
        yield index


@pytest.fixture
async def opensearch(module_database_url: str, opensearch_url: str) -> AsyncIterator[Index]:
    access = Access(opensearch_url)
    await set_up_opensearch(module_database_url, access)
    async with opensearch_index(module_database_url, access) as index:
        yield index


@pytest.fixture(scope="module", params=candidates("auto"), ids=lambda each: f"{each.kind}, own_user={each.own_user}")
async def code(request: pytest.FixtureRequest) -> AsyncIterator[ContainedCode]:
    try:
        choice = Choice(request.param, await tried(request.param), "")
    except (OSError, TimeoutError) as error:
        pytest.skip(f"It does not work here: {error}")
    if choice.open:
        pytest.skip(f"Its children can {', '.join(choice.open)} here.")
    async with ContainedCode(choice, Allowance(LIMITS._replace(output=2 * 2**20), at_once=2)) as code:
        yield code
