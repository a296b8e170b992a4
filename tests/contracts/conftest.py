"""What JetStream adapters promise holds on one server and on three."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator

import pytest
from nats.aio.client import Client

from adapters.jetstream import nats_py
from adapters.jetstream.streams import BLOBS, FAILURES, SNAPSHOTS, STREAMS, set_up
from ops.servers.embedded import EmbeddedNats
from tests.nats_cluster import NatsCluster, once_there


@pytest.fixture(scope="session")
async def nats_cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NatsCluster]:
    folder = tmp_path_factory.mktemp("cluster")
    async with NatsCluster(folder) as cluster:
        yield cluster
    shutil.rmtree(folder)


@pytest.fixture(scope="module", params=["lone_nats", "nats_cluster"])
def server(request: pytest.FixtureRequest) -> EmbeddedNats | NatsCluster:
    """One server, and three."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, EmbeddedNats | NatsCluster)
    return found


@pytest.fixture(scope="module")
async def nc(server: EmbeddedNats | NatsCluster) -> AsyncIterator[Client]:
    """A connection with the streams made, for the tests of one module."""
    urls, replicas = (server.urls, 3) if isinstance(server, NatsCluster) else (server.url, 1)
    client = await nats_py.connect(urls.split(","))
    js = client.jetstream(timeout=15)
    await once_there(lambda: set_up(js, replicas=replicas))
    yield client
    for stream in [*(str(it.name) for it in STREAMS), f"OBJ_{BLOBS}", f"KV_{SNAPSHOTS}", f"KV_{FAILURES}"]:
        await js.delete_stream(stream)
    await client.close()
