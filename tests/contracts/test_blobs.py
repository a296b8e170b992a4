"""The contract of Blobs, in every place, and of the places themselves."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import nats
import pytest
from nats.aio.client import Client

from adapters.jetstream import blobs as jetstream_blobs
from adapters.jetstream.blobs import JetStreamBlobs
from adapters.jetstream.raw import RawStream
from adapters.jetstream.streams import BLOBS
from adapters.moved_blobs import MovedBlobs
from adapters.objects import blobs as object_blobs
from adapters.objects.address import objects_at
from adapters.objects.blobs import MARK, ObjectBlobs
from adapters.objects.objects import Objects
from handlers.ports.log import BlobPlace, Blobs, StoredBlob, Unavailable
from ops.servers.embedded import EmbeddedNats
from tests.contracts.conftest import with_streams
from tests.memory import Memory, MemoryBlobs
from tests.nats_cluster import NatsCluster
from tests.s3_server import S3Server

SERVERS = ("lone_nats", "nats_cluster")
KINDS = ("memory", "moved", "folder", "bucket", *SERVERS)

on_places = pytest.mark.parametrize("kind", ["folder", "bucket", *SERVERS], indirect=True, scope="module")
on_objects = pytest.mark.parametrize("kind", ["folder", "bucket"], indirect=True, scope="module")
on_nats = pytest.mark.parametrize("kind", SERVERS, indirect=True, scope="module")

NOW = timedelta(0)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def host(kind: str, request: pytest.FixtureRequest) -> EmbeddedNats | NatsCluster | None:
    found = request.getfixturevalue(kind) if kind in SERVERS else None
    assert isinstance(found, EmbeddedNats | NatsCluster | None)
    return found


@pytest.fixture(scope="module")
async def connection(host: EmbeddedNats | NatsCluster | None) -> AsyncIterator[Client | None]:
    if host is None:
        yield None
        return
    async with with_streams(host) as client:
        yield client


@pytest.fixture
def nc(connection: Client | None) -> Client:
    assert connection
    return connection


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture
def objects(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    url = request.getfixturevalue("s3").bucket(uuid4().hex) if kind == "bucket" else str(tmp_path)
    return objects_at(url, "The store of blobs", make=False)


@pytest.fixture
def blobs(kind: str, connection: Client | None, objects: Objects, tmp_path: Path) -> Blobs:
    match kind:
        case "memory":
            return MemoryBlobs(Memory())
        case "moved":
            (tmp_path / "old").mkdir()
            old = objects_at(f"file://{tmp_path}/old", "The old place", make=False)
            return MovedBlobs(ObjectBlobs(objects), ObjectBlobs(old))
        case "folder" | "bucket":
            return ObjectBlobs(objects)
    assert connection
    return JetStreamBlobs(connection)


@pytest.fixture
def place(blobs: Blobs) -> BlobPlace:
    assert isinstance(blobs, JetStreamBlobs | ObjectBlobs)
    return blobs


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blobs of any age are renewed."""
    for module in (jetstream_blobs, object_blobs):
        monkeypatch.setattr(module, "RENEWED", NOW)


async def listed(place: BlobPlace, tenant: str) -> dict[str, StoredBlob]:
    return {blob.digest: blob async for some in place.all() for blob in some if blob.tenant == tenant}


# --- bytes by their digest -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [b"The lock opens at six.", b"", b"\0", os.urandom(5 * 2**20), b"x" * 128 * 1024],
    ids=["text", "empty", "NUL", "5 MB", "one piece"],
)
async def test_bytes_come_back_by_their_digest(blobs: Blobs, tenant: str, data: bytes) -> None:
    digest = await blobs.put(tenant, data)
    assert digest == hashlib.sha256(data).hexdigest()
    assert await blobs.get(tenant, digest) == data
    assert await blobs.size(tenant, digest) == await blobs.keep(tenant, digest) == len(data)


async def test_what_is_missing_is_a_key_error(blobs: Blobs, tenant: str) -> None:
    missing = "0" * 64
    with pytest.raises(KeyError, match=missing):
        await blobs.get(tenant, missing)
    assert await blobs.size(tenant, missing) is None
    assert await blobs.keep(tenant, missing) is None


async def test_tenants_are_apart(blobs: Blobs, tenant: str) -> None:
    digest = await blobs.put(tenant, b"secret")
    with pytest.raises(KeyError):
        await blobs.get("other", digest)
    assert await blobs.size("other", digest) is None
    assert await blobs.put("other", b"secret") == digest
    assert await blobs.get("other", digest) == b"secret"


