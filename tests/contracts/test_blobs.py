"""The contract of Blobs."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress

import nats
import pytest
from nats.aio.client import Client

from adapters.jetstream.blobs import JetStreamBlobs
from adapters.jetstream.streams import BLOBS
from handlers.ports.log import Blobs, Unavailable
from ops.servers.embedded import EmbeddedNats
from tests.memory import Memory, MemoryBlobs


@pytest.fixture
def blobs(place: Memory | Client) -> Blobs:
    return MemoryBlobs(place) if isinstance(place, Memory) else JetStreamBlobs(place)


@pytest.mark.parametrize(
    "data",
    [b"The lock opens at six.", b"", b"\0", os.urandom(5 * 2**20), b"x" * 128 * 1024],
    ids=["text", "empty", "NUL", "5 MB", "one piece"],
)
async def test_bytes_come_back_by_their_digest(blobs: Blobs, tenant: str, data: bytes) -> None:
    digest = await blobs.put(tenant, data)
    assert digest == hashlib.sha256(data).hexdigest()
    assert await blobs.get(tenant, digest) == data
    assert await blobs.size(tenant, digest) == len(data)


async def test_the_same_bytes_are_stored_once(nc: Client, blobs: Blobs, tenant: str) -> None:
    data = os.urandom(300_000)
    digest = await blobs.put(tenant, data)
    before = (await nc.jetstream().stream_info(f"OBJ_{BLOBS}")).state
    assert await blobs.put(tenant, data) == digest
    after = (await nc.jetstream().stream_info(f"OBJ_{BLOBS}")).state
    assert (after.last_seq, after.bytes) == (before.last_seq, before.bytes)


async def test_any_client_of_the_object_store_reads_it(nc: Client, blobs: Blobs, tenant: str) -> None:
    data = os.urandom(300_000)
    digest = await blobs.put(tenant, data)
    bucket = await nc.jetstream().object_store(BLOBS)
    found = await bucket.get(f"{tenant}/{digest}")
    assert found.data == data
    assert (found.info.size, found.info.chunks, found.info.deleted) == (len(data), 3, False)


async def test_a_blob_that_was_deleted_is_missing_and_can_be_put_again(nc: Client, blobs: Blobs, tenant: str) -> None:
    digest = await blobs.put(tenant, b"secret")
    await (await nc.jetstream().object_store(BLOBS)).delete(f"{tenant}/{digest}")
    assert await blobs.size(tenant, digest) is None
    assert await blobs.put(tenant, b"secret") == digest
    assert await blobs.get(tenant, digest) == b"secret"


async def test_what_is_missing_is_a_key_error(blobs: Blobs, tenant: str) -> None:
    missing = "0" * 64
    with pytest.raises(KeyError, match=missing):
        await blobs.get(tenant, missing)
    assert await blobs.size(tenant, missing) is None


async def test_bytes_of_another_digest_are_refused(nc: Client, blobs: Blobs, tenant: str) -> None:
    digest = await blobs.put(tenant, b"The lock opens at six.")
    bucket = await nc.jetstream().object_store(BLOBS)
    await bucket.put(f"{tenant}/{digest}", b"The lock never opens.")
    with pytest.raises(ValueError, match=digest):
        await blobs.get(tenant, digest)


async def test_pieces_that_were_changed_are_refused(nc: Client, blobs: Blobs, tenant: str) -> None:
    digest = await blobs.put(tenant, b"The lock opens at six.")
    bucket = await nc.jetstream().object_store(BLOBS)
    info = await bucket.get_info(f"{tenant}/{digest}")
    await nc.jetstream().publish(f"$O.{BLOBS}.C.{info.nuid}", b" Or at seven.")
    with pytest.raises(ValueError, match=digest):
        await blobs.get(tenant, digest)


async def test_tenants_are_apart(blobs: Blobs, tenant: str) -> None:
    digest = await blobs.put(tenant, b"secret")
    with pytest.raises(KeyError):
        await blobs.get("other", digest)
    assert await blobs.size("other", digest) is None
    assert await blobs.put("other", b"secret") == digest
    assert await blobs.get("other", digest) == b"secret"


async def test_a_server_that_is_away_is_unavailable(tmp_path_factory: pytest.TempPathFactory, tenant: str) -> None:
    async def quiet(error: Exception) -> None: ...

    async with EmbeddedNats(tmp_path_factory.mktemp("away")) as server:
        nc = await nats.connect(server.url, error_cb=quiet, reconnect_time_wait=0.05)
        await nc.jetstream().create_object_store(BLOBS)
        blobs = JetStreamBlobs(nc, timeout_s=0.3)
        digest = await blobs.put(tenant, b"secret")
        await server.stop()
        with pytest.raises(Unavailable):
            await blobs.put(tenant, b"other")
        with pytest.raises(Unavailable):
            await blobs.get(tenant, digest)
        with pytest.raises(Unavailable):
            await blobs.size(tenant, digest)
        with suppress(ConnectionError):
            await nc.close()
