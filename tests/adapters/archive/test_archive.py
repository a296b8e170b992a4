"""The archive: written, found whole or broken, and restored, with real NATS servers."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from adapters.archive.archiver import STREAMS, Archiver, Differs, check, live, status, withheld
from adapters.archive.store import BLOBS, AlreadyWritten, Archive, Broken
from adapters.jetstream.blobs import JetStreamBlobs
from adapters.jetstream.keys import JetStreamKeys
from adapters.jetstream.log import JetStreamLog
from adapters.jetstream.message import Message
from adapters.jetstream.outcomes import JetStreamOutcomes
from adapters.jetstream.store import JetStreamEventStore
from adapters.jetstream.streams import DEAD, set_up
from adapters.privacy.vault import AesVault
from domain.access.end_user import EndUser
from domain.aggregate import new_id
from domain.knowledge.dataset import Dataset
from domain.log import EVENTS, OUTCOMES, Metadata, Outcome, Position, Recorded, Subject
from handlers.ports.log import Unavailable
from handlers.work.audit import Check
from ops.servers.embedded import EmbeddedNats
from ops.settings import Settings
from ops.upkeep.doctor import Finding, examine
from ops.upkeep.restore import Busy, NoArchive, restore
from tests.nats_cluster import NatsCluster
from tests.ops.cli.test_cli import Cli
from tests.s3_server import S3Server

NOW = datetime(2026, 5, 4, 8, tzinfo=UTC)
SMALL = 4000
"""Bytes of a segment, so that there are several."""


@asynccontextmanager
async def nats_with_streams(home: Path) -> AsyncIterator[tuple[EmbeddedNats, Client]]:
    async with EmbeddedNats(home) as server:
        client = await nats.connect(server.url)
        await set_up(client.jetstream())
        yield server, client
        await client.close()


async def commit(nc: Client, count: int) -> None:
    store, outcomes = JetStreamEventStore(nc), JetStreamOutcomes(nc)
    for number in range(count):
        dataset = Dataset.begin(Dataset.Created, new_id(), NOW, name=f"Rules {number} – ∆", description="")
        metadata = Metadata(new_id(), "acme", new_id(), new_id(), "ada")
        position = await store.append(Subject("acme", "dataset", dataset.id), dataset.pending(), metadata, 0)
        id = new_id()
        await outcomes.put(Outcome(id, "dataset.create", "accepted", Metadata(id, "acme", id), NOW, position, 1))


async def fill(nc: Client) -> None:
    """Commits, their outcomes, blobs (one for two tenants) and dead letters, of which some were discarded."""
    blobs, js = JetStreamBlobs(nc), nc.jetstream()
    for tenant, data in (("acme", b"one"), ("acme", os.urandom(300_000)), ("zeta", b"one"), ("zeta", b"")):
        await blobs.put(tenant, data)
    await commit(nc, 40)
    for number in range(6):
        headers = {"Headrace-Reason": f"reason {number}"}
        await js.publish(f"dead.ingest.{number}", bytes([255, number]), headers=headers, stream=DEAD)
    for number in (1, 2, 4):
        await js.delete_msg(DEAD, number)


async def stored(nc: Client) -> dict[str, list[Message]]:
    """All that the streams hold."""
    found = {}
    for stream in STREAMS:
        source = live(nc, stream)
        found[stream] = [message async for some in source.read(0, await source.last()) for message in some]
    return found


async def replayed(nc: Client) -> list[Recorded]:
    log = JetStreamLog(nc)
    return [
        message for stream in (EVENTS, OUTCOMES) async for some in log.read(stream, 0, follow=False) for message in some
    ]


async def checks(nc: Client, archive: Archive) -> dict[str, Check]:
    return {found.name: found async for found in check(nc, archive)}


async def faults(nc: Client, archive: Archive) -> dict[str, list[str]]:
    return {name: found.first for name, found in (await checks(nc, archive)).items() if found.faults}


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def written_segments(folder: Path) -> int:
    return sum(1 for _ in folder.rglob("segment-*"))


@pytest.fixture(scope="module")
async def filled(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    """A log with something of everything in it; the tests only read it."""
    home = tmp_path_factory.mktemp("filled")
    async with nats_with_streams(home) as (_, client):
        await fill(client)
        yield client
    shutil.rmtree(home)


@pytest.fixture(scope="module")
async def written(filled: Client, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Path]:
    """The archive of that log, as a folder."""
    folder = tmp_path_factory.mktemp("archive")
    await Archiver(filled, Archive.at(str(folder)), segment_bytes=SMALL).update()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy of the archive, to be damaged."""
    return shutil.copytree(written, tmp_path / "archive")