async def test_writers_of_the_same_bytes_do_not_disturb_each_other(blobs: Blobs, tenant: str) -> None:
    data = os.urandom(200_000)
    assert len({*await asyncio.gather(*(blobs.put(tenant, data) for _ in range(8)))}) == 1
    assert await blobs.get(tenant, hashlib.sha256(data).hexdigest()) == data


# --- a place -------------------------------------------------------------------------------------------------


@on_places
async def test_a_place_lists_what_it_holds(place: BlobPlace, tenant: str) -> None:
    wanted = {await place.put(tenant, data): len(data) for data in (b"", b"one", os.urandom(200_000))}
    found = await listed(place, tenant)
    assert {digest: blob.size for digest, blob in found.items()} == wanted
    last = max(blob.sequence for blob in found.values())
    assert last == 0 or [it async for some in place.all(last) for it in some if it.tenant == tenant] == []


@on_places
async def test_bytes_of_another_digest_are_refused_until_they_are_written_again(place: BlobPlace, tenant: str) -> None:
    digest = await place.put(tenant, b"The lock opens at six.")
    await place.write(tenant, digest, b"The lock never opens.")
    with pytest.raises(ValueError, match=digest):
        await place.get(tenant, digest)
    await place.write(tenant, digest, b"The lock opens at six.")
    assert await place.get(tenant, digest) == b"The lock opens at six."


@on_places
async def test_a_removed_blob_is_gone_and_can_be_put_again(place: BlobPlace, tenant: str) -> None:
    one, two = await place.put(tenant, b"one"), await place.put(tenant, b"two")
    assert await place.remove([(await listed(place, tenant))[one]]) == 1
    assert await place.size(tenant, one) is None
    with pytest.raises(KeyError):
        await place.get(tenant, one)
    assert [*await listed(place, tenant)] == [two]
    assert await place.put(tenant, b"one") == one
    assert await place.get(tenant, one) == b"one"
    assert {*await listed(place, tenant)} == {one, two}


@on_places
@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("renew", ["put", "keep"])
async def test_what_is_put_or_kept_after_it_was_listed_is_not_removed(
    place: BlobPlace, tenant: str, renew: str
) -> None:
    digest = await place.put(tenant, b"one")
    old = (await listed(place, tenant))[digest]
    await asyncio.sleep(1.1)  # times of a bucket are in seconds
    await (place.put(tenant, b"one") if renew == "put" else place.keep(tenant, digest))
    assert (await listed(place, tenant))[digest].at > old.at
    assert await place.remove([old]) == 0
    assert await place.get(tenant, digest) == b"one"


@on_places
async def test_a_young_blob_is_not_stored_again(place: BlobPlace, tenant: str) -> None:
    digest = await place.put(tenant, b"one")
    before = await listed(place, tenant)
    assert await place.put(tenant, b"one") == digest
    assert await place.keep(tenant, digest) == 3
    assert await listed(place, tenant) == before


@on_places
@pytest.mark.usefixtures("at_once")
async def test_no_put_is_lost_to_a_sweep_at_the_same_time(place: BlobPlace, tenant: str) -> None:
    """A blob that was put is found, in whatever order the sweep and the put come."""
    data = [os.urandom(50) for _ in range(20)]
    for each in data:
        await place.put(tenant, each)
    old = [*(await listed(place, tenant)).values()]
    await asyncio.sleep(1.1)

    async def put(each: bytes, after: float) -> bytes:
        await asyncio.sleep(after)
        return await place.get(tenant, await place.put(tenant, each))

    puts = asyncio.gather(*(put(each, 0.01 * number) for number, each in enumerate(data)))
    removed = await place.remove(old)
    assert await puts == data
    assert {*await listed(place, tenant)} == {blob.digest for blob in old}
    assert 0 <= removed <= len(old)


@on_places
async def test_tidying_leaves_blobs_alone(place: BlobPlace, tenant: str) -> None:
    digest = await place.put(tenant, b"one")
    await place.tidy()
    assert await place.get(tenant, digest) == b"one"


# --- a folder and a bucket -----------------------------------------------------------------------------------


