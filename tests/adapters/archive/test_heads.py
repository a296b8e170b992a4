"""An archive that was forged: what its signature, a noted hash and the bounds of reading say to it."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from adapters.archive import heads
from adapters.archive.archiver import Archiver, Differs, catalogue, check
from adapters.archive.heads import Proof, Unproven, prove
from adapters.archive.store import BLOBS, FORMAT, Archive, Broken, Segment, largest, path, sha256
from adapters.jetstream.message import Message
from adapters.jetstream.streams import DEAD
from domain.log import EVENTS, OUTCOMES
from ops.servers.embedded import EmbeddedNats
from ops.settings import Settings
from ops.upkeep.restore import _whole, restore
from tests.adapters.archive.test_archive import SMALL, commit, nats_with_streams, segments

KEY = b"the key of this archive"


def message(sequence: int, subject: str, body: str = "{}") -> Message:
    return Message(sequence, subject, "2026-05-04T08:00:00.000000000Z", {}, body.encode())


async def write(folder: Path, words: str = "true", count: int = 4) -> Archive:
    """An archive with two messages a segment, signed."""
    archive = Archive.at(str(folder))
    ends = {}
    for stream, subject in ((EVENTS, "evt.acme.app.1"), (OUTCOMES, "out.acme.1"), (DEAD, "dead.ingest.1")):
        head = await archive.head(stream)
        for first in range(1, count + 1, 2):
            head = await archive.append(stream, head, [message(first + each, subject, words) for each in (0, 1)])
        ends[stream] = head
    await heads.sign(archive, KEY, ends)
    return archive


async def proven(archive: Archive, proof: Proof, until: dict[str, int] | None = None) -> None:
    ends = await _whole(archive, until or {}, lambda *_: None)
    await prove(archive, ends, proof, until or {})


# --- the signature -------------------------------------------------------------------------------------------


async def test_a_signed_archive_is_proven_by_its_key_alone(tmp_path: Path) -> None:
    archive = await write(tmp_path)
    await proven(archive, Proof(KEY))
    with pytest.raises(Unproven, match="no signature under this key"):
        await proven(archive, Proof(b"another key of an archive"))
    with pytest.raises(Unproven, match="there is no key to check it"):
        await proven(archive, Proof())
    (tmp_path / heads.NAME).unlink()
    with pytest.raises(Unproven, match="no signature"):
        await proven(archive, Proof(KEY))


async def test_a_forged_archive_is_consistent_and_refused(tmp_path: Path) -> None:
    await write(tmp_path / "mine")
    forged = await write(tmp_path / "forged", "false")
    shutil.copy(tmp_path / "mine" / heads.NAME, tmp_path / "forged" / heads.NAME)
    with pytest.raises(Unproven, match="EVENTS is not what was signed up to 4: it was changed, or its end is cut off"):
        await proven(forged, Proof(KEY))


async def test_an_end_that_is_cut_off_is_missed(tmp_path: Path) -> None:
    archive = await write(tmp_path)
    segments(tmp_path, OUTCOMES)[-1].unlink()
    with pytest.raises(Unproven, match="OUTCOMES is not what was signed up to 4"):
        await proven(archive, Proof(KEY))
    shutil.rmtree(tmp_path / "streams" / DEAD)
    shutil.rmtree(tmp_path / "streams" / OUTCOMES)
    with pytest.raises(Unproven, match="is not what was signed"):
        await proven(archive, Proof(KEY))


async def test_what_follows_the_signed_end_is_refused_unless_it_is_left_out(tmp_path: Path) -> None:
    archive = await write(tmp_path)
    await archive.append(EVENTS, await archive.head(EVENTS), [message(5, "evt.acme.app.1")])
    with pytest.raises(Unproven, match="EVENTS goes on to 5, and is signed up to 4 only"):
        await proven(archive, Proof(KEY))
    await proven(archive, Proof(KEY), {EVENTS: 4})


@pytest.mark.parametrize("part", ["heads", "signature"])
async def test_a_changed_signature_is_none(part: str, tmp_path: Path) -> None:
    archive = await write(tmp_path)
    body = orjson.loads((tmp_path / heads.NAME).read_bytes())
    body[part] = {EVENTS: [2, "0" * 64]} if part == "heads" else "é"
    (tmp_path / heads.NAME).write_bytes(orjson.dumps(body))
    assert await heads.signed(archive, KEY) is None
    (tmp_path / heads.NAME).write_bytes(b"[1]")
    assert await heads.signed(archive, KEY) is None
    (tmp_path / heads.NAME).write_bytes(b" " * 100_000)
    assert await heads.signed(archive, KEY) is None


async def test_an_earlier_state_with_its_signature_is_found_by_a_noted_hash_alone(tmp_path: Path) -> None:
    archive = await write(tmp_path / "now")
    earlier = await write(tmp_path / "earlier", count=2)
    noted = (await archive.head(EVENTS)).chain
    await proven(earlier, Proof(KEY))
    with pytest.raises(Unproven, match=f"No segment of the archive has the chain {noted}"):
        await proven(earlier, Proof(KEY, frozenset({noted})))
    of_earlier = (await earlier.head(EVENTS)).chain
    await proven(archive, Proof(None, frozenset({noted, of_earlier})))  # it has grown since


# --- the archiver --------------------------------------------------------------------------------------------


async def test_the_archiver_signs_only_what_was_signed_or_is_in_the_log(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    async with nats_with_streams(tmp_path / "home") as (_, client):
        await commit(client, 20)
        archive = Archive.at(str(folder))

        def archiver(key: bytes | None = KEY) -> Archiver:
            return Archiver(client, archive, segment_bytes=SMALL, key=key)

        await archiver(None).update()
        assert not (folder / heads.NAME).exists()
        await archiver().update()
        await proven(archive, Proof(KEY))
        await commit(client, 5)
        await archiver(None).update()  # as if killed before it signed
        with pytest.raises(Unproven, match="signed up to 20 only"):
            await proven(archive, Proof(KEY))
        found = {each.name: each async for each in check(client, archive, key=KEY)}
        assert (found["archived heads"].checked, found["archived heads"].faults) == (4, 0)
        await archiver().update()
        await proven(archive, Proof(KEY))
        found = {each.name: each async for each in check(client, archive, key=KEY)}
        assert (found["archived heads"].checked, found["archived heads"].faults) == (4, 0)

        # Another message in the middle, and the chain after it computed again; the last message stays.
        pristine = shutil.copytree(folder, tmp_path / "pristine")
        await forge(archive, folder)
        with pytest.raises(Differs, match="EVENTS is not what was signed up to 25"):
            await archiver().update()
        found = {each.name: each async for each in check(client, archive, key=KEY)}
        assert found["archived heads"].first == ["EVENTS is not what was signed up to 25"]
        (folder / heads.NAME).unlink()
        with pytest.raises(Differs, match=r"Message 2 of EVENTS has another body than its archive"):
            await archiver().update()
        assert not (folder / heads.NAME).exists()
        shutil.rmtree(folder)
        shutil.copytree(pristine, folder)
        for segment in segments(folder)[1:]:
            segment.unlink()
        with pytest.raises(Differs, match=r"EVENTS ends at \d+, and was signed up to 25"):
            await archiver().update()


async def forge(archive: Archive, folder: Path) -> None:
    parts = [messages async for _, messages in archive.messages(EVENTS)]
    for segment in segments(folder):
        segment.unlink()
    head = await archive.head(EVENTS)
    for messages in parts:
        changed = [replace(each, body=b"[]") if each.sequence == 2 else each for each in messages]
        head = await archive.append(EVENTS, head, changed)


async def test_a_signed_archive_is_restored(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    async with nats_with_streams(tmp_path / "home") as (_, client):
        await commit(client, 5)
        await Archiver(client, Archive.at(str(folder)), segment_bytes=SMALL, key=KEY).update()
    async with EmbeddedNats(tmp_path / "new") as server:
        settings = Settings.load(home=tmp_path / "new", nats_url=server.url)
        with pytest.raises(Unproven):
            await restore(settings, Archive.at(str(folder)), proof=Proof(b"0" * 16))
        restored = await restore(settings, Archive.at(str(folder)), proof=Proof(KEY))
        assert restored.last == {EVENTS: 5, OUTCOMES: 5, DEAD: 0}


# --- bounds and names ----------------------------------------------------------------------------------------


def segment(folder: Path, contents: bytes, stream: str = EVENTS, count: int = 1, last: int = 1) -> None:
    """The first segment of a stream, whose first line is right."""
    line = Segment(FORMAT, stream, 1, last, count, sha256(stream.encode()), sha256(contents)).line()
    file = folder / path(stream, 1)
    file.parent.mkdir(parents=True)
    file.write_bytes(line + contents)


READ = """
import asyncio, resource, sys
from adapters.archive.store import Archive, Broken
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    asyncio.run(Archive.at(sys.argv[1], 2**20).segment("EVENTS", 1))
except Broken as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error)
"""


@pytest.mark.parametrize("line", [b"x" * 100 + b"\n", b"\n", b"x"])
def test_a_bomb_is_refused_in_bounded_memory(line: bytes, tmp_path: Path) -> None:
    segment(tmp_path, zlib.compress(line * (400_000_000 // len(line)), 9))
    assert (tmp_path / path(EVENTS, 1)).stat().st_size < 2_000_000
    done = subprocess.run([sys.executable, "-c", READ, tmp_path], capture_output=True, text=True, check=True)
    kilobytes, reason = done.stdout.split(" ", 1)
    assert f"unpacks to more than {largest(2**20):,} bytes; it is damaged, or was written with a larger" in reason
    assert int(kilobytes) * 1024 < 3 * largest(2**20)


async def test_more_messages_than_fit_into_a_segment_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    segment(tmp_path, b"not even packed", count=10**6, last=10**6)
    with pytest.raises(Broken, match="holds 1,000,000 messages, and at most 33,555 fit into a segment"):
        await Archive.at(str(tmp_path)).segment(EVENTS, 1)


async def test_a_full_segment_of_the_least_compact_messages_is_read(tmp_path: Path) -> None:
    archive = Archive.at(str(tmp_path), 2**20)
    body = "\x01" * 2**19  # each takes six characters as JSON
    messages = [message(sequence, "evt.acme.app.1", body) for sequence in (1, 2, 3)]
    await archive.append(EVENTS, await archive.head(EVENTS), messages)
    assert (await archive.segment(EVENTS, 1))[1] == messages


@pytest.mark.parametrize("size", [largest(16 * 2**20) + 1])
async def test_a_file_that_is_too_large_is_not_read(size: int, tmp_path: Path) -> None:
    file = tmp_path / path(EVENTS, 1)
    file.parent.mkdir(parents=True)
    with file.open("wb") as opened:
        opened.truncate(size)
    with pytest.raises(Broken, match=r"and at most [\d,]+ are read"):
        await Archive.at(str(tmp_path)).segment(EVENTS, 1)


@pytest.mark.parametrize(
    ("stream", "subject"),
    [
        (EVENTS, "cmd.acme.dataset.delete"),
        (EVENTS, "$JS.API.STREAM.DELETE.EVENTS"),
        (EVENTS, "evt.acme app"),
        (OUTCOMES, "evt.acme.app.1"),
        (DEAD, "$KV.keys.acme.p"),
        (BLOBS, "acme/../../../../etc/passwd"),
        (BLOBS, "../" + "0" * 64),
        (BLOBS, "acme/" + "0" * 63),
    ],
)
async def test_a_name_that_cannot_be_there_is_refused(stream: str, subject: str, tmp_path: Path) -> None:
    segment(tmp_path, zlib.compress(message(1, subject).line()), stream)
    with pytest.raises(Broken, match="holds a message, 1, that cannot be of"):
        await (catalogue(Archive.at(str(tmp_path))) if stream == BLOBS else read(tmp_path, stream))


async def read(folder: Path, stream: str) -> list[Message]:
    return [each async for _, messages in Archive.at(str(folder)).messages(stream) for each in messages]


@pytest.mark.parametrize(
    ("sequences", "stream", "reason"),
    [
        ([1, 3], EVENTS, "lacks messages"),
        ([2, 2], EVENTS, "first line"),
        ([3, 2], DEAD, "first line"),
        ([0, 2], DEAD, "first line"),
    ],
)
async def test_sequences_rise_without_gaps(sequences: list[int], stream: str, reason: str, tmp_path: Path) -> None:
    subject = "dead.x" if stream == DEAD else "evt.acme.app.1"
    lines = b"".join(message(sequence, subject).line() for sequence in sequences)
    segment(tmp_path, zlib.compress(lines), stream, 2, sequences[-1])
    with pytest.raises(Broken, match=reason):
        await read(tmp_path, stream)


async def test_bytes_after_the_contents_and_unfinished_ones_are_refused(tmp_path: Path) -> None:
    whole = zlib.compress(message(1, "evt.acme.app.1").line())
    for number, contents in enumerate((whole + b"more", whole[:-3], b"")):
        segment(tmp_path / str(number), contents)
        with pytest.raises(Broken, match="cannot be unpacked"):
            await read(tmp_path / str(number), EVENTS)


async def test_only_expected_names_count(tmp_path: Path) -> None:
    archive = await write(tmp_path)
    nested = tmp_path / "streams" / EVENTS / "deeper" / f"segment-{5:020}"
    nested.parent.mkdir()
    nested.write_bytes(b"")
    assert await archive.firsts(EVENTS) == [1, 3]
    for name in ("acme/p1", "acme/p.q", "acme/x/y", "Acme/p", "acme/*", "p"):
        await asyncio.to_thread(put, tmp_path / "keys" / name)
    assert set(await archive.keys()) == {"acme/p1"}
    (tmp_path / "keys" / "acme" / "p2").write_bytes(b" " * 100_000)
    with pytest.raises(ValueError, match=r"keys/acme/p2 has 100,000 bytes, and at most 65,536 are read\."):
        await archive.key("acme/p2")


def put(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b'{"erased": "x"}')