# --- archive -------------------------------------------------------------------------------------------------


async def test_all_is_archived_once_and_is_whole(filled: Client, written: Path) -> None:
    archive = Archive.at(str(written))
    found = await checks(filled, archive)
    assert [check.faults for check in found.values()] == [0, 0, 0, 0]
    assert found["archived log"].checked == 40 + 40 + 3
    assert found["archived blobs"].checked == 3
    assert len(await archive.firsts(EVENTS)) > 3
    assert len([path for path in (written / "blobs").rglob("*") if path.is_file()]) == 3
    assert not list((written / "partial").iterdir())
    again = Archiver(filled, archive, segment_bytes=SMALL)
    assert await again.update() == {EVENTS: 0, OUTCOMES: 0, DEAD: 0, BLOBS: 0}
    behind = await status(filled, archive, JetStreamBlobs(filled))
    assert {each.stream: (each.archived, each.waiting) for each in behind} == {
        EVENTS: (40, 0),
        OUTCOMES: (40, 0),
        DEAD: (6, 0),
        BLOBS: (4, 0),
    }


async def test_round_trip(filled: Client, folder: Path, tmp_path: Path) -> None:
    archive = Archive.at(str(folder))
    async with EmbeddedNats(tmp_path) as server:
        settings = Settings.load(home=tmp_path, nats_url=server.url)
        restored = await restore(settings, archive)
        assert restored.last == {EVENTS: 40, OUTCOMES: 40, DEAD: 6}
        assert (restored.blobs, restored.lost) == (4, {})
        client = await nats.connect(server.url)
        assert await stored(client) == await stored(filled)
        assert await replayed(client) == await replayed(filled)
        blobs = JetStreamBlobs(client)
        for tenant in ("acme", "zeta"):
            assert await blobs.get(tenant, hashlib.sha256(b"one").hexdigest()) == b"one"
        assert await blobs.get("zeta", hashlib.sha256(b"").hexdigest()) == b""
        assert await faults(client, archive) == {}

        assert (await restore(settings, archive)).published == {EVENTS: 0, OUTCOMES: 0, DEAD: 0}
        await commit(client, 3)
        assert await Archiver(client, archive, segment_bytes=SMALL).update() == {
            EVENTS: 3,
            OUTCOMES: 3,
            DEAD: 0,
            BLOBS: 0,
        }
        await client.close()


async def test_another_log_is_never_archived(folder: Path, tmp_path: Path) -> None:
    before = contents(folder)
    archive = Archive.at(str(folder))
    async with nats_with_streams(tmp_path / "other") as (_, other):
        with pytest.raises(Differs, match="Stream EVENTS ends at 0, and its archive at 40"):
            await Archiver(other, archive, segment_bytes=SMALL).update()
        await JetStreamBlobs(other).put("other", b"other")
        await commit(other, 45)
        with pytest.raises(Differs, match="Message 40 of EVENTS has another subject than its archive"):
            await Archiver(other, archive, segment_bytes=SMALL).update()
        found = await faults(other, archive)
        assert found["archived log"][0] == "EVENTS 1: its subject is not what was archived"
    assert contents(folder) == before


