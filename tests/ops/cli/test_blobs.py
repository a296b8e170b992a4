"""Blobs moved to another place and swept, from the command line."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from adapters.jetstream.blobs import JetStreamBlobs
from adapters.jetstream.keys import JetStreamKeys
from adapters.jetstream.store import JetStreamEventStore
from adapters.jetstream.streams import BLOBS, DEAD, set_up
from adapters.objects.blobs import ObjectBlobs
from adapters.objects.folder import Folder
from domain.aggregate import new_id
from domain.chat.conversation import Conversation
from domain.knowledge.document import Document
from domain.log import Metadata, Subject
from handlers.ports.log import Unavailable
from handlers.work.progress import no_progress
from ops.servers.embedded import EmbeddedNats
from ops.settings import InvalidSetting, Settings
from ops.upkeep import blobs as upkeep
from ops.upkeep.blobs import move, sweep
from tests.ops.cli.test_cli import Cli

NOW = datetime(2026, 5, 4, 8, tzinfo=UTC)
WEEK = timedelta(days=7)


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    """A NATS with streams, which the settings name, and a folder for blobs."""
    for name in list(os.environ):
        if name.startswith("HEADRACE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    (tmp_path / "blobs").mkdir()
    async with EmbeddedNats(tmp_path / "home") as running:
        monkeypatch.setenv("HEADRACE_NATS_URL", running.url)
        client = await nats.connect(running.url)
        await set_up(client.jetstream())
        yield client
        await client.close()


@pytest.fixture
def headrace(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.fixture
def folder(tmp_path: Path) -> ObjectBlobs:
    return ObjectBlobs(Folder(tmp_path / "blobs", "The store of blobs", make=False))


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def moving(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    monkeypatch.setenv("HEADRACE_BLOBS_URL", f"file://{tmp_path}/blobs")
    monkeypatch.setenv("HEADRACE_BLOBS_OLD_URL", "jetstream")
    return Settings.load()


# --- move ----------------------------------------------------------------------------------------------------


async def test_blobs_move_and_the_old_place_is_emptied(
    headrace: Cli, server: Client, folder: ObjectBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, data = JetStreamBlobs(server), [os.urandom(200_000), b"one", b""]
    for tenant in ("acme", "zeta"):
        for each in data:
            await old.put(tenant, each)
    await folder.put("acme", b"one")
    moving(monkeypatch, tmp_path)

    [done] = (await headrace("blobs", "move", "--json")).lines
    assert done == {"there": 1, "copied": 5, "bytes": 400_003, "removed": 0, "lost": {}}
    for tenant in ("acme", "zeta"):
        for each in data:
            assert await folder.get(tenant, digest(each)) == await old.get(tenant, digest(each)) == each

    await old.put("acme", b"by a worker with the old settings")
    done = await headrace("blobs", "move", "--drop")
    assert (done.code, "Copied 1 blobs" in done.out, "Removed 7" in done.out) == (0, True, True)
    assert "Unset HEADRACE_BLOBS_OLD_URL" in done.out
    assert await folder.get("acme", digest(b"by a worker with the old settings"))
    assert (await server.jetstream().stream_info(f"OBJ_{BLOBS}")).state.messages == 0


async def test_an_interrupted_move_is_resumed(
    server: Client, folder: ObjectBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, data = JetStreamBlobs(server), [b"%d" % number for number in range(30)]
    for each in data:
        await old.put("acme", each)
    settings, written = moving(monkeypatch, tmp_path), 0

    async def write(self: ObjectBlobs, tenant: str, digest: str, data: bytes) -> None:
        nonlocal written
        if (written := written + 1) > 10:
            raise Unavailable("The disk is full.")
        await original(self, tenant, digest, data)

    original = ObjectBlobs.write
    with monkeypatch.context() as patch:
        patch.setattr(ObjectBlobs, "write", write)
        with pytest.raises(Unavailable):
            await move(settings, no_progress, drop=True)
    assert len([it async for some in old.all() for it in some]) == 30
    done = await move(settings, no_progress)
    assert (0 < done.there <= 10, done.there + done.copied) == (True, 30)
    assert [await folder.get("acme", digest(each)) for each in data] == data


async def test_a_damaged_blob_is_named_and_nothing_is_dropped(
    headrace: Cli, server: Client, folder: ObjectBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = JetStreamBlobs(server)
    await old.put("acme", b"one")
    await old.write("acme", digest(b"two"), b"three")
    moving(monkeypatch, tmp_path)
    done = await headrace("blobs", "move", "--drop")
    assert (done.code, f"Blob acme/{digest(b'two')} is not what was stored" in done.err) == (1, True)
    assert await old.get("acme", digest(b"one")) == await folder.get("acme", digest(b"one")) == b"one"


async def test_without_an_old_place_nothing_moves(
    headrace: Cli, server: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = await headrace("blobs", "move")
    assert (done.code, "HEADRACE_BLOBS_OLD_URL is not set" in done.err) == (1, True)
    monkeypatch.setenv("HEADRACE_BLOBS_OLD_URL", "jetstream")
    with pytest.raises(InvalidSetting, match=r"HEADRACE_BLOBS_OLD_URL .* another place"):
        Settings.load()
    monkeypatch.setenv("HEADRACE_BLOBS_URL", "s4://nowhere")
    with pytest.raises(InvalidSetting, match=r"HEADRACE_BLOBS_URL .* must be a folder"):
        Settings.load()
    moving(monkeypatch, tmp_path / "not mounted")
    done = await headrace("blobs", "move")
    assert (done.code, "there is no folder" in done.err) == (1, True)


# --- sweep ---------------------------------------------------------------------------------------------------


async def upload(nc: Client, settings: Settings, name: str, tenant: str = "acme") -> None:
    """A commit that names a blob."""
    document = Document.upload(
        new_id(),
        NOW,
        dataset="d",
        name="file",
        media_type="text/plain",
        digest=name,
        size=1,
        metadata={},
        segmentation=None,
    )
    await append(nc, settings, "document", document.id, document.pending(), tenant)


async def append(
    nc: Client, settings: Settings, noun: str, id: str, events: Sequence[Any], tenant: str = "acme", **who: Any
) -> None:
    store = JetStreamEventStore(nc, JetStreamKeys(nc, settings.vault()))
    await store.append(Subject(tenant, noun, id), events, Metadata(new_id(), tenant, new_id(), **who), 0)


async def ask(nc: Client, settings: Settings, query: str) -> None:
    """A question in words of a person, which are sealed."""
    keys = JetStreamKeys(nc, settings.vault())
    person, id = await keys.person("acme", "maria"), new_id()
    talk = Conversation.begin(Conversation.Started, id, NOW, app="app", user="maria", name="talk")
    talk.ask(NOW, message="m", app="app", configuration=1, query=query, inputs={}, user="maria")
    await append(nc, settings, "conversation", id, talk.pending(), person=person)


async def test_a_blob_that_nothing_names_is_swept_after_a_week(
    headrace: Cli, server: Client, folder: ObjectBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_BLOBS_URL", str(tmp_path / "blobs"))
    settings, js = Settings.load(), server.jetstream()
    names = {
        name: await folder.put("acme", name.encode()) for name in ("uploaded", "asked", "waits", "dead", "old", "young")
    }
    await folder.put("zeta", b"uploaded")
    await upload(server, settings, names["uploaded"])
    await ask(server, settings, f"What is in {names['asked']}?")
    await js.publish("cmd.acme.anon.document.upload", b'{"digest": "%s"}' % names["waits"].encode())
    await js.publish("dead.commands.1", b'{"digest": "%s"}' % names["dead"].encode(), stream=DEAD)
    for path in (tmp_path / "blobs" / "blobs").rglob("*"):
        if path.is_file() and path.name != names["young"]:
            os.utime(path, (time.time() - 7 * 86_400 - 60,) * 2)

    counted = await headrace("blobs", "sweep", "--dry-run")
    assert (counted.code, "Would remove 2 of 7 blobs" in counted.out) == (0, True)
    [longer] = (await headrace("blobs", "sweep", "--days", "8", "--json")).lines
    assert longer == {"blobs": 7, "unnamed": 0, "bytes": 0, "removed": 0}
    [swept] = (await headrace("blobs", "sweep", "--json")).lines
    assert swept == {"blobs": 7, "unnamed": 2, "bytes": len("old" + "uploaded"), "removed": 2}
    left = {(blob.tenant, blob.digest) async for some in folder.all() for blob in some}
    assert left == {("acme", digest) for name, digest in names.items() if name != "old"}
    assert (await headrace("blobs", "sweep", "--days", "0")).code == 2


@pytest.mark.parametrize("place", ["jetstream", "folder"])
async def test_what_a_commit_names_while_a_sweep_reads_the_log_stays(
    server: Client, folder: ObjectBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    if place == "folder":
        monkeypatch.setenv("HEADRACE_BLOBS_URL", str(tmp_path / "blobs"))
    settings, blobs = Settings.load(), folder if place == "folder" else JetStreamBlobs(server)
    for module in ("adapters.jetstream.blobs", "adapters.objects.blobs"):
        monkeypatch.setattr(f"{module}.RENEWED", timedelta(0))  # here, a blob is old at once
    for data in (b"again", b"kept", b"never"):
        await blobs.put("acme", data)
    await asyncio.sleep(0.05)

    async def named(*arguments: Any) -> None:
        await without_named(*arguments)
        # Now the sweep knows what it removes.
        await upload(server, settings, await blobs.put("acme", b"again"))
        assert await blobs.keep("acme", digest(b"kept")) == 4
        await upload(server, settings, digest(b"kept"))

    without_named = upkeep._without_named
    monkeypatch.setattr(upkeep, "_without_named", named)
    done = await sweep(settings, timedelta(0), no_progress)
    assert (done.unnamed, done.removed) == (3, 1)
    assert await blobs.get("acme", digest(b"again")) == b"again"
    assert await blobs.get("acme", digest(b"kept")) == b"kept"
    assert await blobs.size("acme", digest(b"never")) is None


async def test_nothing_is_swept_while_a_newer_version_may_name_it(server: Client) -> None:
    settings, blobs = Settings.load(), JetStreamBlobs(server)
    name = await blobs.put("acme", b"one")
    keys = JetStreamKeys(server, settings.vault())
    await keys.macs.load()
    body = b'[{"type": "dataset.folded.v1", "version": 1, "state": {}}]'
    headers = keys.macs.sign("EVENTS", "evt.acme.dataset.d", {"Nats-Msg-Id": new_id()}, body)
    await server.jetstream().publish("evt.acme.dataset.d", body, headers=dict(headers))
    with pytest.raises(Unavailable, match="Upgrade this program"):
        await sweep(settings, timedelta(0), no_progress)
    assert await blobs.get("acme", name) == b"one"