class Paused:
    """Objects whose next removal waits until it may go on."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self.reached, self.may = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> object:
        return getattr(self._objects, name)

    async def remove(self, names: list[str]) -> None:
        self.reached.set()
        await self.may.wait()
        await self._objects.remove(names)


@on_objects
@pytest.mark.usefixtures("at_once")
async def test_a_put_in_the_middle_of_a_removal_waits_and_writes_again(objects: Objects, tenant: str) -> None:
    blobs, paused = ObjectBlobs(objects), Paused(objects)
    digest = await blobs.put(tenant, b"one")
    [old] = (await listed(blobs, tenant)).values()
    removal = asyncio.create_task(ObjectBlobs(paused).remove([old]))  # type: ignore[arg-type]
    await paused.reached.wait()  # it has looked at the age, and is about to remove
    again = asyncio.create_task(blobs.put(tenant, b"one"))
    await asyncio.sleep(0.5)
    assert not again.done()
    paused.may.set()
    assert await removal == 1
    assert await again == digest
    assert await blobs.get(tenant, digest) == b"one"
    assert await objects.find(MARK) is None


@on_objects
async def test_one_sweep_at_a_time_removes_and_a_killed_one_stops_no_put_for_long(
    objects: Objects, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = ObjectBlobs(objects)
    await blobs.put(tenant, b"one")
    [old] = (await listed(blobs, tenant)).values()
    await objects.create(MARK, b"")
    with pytest.raises(Unavailable, match="Another sweep"):
        await blobs.remove([old])
    monkeypatch.setattr(object_blobs, "DEAD_S", 0.5)
    await asyncio.wait_for(blobs.put(tenant, b"two"), 5)
    await asyncio.wait_for(blobs.put(tenant, b"three"), 0.5)
    monkeypatch.setattr(object_blobs, "KILLED", timedelta(seconds=-10))
    assert await blobs.remove([old]) == 1


@on_objects
async def test_a_sweep_that_is_too_slow_removes_nothing(
    objects: Objects, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = ObjectBlobs(objects)
    digest = await blobs.put(tenant, b"one")
    [old] = (await listed(blobs, tenant)).values()
    monkeypatch.setattr(object_blobs, "SWEEPING_S", 0.0)
    with pytest.raises(Unavailable, match="too slow"):
        await blobs.remove([old])
    assert await blobs.get(tenant, digest) == b"one"


async def test_a_folder_that_is_not_there_is_unavailable_and_is_not_made(tmp_path: Path, tenant: str) -> None:
    folder = tmp_path / "not mounted"
    await away(ObjectBlobs(objects_at(str(folder), "The store of blobs", make=False)), tenant, "0" * 64)
    assert not folder.exists()


async def test_what_a_killed_writer_has_left_in_a_folder_is_tidied_a_day_later(tmp_path: Path, tenant: str) -> None:
    blobs = ObjectBlobs(objects_at(str(tmp_path), "The store of blobs", make=False))
    digest = await blobs.put(tenant, b"one")
    old, new = tmp_path / "partial" / "old", tmp_path / "partial" / "new"
    for file in (old, new):
        file.write_bytes(b"on")
    os.utime(old, (0, 0))
    await blobs.tidy()
    assert not old.exists()
    assert new.exists()
    assert await blobs.get(tenant, digest) == b"one"


async def test_a_bucket_that_is_away_is_unavailable(tenant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with S3Server(own=True) as server:
        blobs = ObjectBlobs(objects_at(server.bucket("blobs"), "The store of blobs", make=False))
        digest = await blobs.put(tenant, b"secret")
        missing = ObjectBlobs(objects_at("s3://nowhere/headrace", "The store of blobs", make=False))
        with pytest.raises(Unavailable):
            await missing.put(tenant, b"secret")
        server.stop()
        await away(blobs, tenant, digest)


# --- two places ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["moved"], indirect=True, scope="module")
async def test_reads_look_in_the_new_place_then_in_the_old_one(blobs: MovedBlobs, tmp_path: Path, tenant: str) -> None:
    new, old = (ObjectBlobs(objects_at(str(it), "", make=False)) for it in (tmp_path, tmp_path / "old"))
    digest = await old.put(tenant, b"one")
    assert await blobs.get(tenant, digest) == b"one"
    assert await blobs.size(tenant, digest) == 3
    assert await new.size(tenant, digest) is None
    assert await blobs.put(tenant, b"two") == hashlib.sha256(b"two").hexdigest()
    assert {*await listed(new, tenant)} == {hashlib.sha256(b"two").hexdigest()}
    assert len([it async for some in blobs.all() for it in some]) == 2
    assert await blobs.keep(tenant, digest) == 3
    assert await new.get(tenant, digest) == b"one"


# --- the object store of JetStream ---------------------------------------------------------------------------


@on_nats
async def test_the_same_bytes_are_stored_once(nc: Client, blobs: Blobs, tenant: str) -> None:
    data = os.urandom(300_000)
    digest = await blobs.put(tenant, data)
    before = (await nc.jetstream().stream_info(f"OBJ_{BLOBS}")).state
    assert await blobs.put(tenant, data) == digest
    after = (await nc.jetstream().stream_info(f"OBJ_{BLOBS}")).state
    assert (after.last_seq, after.bytes) == (before.last_seq, before.bytes)


@on_nats
async def test_any_client_of_the_object_store_reads_it(nc: Client, blobs: Blobs, tenant: str) -> None:
    data = os.urandom(300_000)
    digest = await blobs.put(tenant, data)
    bucket = await nc.jetstream().object_store(BLOBS)
    found = await bucket.get(f"{tenant}/{digest}")
    assert found.data == data
    assert (found.info.size, found.info.chunks, found.info.deleted) == (len(data), 3, False)


@on_nats
async def test_a_blob_that_another_client_deleted_is_missing_and_can_be_put_again(
    nc: Client, blobs: Blobs, tenant: str
) -> None:
    digest = await blobs.put(tenant, b"secret")
    await (await nc.jetstream().object_store(BLOBS)).delete(f"{tenant}/{digest}")
    assert await blobs.size(tenant, digest) is None
    assert await blobs.put(tenant, b"secret") == digest
    assert await blobs.get(tenant, digest) == b"secret"


@on_nats
async def test_pieces_that_were_changed_are_refused(nc: Client, blobs: Blobs, tenant: str) -> None:
    digest = await blobs.put(tenant, b"The lock opens at six.")
    bucket = await nc.jetstream().object_store(BLOBS)
    info = await bucket.get_info(f"{tenant}/{digest}")
    await nc.jetstream().publish(f"$O.{BLOBS}.C.{info.nuid}", b" Or at seven.")
    with pytest.raises(ValueError, match=digest):
        await blobs.get(tenant, digest)


@on_nats
async def test_a_removal_leaves_nothing_behind(nc: Client, place: BlobPlace, tenant: str) -> None:
    before = (await nc.jetstream().stream_info(f"OBJ_{BLOBS}")).state.messages
    digests = [await place.put(tenant, os.urandom(300_000)) for _ in range(2)]
    kept = await listed(place, tenant)
    assert await place.remove([kept[digests[0]]]) == 1
    await (await nc.jetstream().object_store(BLOBS)).delete(f"{tenant}/{digests[1]}")
    await place.tidy()
    assert (await nc.jetstream().stream_info(f"OBJ_{BLOBS}")).state.messages == before


@on_nats
async def test_a_blob_that_is_renewed_while_all_are_listed_is_not_left_out(
    place: BlobPlace, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [await place.put(tenant, b"%d" % number) for number in range(3)]
    monkeypatch.setattr(jetstream_blobs, "RENEWED", NOW)
    last, calls = RawStream.last, 0

    async def then_renewed(stream: RawStream) -> int:
        nonlocal calls
        found = await last(stream)
        if (calls := calls + 1) == 1:
            await place.keep(tenant, names[0])
        return found

    monkeypatch.setattr(RawStream, "last", then_renewed)
    assert {*await listed(place, tenant)} == {*names}


async def away(blobs: Blobs, tenant: str, digest: str) -> None:
    for call in (blobs.get, blobs.size, blobs.keep):
        with pytest.raises(Unavailable):
            await call(tenant, digest)
    with pytest.raises(Unavailable):
        await blobs.put(tenant, b"other")


async def test_a_server_that_is_away_is_unavailable(tmp_path_factory: pytest.TempPathFactory, tenant: str) -> None:
    async def quiet(error: Exception) -> None: ...

    async with EmbeddedNats(tmp_path_factory.mktemp("away")) as server:
        nc = await nats.connect(server.url, error_cb=quiet, reconnect_time_wait=0.05)
        await nc.jetstream().create_object_store(BLOBS)
        blobs = JetStreamBlobs(nc, timeout_s=0.3)
        digest = await blobs.put(tenant, b"secret")
        await server.stop()
        await away(blobs, tenant, digest)
        with suppress(ConnectionError):
            await nc.close()
