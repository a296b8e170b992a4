"""Restore of the log and its blobs from the archive to an empty NATS, each message at its sequence."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

import orjson

from adapters.archive.archiver import (
    FETCHES,
    GAPLESS,
    STREAMS,
    Differs,
    catalogue,
    difference,
    keys_of_people,
    live,
    paired,
)
from adapters.archive.heads import Proof, prove
from adapters.archive.store import BLOBS, Archive, Broken
from adapters.jetstream.client import Client
from adapters.jetstream.keys import NAMES, entry
from adapters.jetstream.macs import STATEMENT
from adapters.jetstream.message import Message
from adapters.many import each
from adapters.privacy.vault import PEOPLE, UnknownKey
from domain.access.tenant import HOUSE
from domain.log import EVENTS, OUTCOMES
from handlers.ports.log import ListedBlobs
from handlers.work.progress import Progress, no_progress
from ops.roles import EVERY
from ops.servers.embedded import EmbeddedNats, create_home
from ops.settings import Settings
from ops.supervisor import answers, claimed
from ops.wiring import Wiring


class Busy(Exception):
    """A worker uses this log; nothing was restored."""


class NoArchive(Exception):
    """There is no archive at this address."""


@dataclass
class Restored:
    """Result: last sequence and published messages by stream, number of blobs, and a reason by missing blob."""

    last: dict[str, int] = field(default_factory=dict)
    published: dict[str, int] = field(default_factory=dict)
    blobs: int = 0
    lost: dict[str, str] = field(default_factory=dict)


async def restore(
    settings: Settings,
    archive: Archive,
    until: Mapping[str, int] | None = None,
    progress: Progress = no_progress,
    proof: Proof | None = None,
    *,
    other_secret: bool = False,
) -> Restored:
    """Restore the archive, or each stream up to and including a sequence; resume an interrupted restore.

    The archive is read and verified completely before the first message is published. Without `proof`, the caller
    vouches that it is genuine. With `other_secret`, it may have been written with another secret key: its messages are
    accepted as they are.
    Raises: NoArchive, Broken, Unproven, UnknownKey, Busy, Differs, Unavailable, Occupied.
    """
    until = until or {}
    ends = await _whole(archive, until, progress)
    if proof:
        await prove(archive, ends, proof, until)
    # From here on, every message that is published comes from an authenticated archive, or one that was vouched for.
    async with Wiring(settings, "restore") as wiring:
        await idle(Client(wiring.nc, settings.tenant))
        for stream in STREAMS:
            await _agree(wiring, archive, stream, until)
        restored = Restored()
        last = {stream: max(ends[stream], default=0) for stream in (EVENTS, OUTCOMES)}
        unmarked = await wiring.keys.macs.restore(await archive.key(STATEMENT), last, other_secret=other_secret)
        await _keys(wiring, archive, unmarked, other_secret=other_secret)
        await _blobs(wiring.blobs, archive, restored, progress)
        for stream in STREAMS:
            await _stream(wiring, archive, stream, until, restored, progress)
    return restored


@asynccontextmanager
async def nats_of(settings: Settings) -> AsyncIterator[Settings]:
    """The settings with the address of a NATS: the configured one, or an embedded one that runs within this context.

    Raises: AlreadyRunning when the embedded one is already running.
    """
    if settings.nats_url:
        yield settings
        return
    create_home(settings.home)
    with claimed(settings.home):
        # No sync per message: it takes ten times as long, and after a power cut the restore runs again.
        async with EmbeddedNats(settings.home, sync="2m", program=settings.nats_server) as server:
            yield settings.model_copy(update={"nats_url": server.url})
        await asyncio.to_thread(os.sync)


async def _whole(archive: Archive, until: Mapping[str, int], progress: Progress) -> dict[str, dict[int, str]]:
    """The hash of the chain by the last sequence of each segment, by stream. Raises: NoArchive, Broken."""
    ends: dict[str, dict[int, str]] = {}
    for stream in (*STREAMS, BLOBS):
        chains = ends[stream] = {}
        end = (await archive.firsts(stream) or [0])[-1]
        try:
            async for segment, _ in archive.messages(stream):
                chains[segment.last] = segment.chain
                progress(f"look at {stream}", segment.first, end)
        except Broken as broken:
            if broken.whole >= until.get(stream, broken.whole + 1):
                continue
            broken.add_note(stream)
            raise
    if not any(ends.values()):
        raise NoArchive("There is no archive at this address.")
    return ends


async def idle(client: Client) -> None:
    """Raises: Busy."""
    for role in (*EVERY, "all"):
        if await answers(client, role, 0.5) is not None:
            raise Busy(f"A worker with role {role} runs: stop all workers before you restore.")


async def _agree(wiring: Wiring, archive: Archive, stream: str, until: Mapping[str, int]) -> None:
    """Check that the stream is a prefix of the archive. Raises: Differs."""
    source = live(wiring.nc, stream)
    if stream not in GAPLESS:
        await source.drop_fillers()
    last, end = await source.last(), 0
    async for archived, stored in paired(wiring.nc, archive, stream):
        if archived.sequence > min(last, until.get(stream, last)):
            break
        end = archived.sequence
        missing = stored is None and stream in GAPLESS
        if missing or (stored and difference(archived, stored)):
            raise Differs(f"{stream} differs from the archive at {end}: {_EMPTY}")
    if last > end:
        raise Differs(f"{stream} holds {last} messages, of which the archive has {end}: {_EMPTY}")


_EMPTY = "restore onto an empty NATS. Nothing was changed."


async def _stream(
    wiring: Wiring, archive: Archive, stream: str, until: Mapping[str, int], restored: Restored, progress: Progress
) -> None:
    source = live(wiring.nc, stream)
    before = await source.end()
    end = until.get(stream) or (await archive.head(stream)).last
    history = _history(archive, stream, before, until)
    restored.last[stream] = await source.put_back(before, history, lambda done: progress(stream, done, end))
    restored.published[stream] = restored.last[stream] - before
    progress(stream, end, end)


async def _history(
    archive: Archive, stream: str, after: int, until: Mapping[str, int]
) -> AsyncGenerator[list[Message]]:
    """Messages to publish; of OUTCOMES, only those whose commits are restored as well."""
    async for segment, messages in archive.messages(stream, after):
        wanted = [message for message in messages if after < message.sequence <= until.get(stream, segment.last)]
        if stream == OUTCOMES and EVENTS in until:
            kept = [message for message in wanted if _of(message) <= until[EVENTS]]
            if len(kept) < len(wanted):
                first = next(message for message in wanted if _of(message) > until[EVENTS])
                yield wanted[: wanted.index(first)]
                return
        yield wanted
        if segment.last >= until.get(stream, segment.last + 1):
            return


def _of(outcome: Message) -> int:
    """Sequence of the commit that an outcome names; 0 for none."""
    return orjson.loads(outcome.body).get("sequence") or 0


async def _keys(wiring: Wiring, archive: Archive, unmarked: bool, *, other_secret: bool) -> None:
    """Restore people's keys and the marks of erased people; existing entries of the bucket are kept.

    With `other_secret`, a key of names that cannot be read is left out: each name is a new person's.
    """
    there = {STATEMENT}
    source = keys_of_people(wiring.nc)
    async with aclosing(source.read(0, await source.last())) as chunks:
        async for messages in chunks:
            there |= {"/".join(message.subject.split(".")[2:]) for message in messages}

    async def put(name: str) -> None:
        if (data := await archive.key(name)) and entry(data):
            tenant, _, person = name.partition("/")
            if other_secret and name == f"{HOUSE}/{NAMES}" and not _opens(wiring, data):
                return
            await wiring.keys.put_back(tenant, person, data, unmarked=unmarked)

    await each(sorted(set(await archive.keys()) - there), put, FETCHES)


def _opens(wiring: Wiring, kept: bytes) -> bool:
    try:
        wiring.vault.open(HOUSE, entry(kept).get("key", ""), PEOPLE)
    except (UnknownKey, ValueError):
        return False
    return True


async def _blobs(blobs: ListedBlobs, archive: Archive, restored: Restored, progress: Progress) -> None:
    names = sorted(await catalogue(archive))

    async def put(name: str) -> None:
        tenant, digest = name.split("/")
        try:
            await blobs.get(tenant, digest)
        except (KeyError, ValueError):
            try:
                data = await archive.blob(digest)
            except ValueError:
                restored.lost[name] = "is not what was archived"
                return
            if data is None:
                restored.lost[name] = "is missing in the archive"
                return
            await blobs.write(tenant, digest, data)
        restored.blobs += 1
        progress(BLOBS, restored.blobs, len(names))

    await each(names, put, FETCHES)
