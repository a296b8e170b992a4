"""Move blobs to another place, and sweep those that no commit names."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import orjson
from nats.aio.client import Client as Connection

from adapters.jetstream.accounts import ADMIN
from adapters.jetstream.keys import JetStreamKeys
from adapters.jetstream.log import JetStreamLog
from adapters.jetstream.raw import RawStream
from adapters.jetstream.streams import COMMANDS, DEAD
from adapters.many import each
from domain.log import EVENTS, Commit, Quarantined
from handlers.ports.log import BlobPlace, StoredBlob, Unavailable
from handlers.work.progress import Progress
from ops.blob_choice import open_blobs, open_places
from ops.bus import connect
from ops.servers.embedded import EmbeddedNats
from ops.settings import Settings

AT_ONCE = 8
"""Maximum number of blobs in memory."""

REMOVED = 100
"""Blobs that are removed at a time."""

_DIGEST = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")

Name = tuple[str, str]
"""Tenant and digest."""


class NoOldPlace(Exception):
    """The settings name no place that blobs are moved from."""


@dataclass
class Moved:
    """Result: blobs in the new place at the start, those copied and their size, and removed ones.

    `lost` has a reason by the name of a blob that the old place cannot return.
    """

    there: int = 0
    copied: int = 0
    bytes: int = 0
    removed: int = 0
    lost: dict[str, str] = field(default_factory=dict)


@dataclass
class Swept:
    """Result: all blobs; of them, old ones that nothing names, their size, and removed ones."""

    blobs: int = 0
    unnamed: int = 0
    bytes: int = 0
    removed: int = 0


async def move(settings: Settings, progress: Progress, *, drop: bool = False) -> Moved:
    """Copy every blob of the old place that the new one lacks, and read it there. Then `drop` empties the old place.

    Workers may run, if all have these settings. If interrupted, run it again. Raises: NoOldPlace, Unavailable.
    """
    done = Moved()
    async with _administrator(settings) as nc:
        new, *others = open_places(settings, nc)
        if not others:
            raise NoOldPlace
        [old] = others
        moved = {(blob.tenant, blob.digest) for blob in await _all(new)}
        done.there, tried, total = len(moved), set(moved), 0

        async def copy(blob: StoredBlob) -> None:
            name = blob.tenant, blob.digest
            tried.add(name)
            try:
                data = await old.get(*name)
            except KeyError:  # swept since it was listed
                return
            except ValueError:
                done.lost["/".join(name)] = "is not what was stored"
                return
            await new.write(*name, data)
            await new.get(*name)
            moved.add(name)
            done.copied += 1
            done.bytes += len(data)
            progress("blobs", len(tried) - done.there, total)

        # Workers with earlier settings may still write to the old place.
        while left := [blob for blob in await _all(old) if (blob.tenant, blob.digest) not in tried]:
            total += len(left)
            await each(left, copy, AT_ONCE)
        if drop and not done.lost:
            done.removed = await _drop(new, old, moved, progress)
            await old.tidy()
    return done


async def _drop(new: BlobPlace, old: BlobPlace, moved: set[Name], progress: Progress) -> int:
    """Remove from the old place what can be read in the new one. Return the number."""
    blobs, removed = [blob for blob in await _all(old) if (blob.tenant, blob.digest) in moved], 0

    async def read(blob: StoredBlob) -> None:
        await new.get(blob.tenant, blob.digest)

    for some in _parts(blobs):
        await each(some, read, AT_ONCE)
        removed += await old.remove(some)
        progress("old place", removed, len(blobs))
    return removed


async def sweep(settings: Settings, age: timedelta, progress: Progress, *, dry_run: bool = False) -> Swept:
    """Remove the blobs that no commit, waiting command or dead letter names, last put longer ago than `age`.

    Workers may run. Raises: Unavailable, also when a message cannot be read that may name blobs.
    """
    found, until = Swept(), datetime.now(UTC) - age
    async with _administrator(settings) as nc:
        # The blobs first, then the log to its end: what is named later was put later, and is not removed.
        places = [(place, await _all(place)) for place in open_places(settings, nc)]
        found.blobs = sum(len(blobs) for _, blobs in places)
        old = [(place, [blob for blob in blobs if blob.at < until]) for place, blobs in places]
        unnamed = {(blob.tenant, blob.digest) for _, blobs in old for blob in blobs}
        if unnamed:
            await _without_named(settings, nc, unnamed, progress)
        for place, blobs in old:
            swept = [blob for blob in blobs if (blob.tenant, blob.digest) in unnamed]
            found.unnamed += len(swept)
            found.bytes += sum(blob.size for blob in swept)
            if not dry_run:
                for some in _parts(swept):
                    found.removed += await place.remove(some)
                    progress("removed", found.removed, found.unnamed)
                await place.tidy()
    return found


async def _without_named(settings: Settings, nc: Connection, unnamed: set[Name], progress: Progress) -> None:
    """Take out of the set what the log, the queue of commands and the dead letters name."""
    log = JetStreamLog(nc, JetStreamKeys(nc, settings.vault()), open_blobs(settings, nc))
    last = await log.last(EVENTS)
    async with aclosing(log.messages(EVENTS, 0, follow=False)) as chunks:
        async for messages in chunks:
            await log.load_keys(EVENTS, messages)
            async for part, blobs in log.whole(EVENTS, messages):
                for message in part:
                    recorded = log.recorded(EVENTS, message, blobs)
                    if isinstance(recorded, Quarantined) and recorded.newer:
                        reason = f"{EVENTS} {recorded.position.sequence} {recorded.reason}"
                        raise Unavailable(f"Events of a newer version may name blobs: {reason} Upgrade this program.")
                    tenant = message.subject.split(".")[1]
                    unnamed -= {(tenant, digest) for digest in digests(message.data, recorded)}
                progress(EVENTS, recorded.position.sequence, last)
    for stream in (COMMANDS, DEAD):
        source = RawStream(nc, stream)
        async with aclosing(source.read(0, await source.last())) as stored:
            async for some in stored:
                named = {digest for message in some for digest in digests(message.body)}
                unnamed -= {name for name in unnamed if name[1] in named}


def digests(body: bytes, commit: object = None) -> Iterator[str]:
    """Possible names of blobs in a stored message, and in the events of its commit, whose words are opened."""
    texts = [body]
    if isinstance(commit, Commit):
        texts += [orjson.dumps(vars(event), default=str) for event in commit.events]
    for text in texts:
        for match in _DIGEST.findall(text):
            yield match.decode()


def _parts(blobs: Sequence[StoredBlob]) -> Iterator[Sequence[StoredBlob]]:
    for start in range(0, len(blobs), REMOVED):
        yield blobs[start : start + REMOVED]


async def _all(place: BlobPlace) -> list[StoredBlob]:
    async with aclosing(place.all()) as chunks:  # an entry that was replaced meanwhile may come twice
        return [*{(blob.tenant, blob.digest): blob async for some in chunks for blob in some}.values()]


@asynccontextmanager
async def _administrator(settings: Settings) -> AsyncIterator[Connection]:
    """A connection with the right to remove blobs: on one machine, that of the administrator."""
    if not settings.nats_url:
        settings.located("nats")
        address = EmbeddedNats(settings.home).last_url_of(ADMIN)
        settings = settings.model_copy(update={"nats_url": address})
    async with await connect(settings) as client:
        yield client.connection