async def test_dead_letters_may_be_discarded_before_and_after(tmp_path: Path) -> None:
    archive = Archive.at(str(tmp_path / "archive"))
    async with nats_with_streams(tmp_path) as (_, client):
        await fill(client)
        archiver = Archiver(client, archive, segment_bytes=SMALL)
        await archiver.update()
        for number in (3, 6):
            await client.jetstream().delete_msg(DEAD, number)
        assert (await archiver.update())[DEAD] == 0
        assert await faults(client, archive) == {}
        await client.jetstream().publish("dead.ingest.7", b"", stream=DEAD)
        assert (await archiver.update())[DEAD] == 1
        kept = [message.sequence async for _, messages in archive.messages(DEAD) for message in messages]
        assert kept == [3, 5, 6, 7]


async def test_a_gap_in_the_log_is_never_archived(tmp_path: Path) -> None:
    archive = Archive.at(str(tmp_path / "archive"))
    async with EmbeddedNats(tmp_path) as server:
        client = await nats.connect(server.url)
        await client.jetstream().add_stream(name=EVENTS, subjects=["evt.>"], allow_direct=True)
        await set_up(client.jetstream())
        await commit(client, 5)
        await client.jetstream().delete_msg(EVENTS, 3)
        with pytest.raises(Differs, match="goes from 2 to 4: messages are lost"):
            await Archiver(client, archive, segment_bytes=SMALL).update()
        assert await archive.firsts(EVENTS) == []
        await client.close()


async def test_two_archivers_at_once_make_one_chain(filled: Client, tmp_path: Path) -> None:
    archive = Archive.at(str(tmp_path))
    several = [Archiver(filled, archive, segment_bytes=size) for size in (1000, 1700, 2900)]
    await asyncio.gather(*(archiver.update() for archiver in several))
    assert await faults(filled, archive) == {}
    assert (await archive.head(EVENTS)).last == 40


ARCHIVER = """
import asyncio, sys, time, nats
from adapters.archive import store
from adapters.archive.archiver import Archiver
from adapters.objects.folder import Folder

write = Folder._write

def slowly(*arguments, **options):
    time.sleep(0.01)
    return write(*arguments, **options)

Folder._write = slowly

async def main(url, folder):
    await Archiver(await nats.connect(url), store.Archive.at(folder), segment_bytes=1).update()

asyncio.run(main(*sys.argv[1:]))
"""
"""Writes a segment a message, slowly enough to be killed in the middle."""


async def test_a_killed_archiver_leaves_an_archive_that_verifies(filled: Client, tmp_path: Path) -> None:
    """Killed again and again, wherever it is; what it had in hand is done by the next."""
    archive, kills, ended = Archive.at(str(tmp_path)), 0, False
    while not ended:
        before = written_segments(tmp_path)
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", ARCHIVER, address(filled), str(tmp_path))
        waiting = asyncio.create_task(child.wait())
        while not waiting.done() and written_segments(tmp_path) < before + 25:
            await asyncio.sleep(0.005)
        ended = waiting.done()
        if not ended:
            child.kill()
            kills += 1
        assert await waiting == (0 if ended else -signal.SIGKILL)
        assert await faults(filled, archive) == {}
    assert kills >= 2
    assert (await archive.head(OUTCOMES)).last == 40


def address(nc: Client) -> str:
    assert nc.connected_url
    return nc.connected_url.geturl()


async def test_it_follows_through_an_outage_until_it_is_stopped(tmp_path: Path) -> None:
    async with nats_with_streams(tmp_path) as (server, client):
        await commit(client, 3)
        environment = os.environ | {
            "HEADRACE_HOME": str(tmp_path),
            "HEADRACE_NATS_URL": server.url,
            "HEADRACE_ARCHIVE_URL": str(tmp_path / "archive"),
            "HEADRACE_ARCHIVE_EVERY_S": "0.1",
        }
        follower = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ops.cli", "worker", "--role", "archive"),
            env=environment,
            stderr=asyncio.subprocess.PIPE,
        )
        archive = Archive.at(str(tmp_path / "archive"))

        async def archived(count: int) -> None:
            async with asyncio.timeout(30):
                while (await archive.head(OUTCOMES)).last < count:
                    assert follower.returncode is None
                    await asyncio.sleep(0.02)

        await archived(3)
        process = server.daemon.process()
        assert process
        process.kill()
        await asyncio.to_thread(process.wait, 10)
        await server.start()
        await commit(client, 2)
        await archived(5)
        follower.terminate()
        await follower.communicate()
        assert follower.returncode == 0
        assert await faults(client, archive) == {}


async def test_a_blob_that_cannot_be_read_is_reported_and_retried(tmp_path: Path) -> None:
    archive, digest = Archive.at(str(tmp_path / "archive")), hashlib.sha256(b"one").hexdigest()
    async with nats_with_streams(tmp_path) as (_, client):
        await JetStreamBlobs(client).write("acme", digest, b"two")
        await commit(client, 2)
        archiver = Archiver(client, archive, segment_bytes=SMALL)
        assert await archiver.update() == {BLOBS: 0, EVENTS: 2, OUTCOMES: 2, DEAD: 0}
        assert archiver.lost == {f"acme/{digest}": "is not what was stored"}
        assert await faults(client, archive) == {}
        await JetStreamBlobs(client).write("acme", digest, b"one")
        assert (await archiver.update())[BLOBS] == 1
        assert archiver.lost == {}
        assert await archive.blob(digest) == b"one"


# --- a bucket ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The address of an empty bucket, on an S3 server of our own."""
    with S3Server() as server:
        yield server.bucket("backup")


async def test_a_bucket_holds_what_a_folder_does(filled: Client, bucket: str, tmp_path: Path) -> None:
    archive = Archive.at(bucket)
    several = [Archiver(filled, archive, segment_bytes=size) for size in (SMALL, SMALL // 2)]
    await asyncio.gather(*(archiver.update() for archiver in several))
    assert await faults(filled, archive) == {}
    head = await archive.head(EVENTS)
    assert head.message
    with pytest.raises(AlreadyWritten):
        await archive.append(EVENTS, head._replace(last=0), [head.message])
    async with empty(tmp_path) as settings:
        restored = await restore(settings, archive)
        assert restored.last == {EVENTS: 40, OUTCOMES: 40, DEAD: 6}
        client = await nats.connect(settings.nats_url)
        assert await stored(client) == await stored(filled)
        await client.close()


async def test_a_missing_bucket_is_reported(filled: Client, bucket: str) -> None:
    archive = Archive.at(bucket.replace("backup", "nowhere"))
    with pytest.raises(Unavailable, match="nowhere"):
        await Archiver(filled, archive, segment_bytes=SMALL).update()


# --- damage --------------------------------------------------------------------------------------------------


def segments(folder: Path, stream: str = EVENTS) -> list[Path]:
    return sorted((folder / "streams" / stream).iterdir())


def blobs(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "blobs").rglob("*") if path.is_file())


def flip(path: Path, place: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


async def test_every_bit_of_a_segment_counts(folder: Path) -> None:
    segment = segments(folder, DEAD)[0]
    pristine = segment.read_bytes()
    archive = Archive.at(str(folder))
    for place in range(len(pristine)):
        flip(segment, place, place % 8)
        with pytest.raises(Broken, match=segment.name):
            _ = [found async for found in archive.messages(DEAD)]
        segment.write_bytes(pristine)
    assert len([found async for found in archive.messages(DEAD)]) == 1


async def test_a_changed_segment_is_named(filled: Client, folder: Path) -> None:
    second = segments(folder)[1]
    flip(second, second.stat().st_size // 2)
    found = await faults(filled, Archive.at(str(folder)))
    assert found == {"archive": [f"streams/EVENTS/{second.name} has contents that are not what was written."]}


async def test_a_missing_segment_is_named(filled: Client, folder: Path) -> None:
    _, second, third, *_ = segments(folder)
    second.unlink()
    found = await faults(filled, Archive.at(str(folder)))
    after = int(third.name.partition("-")[2])
    assert found == {"archive": [f"streams/EVENTS/{second.name} is missing: the next one begins at {after}."]}


async def test_swapped_segments_are_named(filled: Client, folder: Path, tmp_path: Path) -> None:
    _, second, third, *_ = segments(folder)
    second.rename(tmp_path / "away")
    third.rename(second)
    (tmp_path / "away").rename(third)
    found = await faults(filled, Archive.at(str(folder)))
    after = int(third.name.partition("-")[2])
    assert found == {
        "archive": [f"streams/EVENTS/{second.name} holds EVENTS from {after} on: it was swapped or renamed."]
    }


async def test_a_segment_of_another_history_is_named(filled: Client, folder: Path, tmp_path: Path) -> None:
    """Whole in itself, and in its place, but it does not follow the one before."""
    archive = Archive.at(str(folder))
    second = segments(folder)[1]
    first = int(second.name.partition("-")[2])
    _, messages = await archive.segment(EVENTS, first)
    second.unlink()
    other = await Archive.at(str(folder)).append(
        EVENTS, (await archive.head(EVENTS))._replace(last=first - 1), messages
    )
    assert other.last == messages[-1].sequence
    found = await faults(filled, archive)
    assert found == {"archive": [f"streams/EVENTS/{second.name} does not follow the segment before it."]}


async def test_missing_and_wrong_blobs_are_named(filled: Client, folder: Path) -> None:
    missing, wrong, _ = blobs(folder)
    missing.unlink()
    wrong.write_bytes(b"wrong")
    found = await faults(filled, Archive.at(str(folder)))
    assert set(found) == {"archived blobs"}
    assert set(found["archived blobs"]) == {
        f"{missing.relative_to(folder)} is missing",
        f"{wrong.relative_to(folder)} is not what was written.",
    }


# --- restore -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def empty(tmp_path: Path) -> AsyncIterator[Settings]:
    async with EmbeddedNats(tmp_path / "empty") as server:
        yield Settings.load(home=tmp_path / "empty", nats_url=server.url)


async def held(settings: Settings) -> dict[str, int]:
    client = await nats.connect(settings.nats_url)
    found = {stream: await live(client, stream).last() for stream in STREAMS}
    await client.close()
    return found


async def test_a_broken_chain_is_not_restored_but_what_is_before_it(folder: Path, tmp_path: Path) -> None:
    archive = Archive.at(str(folder))
    third = segments(folder)[2]
    whole = int(third.name.partition("-")[2]) - 1
    flip(third, 900)
    async with empty(tmp_path) as settings:
        with pytest.raises(Broken, match=third.name) as raised:
            await restore(settings, archive)
        assert (raised.value.whole, raised.value.__notes__) == (whole, [EVENTS])
        assert await held(settings) == {EVENTS: 0, OUTCOMES: 0, DEAD: 0}
        restored = await restore(settings, archive, {EVENTS: whole})
        assert restored.last == {EVENTS: whole, OUTCOMES: whole, DEAD: 6}
        client = await nats.connect(settings.nats_url)
        positions = [
            message.events[0].position for message in await replayed(client) if hasattr(message.events[0], "position")
        ]
        assert positions == [Position(EVENTS, number) for number in range(1, whole + 1)]
        await client.close()


async def test_an_interrupted_restore_is_resumed(filled: Client, written: Path, tmp_path: Path) -> None:
    archive = Archive.at(str(written))
    async with empty(tmp_path) as settings:
        assert (await restore(settings, archive, {EVENTS: 7, DEAD: 2})).last == {EVENTS: 7, OUTCOMES: 7, DEAD: 0}
        client = await nats.connect(settings.nats_url)
        headers = {"Headrace-Gap": "1", "Nats-Expected-Last-Sequence": "0"}
        await client.jetstream().publish("dead.gap", b"", headers=headers)
        restored = await restore(settings, archive)
        assert restored.last == {EVENTS: 40, OUTCOMES: 40, DEAD: 6}
        assert await stored(client) == await stored(filled)
        await client.close()


async def test_it_is_restored_onto_a_cluster(filled: Client, folder: Path, tmp_path: Path) -> None:
    archive = Archive.at(str(folder))
    async with NatsCluster(tmp_path / "cluster") as cluster:
        settings = Settings.load(home=tmp_path, nats_url=cluster.urls, replicas=3)
        assert (await restore(settings, archive)).last == {EVENTS: 40, OUTCOMES: 40, DEAD: 6}
        client = await nats.connect(cluster.urls.split(","))
        assert await stored(client) == await stored(filled)
        await commit(client, 2)
        assert (await Archiver(client, archive, segment_bytes=SMALL).update())[EVENTS] == 2
        assert await faults(client, archive) == {}
        await client.close()


async def test_a_log_with_something_else_is_left_alone(written: Path, tmp_path: Path) -> None:
    archive = Archive.at(str(written))
    async with nats_with_streams(tmp_path / "other") as (server, client):
        await commit(client, 2)
        settings = Settings.load(home=tmp_path / "other", nats_url=server.url)
        with pytest.raises(Differs, match="EVENTS differs from the archive at 1"):
            await restore(settings, archive)
        assert await held(settings) == {EVENTS: 2, OUTCOMES: 2, DEAD: 0}


async def test_nothing_is_restored_under_a_running_worker_or_from_nothing(written: Path, tmp_path: Path) -> None:
    async with empty(tmp_path) as settings:
        client = await nats.connect(settings.nats_url)

        async def answer(message: Msg) -> None:
            await message.respond(b"{}")

        await client.subscribe("worker.ingest", cb=answer)
        await client.flush()
        with pytest.raises(Busy, match="role ingest"):
            await restore(settings, Archive.at(str(written)))
        await client.close()
        with pytest.raises(NoArchive):
            await restore(settings, Archive.at(str(tmp_path / "nowhere")))


async def test_lost_blobs_are_reported_and_the_others_restored(folder: Path, tmp_path: Path) -> None:
    missing, wrong, _ = blobs(folder)
    missing.unlink()
    wrong.write_bytes(b"wrong")
    async with empty(tmp_path) as settings:
        restored = await restore(settings, Archive.at(str(folder)))
    assert restored.last[EVENTS] == 40
    assert {(name.partition("/")[2], reason) for name, reason in restored.lost.items()} == {
        (missing.name, "is missing in the archive"),
        (wrong.name, "is not what was archived"),
    }


async def test_a_damaged_blob_of_the_log_is_brought_back(filled: Client, written: Path, tmp_path: Path) -> None:
    archive, digest = Archive.at(str(written)), hashlib.sha256(b"one").hexdigest()
    async with empty(tmp_path) as settings:
        await restore(settings, archive)
        client = await nats.connect(settings.nats_url)
        blobs = JetStreamBlobs(client)
        await blobs.write("acme", digest, b"two")
        with pytest.raises(ValueError, match=digest):
            await blobs.get("acme", digest)
        await restore(settings, archive)
        assert await blobs.get("acme", digest) == b"one"
        await client.close()


# --- the command line ----------------------------------------------------------------------------------------


@pytest.fixture
def headrace(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    for name in list(os.environ):
        if name.startswith("HEADRACE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    return Cli(capsys)


async def test_archive_and_restore_from_the_command_line(
    headrace: Cli, filled: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "No archive is configured" in (await headrace("archive")).err
    assert "must be a folder" in (await headrace("archive", "--archive-url", "ftp://far")).err
    monkeypatch.setenv("HEADRACE_ARCHIVE_URL", str(tmp_path / "archive"))
    assert "There is no archive" in (await headrace("restore")).err

    monkeypatch.setenv("HEADRACE_NATS_URL", address(filled))
    before = {line["stream"]: line for line in (await headrace("archive", "--status", "--json")).lines}
    assert (before[EVENTS]["archived"], before[EVENTS]["waiting"], before[BLOBS]["waiting"]) == (0, 40, 4)
    assert before[EVENTS]["age_s"] > 0
    [added] = (await headrace("archive", "--json")).lines
    assert added == {"added": {BLOBS: 4, EVENTS: 40, OUTCOMES: 40, DEAD: 6}, "lost": {}}
    after = await headrace("archive", "--status")
    assert after.out.count("up to date") == 4
    assert (await Archive.at(str(tmp_path / "archive")).head(EVENTS)).chain in after.out

    monkeypatch.delenv("HEADRACE_NATS_URL")
    refused = await headrace("restore")
    assert (refused.code, "no key to check it. Nothing was restored." in refused.err) == (1, True)
    wrong = await headrace("restore", "--expect", "0" * 64)
    assert (wrong.code, "No segment of the archive has the chain 0000" in wrong.err) == (1, True)
    noted = (await Archive.at(str(tmp_path / "archive")).head(EVENTS)).chain
    [restored] = (await headrace("restore", "--expect", noted, "--json")).lines
    assert restored["last"] == {EVENTS: 40, OUTCOMES: 40, DEAD: 6}
    assert restored["blobs"] == 4
    again = await headrace("restore", "--trust")
    assert (again.code, "0 of EVENTS" in again.out) == (0, True)
    async with EmbeddedNats(tmp_path / "home") as server:
        assert '"sync_interval": "always"' in (tmp_path / "home" / "nats.conf").read_text()
        client = await nats.connect(server.url)
        assert await stored(client) == await stored(filled)
        await client.close()


async def test_a_broken_archive_is_refused_with_what_to_do(headrace: Cli, folder: Path) -> None:
    second = segments(folder, OUTCOMES)[1]
    flip(second, second.stat().st_size - 1)
    refused = await headrace("restore", "--archive-url", str(folder))
    whole = int(second.name.partition("-")[2]) - 1
    assert refused.code == 1
    assert f"{second.name} has contents that are not what was written." in refused.err
    assert f"`headrace restore --until OUTCOMES={whole} --trust`" in refused.err
    assert "is not STREAM=SEQUENCE" in (await headrace("restore", "--archive-url", str(folder), "--until", "9")).err
    less = await headrace("restore", "--archive-url", str(folder), "--until", f"OUTCOMES={whole}", "--trust", "--json")
    assert less.lines[0]["last"] == {EVENTS: 40, OUTCOMES: whole, DEAD: 6}


async def test_a_log_other_than_the_archived_one_is_reported(
    headrace: Cli, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nats_with_streams(tmp_path / "other") as (server, _):
        monkeypatch.setenv("HEADRACE_NATS_URL", server.url)
        sentence = "Stream EVENTS ends at 0, and its archive at 40"
        printed = await headrace("archive", "--archive-url", str(folder))
        assert (printed.code, sentence in printed.err) == (1, True)
        monkeypatch.setenv("HEADRACE_ARCHIVE_URL", str(folder))
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ops.cli", "worker", "--role", "archive"), stderr=asyncio.subprocess.PIPE
        )
        _, error = await asyncio.wait_for(worker.communicate(), 60)
        assert (worker.returncode, sentence in error.decode()) == (1, True)


async def test_the_doctor_says_how_far_behind_the_archive_is(filled: Client, folder: Path, tmp_path: Path) -> None:
    async def archive(url: str, **options: float) -> Finding:
        settings = Settings.load(home=tmp_path, nats_url=address(filled), archive_url=url, **options)
        [finding] = [finding async for finding in examine(settings) if finding.what == "archive"]
        return finding

    assert (await archive("")).found == "not configured"
    assert await archive(str(folder)) == Finding("archive", True, "up to date")
    waiting = await archive(str(tmp_path / "new"))
    assert (waiting.good, waiting.found.partition(" messages")[0]) == (True, str(40 + 40 + 6 + 4))
    async with nats_with_streams(tmp_path / "other") as (server, _):
        settings = Settings.load(home=tmp_path, nats_url=server.url, archive_url=str(folder))
        [reset] = [finding async for finding in examine(settings) if finding.what == "archive"]
        assert (reset.good, reset.found) == (False, "the log ends before its archive: EVENTS, OUTCOMES")
    flip(segments(folder)[-1], 700)
    broken = await archive(str(folder))
    assert (broken.good, "has contents that are not what was written" in broken.found) == (False, True)


def test_a_stranger_can_read_it(folder: Path) -> None:
    script = Path(__file__).parents[3] / "examples" / "read_archive.py"

    def read() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, script, folder, EVENTS], capture_output=True, text=True, check=False)

    result = read()
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["sequence"] for line in lines] == list(range(1, 41))
    assert json.loads(lines[0]["body"])[0]["state"]["name"] == "Rules 0 – ∆"
    assert result.stderr.startswith("EVENTS is whole up to 40, and its chain is ")
    segments(folder)[1].unlink()
    broken = read()
    assert (broken.returncode, "The chain is broken at segment-" in broken.stderr) == (1, True)


# --- people --------------------------------------------------------------------------------------------------


async def test_keys_are_archived_and_an_erased_one_is_replaced(fresh_archive: tuple[Client, Path]) -> None:
    client, folder = fresh_archive
    people = JetStreamKeys(client, AesVault(bytes(32)))
    archive = Archive.at(str(folder))
    archiver = Archiver(client, archive, segment_bytes=SMALL)
    hers, his = [await people.person("acme", name) for name in ("ada", "bob")]
    await JetStreamEventStore(client, people).append(
        Subject("acme", "dataset", "d"),
        Dataset.begin(Dataset.Created, "d", NOW, name="x", description="").pending(),
        Metadata(new_id(), "acme", new_id(), person=hers),
        0,
    )
    await archiver.update()
    assert set(await archive.keys()) == {"_house/names", f"acme/{hers}", f"acme/{his}"}
    kept = await archive.key(f"acme/{hers}")
    assert kept is not None
    assert "key" in json.loads(kept)

    await people.erase("acme", hers)
    await JetStreamEventStore(client).append(
        Subject("acme", "end_user", hers),
        EndUser.begin(EndUser.Erased, hers, NOW, known=True).pending(),
        Metadata(new_id(), "acme", new_id()),
        0,
    )
    await archiver.update()
    assert (await checks(client, archive))["archived keys"].faults == 0
    assert not any(
        json.loads(kept)["key"].encode() in file.read_bytes() for file in folder.rglob("*") if file.is_file()
    )

    await archive.put_key(f"acme/{hers}", kept)
    assert "still has the key" in (await checks(client, archive))["archived keys"].first[0]
    (folder / "keys" / "acme" / hers).unlink()
    assert "is missing" in (await checks(client, archive))["archived keys"].first[0]
    await Archiver(client, archive, segment_bytes=SMALL).update()
    assert (await checks(client, archive))["archived keys"].faults == 0


@pytest.fixture
async def fresh_archive(tmp_path: Path) -> AsyncIterator[tuple[Client, Path]]:
    """A log of the test's own, and a folder for its archive."""
    async with nats_with_streams(tmp_path / "home") as (_, client):
        yield client, tmp_path / "archive"


def test_dead_letters_are_archived_without_words_of_people() -> None:
    headers = {
        "Headrace-Letter-Subject": "cmd.acme.anon.message.send",
        "Headrace-Letter-Reason": "KeyError",
        "other": "x",
    }
    letter = Message(1, "dead.commands.x", "2026-05-04T08:00:00Z", headers, b'{"query": "Why?"}')
    kept = withheld(letter)
    assert (kept.body, "Headrace-Letter-Reason" in kept.headers, kept.headers["other"]) == (b"", False, "x")
    assert withheld(kept) == kept
    headers = {"Headrace-Letter-Subject": "evt.acme.conversation.c", "Headrace-Person": "p"}
    assert withheld(dataclasses.replace(letter, headers=headers)).body == b""
    private = ("cmd.acme.anon.dataset.test", "cmd.acme.dataset.test", "cmd.acme.anon.no.such", "evt.acme.provider.lab")
    for subject in private:
        about = {"Headrace-Letter-Subject": subject}
        assert withheld(dataclasses.replace(letter, headers=about)).body == b""
    for subject in (
        "cmd.acme.anon.app.create",
        "cmd.acme.s_crm.app.create",
        "cmd.acme.app.create",
        "evt.acme.app.x",
        "",
    ):
        plain = dataclasses.replace(letter, headers={"Headrace-Letter-Subject": subject})
        assert withheld(plain) == plain
