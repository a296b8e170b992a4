"""Archives the log, reports the progress, and compares the two."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial

import nats.errors
import structlog
from nats.aio.client import Client as Connection

from adapters.archive import heads
from adapters.archive.store import (
    BLOBS,
    CATALOGUED,
    PER_MESSAGE,
    AlreadyWritten,
    Archive,
    Broken,
    Head,
    beginning,
    blob_path,
)
from adapters.jetstream import streams
from adapters.jetstream.blobs import JetStreamBlobs
from adapters.jetstream.keys import entry
from adapters.jetstream.macs import STREAM as KEY_STREAM
from adapters.jetstream.message import Message
from adapters.jetstream.raw import RawStream
from adapters.jetstream.streams import DEAD
from adapters.jetstream.workers.dead_letters import WITHHELD
from adapters.many import each
from domain.access.actor import CommandSubject
from domain.access.end_user import EndUser
from domain.log import EVENTS, OUTCOMES
from handlers.ports.log import ListedBlobs, Unavailable
from handlers.routes import PRIVATE_NOUNS, is_private
from handlers.work.audit import Check
from handlers.work.progress import Progress, no_progress

log = structlog.get_logger(__name__)

STREAMS = (EVENTS, OUTCOMES, DEAD)
"""Streams that are archived message by message. In DEAD, messages may be missing, since they can be discarded."""

GAPLESS = (EVENTS, OUTCOMES, BLOBS)

FETCHES = 4
"""Maximum number of blobs in memory."""

SKEW = timedelta(hours=1)
"""Maximum difference between the clocks of NATS and of the archive's store."""

LOOK_EVERY_S = 1.0


class Differs(Exception):
    """The log is not the one that was archived, or has lost messages; nothing was overwritten."""


@dataclass(frozen=True, slots=True)
class Behind:
    """Progress of the archive of a stream, and what is missing; `age_s` is the age of the oldest missing message."""

    stream: str
    archived: int
    last: int
    waiting: int
    age_s: float
    chain: str

    @property
    def reset(self) -> bool:
        """The log ends before its archive."""
        return self.stream in (EVENTS, OUTCOMES) and self.last < self.archived


def live(nc: Connection, stream: str) -> RawStream:
    """The stream of the log that is archived under this name."""
    return DeadLetters(nc, DEAD, "dead.>") if stream == DEAD else RawStream(nc, stream)


class DeadLetters(RawStream):
    """The dead letters without words of people: these are not sealed, and an archive could not erase them."""

    async def read(self, after: int, until: int) -> AsyncGenerator[list[Message]]:
        async with aclosing(super().read(after, until)) as chunks:
            async for messages in chunks:
                yield [withheld(message) for message in messages]


def withheld(letter: Message) -> Message:
    """The archived form of a dead letter: only its subject and headers, if it may hold words of people."""
    subject = letter.headers.get("Headrace-Letter-Subject", "")
    kind, _, noun = (*subject.split("."), "", "")[:3]
    private = is_private(CommandSubject.of(subject).name) if kind == "cmd" else noun in PRIVATE_NOUNS
    if "Headrace-Person" not in letter.headers and not private:
        return letter
    headers = {name: value for name, value in letter.headers.items() if name != "Headrace-Letter-Reason"}
    return replace(letter, headers={**headers, WITHHELD: "1"}, body=b"")


def keys_of_people(nc: Connection) -> RawStream:
    """The bucket of keys: every key that was not erased, in order."""
    return RawStream(nc, KEY_STREAM, f"$KV.{streams.KEYS}.>")


# --- archive -------------------------------------------------------------------------------------------------


class Archiver:
    """Keeps the archive up to date. Raises: Unavailable, Broken, Differs."""

    def __init__(
        self,
        nc: Connection,
        archive: Archive,
        *,
        segment_bytes: int,
        key: bytes | None = None,
        progress: Progress = no_progress,
        blobs: ListedBlobs | None = None,
    ) -> None:
        """`key` signs the heads; without one, the archive is not signed. `blobs` are those of JetStream by default."""
        self.lost: dict[str, str] = {}
        """Blobs that the store returns with other bytes, with the reason; retried in each round."""
        self._nc = nc
        self._archive = archive
        self._stored = blobs or JetStreamBlobs(nc)
        self._limit = segment_bytes
        self._progress = progress
        self._key = key
        self._signed: heads.Heads | None = None
        self._heads: dict[str, Head] = {}
        self._known: set[str] = set()
        self._listed = 0
        self._keyed = 0

    async def update(self) -> dict[str, int]:
        """Archive everything in the log now. Return the number of added messages and blobs."""
        if self._key and self._signed is None:
            self._signed = await self._checked(self._key)
        goals = {stream: await self._recognise(stream) for stream in STREAMS}
        # A blob is stored before the commit that names it, so all blobs of commits up to these goals exist.
        # So do the keys of people; and people erased in these commits are erased in the archive.
        await self._keys()
        added = {BLOBS: await self._blobs()}
        for stream, goal in goals.items():
            before = (await self._head(stream)).last
            while not await self._stream(stream, goal):
                del self._heads[stream]
            added[stream] = self._heads[stream].last - before
        await self._sign()
        return added

    async def _checked(self, key: bytes) -> heads.Heads:
        """The signed heads; the archive must go on from them, and after them must hold what the log does.

        Without a signature under this key, that is the whole archive: only then may its heads be signed.
        """
        signed = await heads.signed(self._archive, key) or {}
        for stream in (*STREAMS, BLOBS):
            last, chain = signed.get(stream, (0, beginning(stream)))
            if reason := await heads.fault(self._archive, stream, last, chain):
                raise Differs(f"{reason}: {_ADVICE}")
            if stream != BLOBS:  # a blob is proven by its own digest
                await self._compare(stream, last)
        return signed

    async def _compare(self, stream: str, after: int) -> None:
        async for archived, stored in paired(self._nc, self._archive, stream, after):
            place = f"Message {archived.sequence} of {stream}"
            if stored is None and stream in GAPLESS:
                raise Differs(f"{place} is archived, and not in the log: {_ADVICE}")
            if stored and (field := difference(archived, stored)):
                raise Differs(f"{place} has another {field} than its archive: {_ADVICE}")

    async def _sign(self) -> None:
        found = {stream: await self._head(stream) for stream in (*STREAMS, BLOBS)}
        now = {stream: (head.last, head.chain) for stream, head in found.items()}
        if self._key and now != self._signed:
            await heads.sign(self._archive, self._key, found)
            self._signed = now

    async def _keys(self) -> None:
        source = keys_of_people(self._nc)
        latest: dict[str, Message] = {}
        goal = await source.last()
        async with aclosing(_single(source.read(self._keyed, goal))) as messages:
            async for message in messages:
                latest["/".join(message.subject.split(".")[2:])] = message
        there = await self._archive.keys() if latest else {}
        for name, message in latest.items():
            # A newer entry is the same key under another master secret.
            newer = name not in there or there[name] < datetime.fromisoformat(message.time) + SKEW
            if newer or "erased" in entry(message.body):
                await self._archive.put_key(name, message.body)
        self._keyed = goal

    async def _recognise(self, stream: str) -> int:
        """The end of a stream, which must be the one that was archived."""
        head, source = await self._head(stream), live(self._nc, stream)
        if (end := await source.end()) < head.last:
            raise Differs(f"Stream {stream} ends at {end}, and its archive at {head.last}: {_ADVICE}")
        async with aclosing(_single(source.read(max(0, head.last - 1), head.last))) as messages:
            async for _ in self._following(stream, head, head.last, messages):
                pass
        return await source.last()

    async def due(self, every_s: float) -> None:
        """Wait `seconds` at most, or until there is enough for a segment."""
        began, size = time.monotonic(), await self._size()
        while time.monotonic() - began < every_s and await self._size() - size < self._limit:
            await asyncio.sleep(min(LOOK_EVERY_S, every_s))

    async def _size(self) -> int:
        try:
            infos = [await self._nc.jetstream().stream_info(stream) for stream in (EVENTS, OUTCOMES)]
        except nats.errors.Error as error:
            raise Unavailable(f"NATS does not answer: {error!r}") from error
        return sum(info.state.bytes for info in infos)

    async def _head(self, stream: str) -> Head:
        if stream not in self._heads:
            self._heads[stream] = await self._archive.head(stream)
        return self._heads[stream]

    async def _stream(self, stream: str, goal: int) -> bool:
        """Archive up to and including this sequence; False when another archiver was faster."""
        head = await self._head(stream)
        batch: list[Message] = []
        size = 0
        try:
            async with aclosing(_single(live(self._nc, stream).read(max(0, head.last - 1), goal))) as messages:
                async for message in self._following(stream, head, goal, messages):
                    batch.append(message)
                    size += len(message.body) + PER_MESSAGE
                    if size >= self._limit:
                        await self._append(stream, batch)
                        batch, size = [], 0
                        self._progress(stream, message.sequence, goal)
            if batch:
                await self._append(stream, batch)
        except AlreadyWritten:
            return False
        self._progress(stream, goal, goal)
        return True

    async def _following(
        self, stream: str, head: Head, goal: int, messages: AsyncIterator[Message]
    ) -> AsyncGenerator[Message]:
        """The messages after the head; the message at the head must be the one that was archived."""
        last = max(0, head.last - 1)
        async for message in messages:
            if stream in GAPLESS and message.sequence != last + 1:
                raise Differs(f"Stream {stream} goes from {last} to {message.sequence}: messages are lost; {_ADVICE}")
            last = message.sequence
            if head.message is None or message.sequence > head.last:
                yield message
            elif field := difference(head.message, message):
                raise Differs(f"Message {message.sequence} of {stream} has another {field} than its archive: {_ADVICE}")
        if stream in GAPLESS and last < goal:
            raise Differs(f"Stream {stream} says that it ends at {goal}, and has nothing after {last}: {_ADVICE}")

    async def _append(self, stream: str, messages: list[Message]) -> None:
        self._heads[stream] = await self._archive.append(stream, self._heads[stream], messages)

    async def _blobs(self) -> int:
        """Archive new blobs, then their names. Return their number."""
        if not self._known:
            self._known = await catalogue(self._archive)
        names, added = [name async for name in self._new()], 0
        for start in range(0, len(names), CATALOGUED):
            some, archived = names[start : start + CATALOGUED], list[str]()
            await each(some, partial(self._blob, archived), FETCHES)
            await self._catalogue(archived)
            added += len(archived)
            self._progress(BLOBS, start + len(some), len(names))
        return added

    async def _new(self) -> AsyncGenerator[str]:
        """The names of blobs that are not in the catalogue, those first that were lost before."""
        for name in [*self.lost]:
            yield name
        last, found = self._listed, set(self.lost)
        async with aclosing(self._stored.all(self._listed)) as chunks:
            async for some in chunks:
                last = max(last, *(blob.sequence for blob in some)) if some else last
                for name in [f"{blob.tenant}/{blob.digest}" for blob in some]:
                    if name not in self._known and name not in found:
                        found.add(name)
                        yield name
        self._listed = last

    async def _blob(self, archived: list[str], name: str) -> None:
        """Archive a blob, and add its name; record it as lost when the store returns other bytes.

        One that has been swept since it was listed is not archived.
        """
        tenant, digest = name.split("/")
        try:
            if not await self._archive.has_blob(digest):
                await self._archive.put_blob(digest, await self._stored.get(tenant, digest))
            archived.append(name)
        except KeyError:
            pass
        except ValueError:
            self.lost[name] = "is not what was stored"
            log.error("archive.lost_blob", blob=name, reason=self.lost[name])
            return
        self.lost.pop(name, None)

    async def _catalogue(self, names: list[str]) -> None:
        while names:
            head = await self._head(BLOBS)
            now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
            lines = [Message(head.last + 1 + index, name, now, {}, b"") for index, name in enumerate(names)]
            try:
                await self._append(BLOBS, lines)
            except AlreadyWritten:
                del self._heads[BLOBS]
                self._known = await catalogue(self._archive)
                names = [name for name in names if name not in self._known]
            else:
                self._known.update(names)
                return


_ADVICE = "nothing was written; see docs/archive.md, “When the archive halts”."


async def catalogue(archive: Archive) -> set[str]:
    """The names of all blobs, `<tenant>/<digest>`."""
    return {message.subject async for _, messages in archive.messages(BLOBS) for message in messages}


async def status(nc: Connection, archive: Archive, blobs: ListedBlobs) -> list[Behind]:
    """The progress of the archive, by stream. Raises: Unavailable, Broken."""
    found = []
    for stream in STREAMS:
        head, source = await archive.head(stream), live(nc, stream)
        last, age = await source.last(), 0.0
        async with aclosing(_single(source.read(head.last, last))) as messages:
            async for message in messages:
                age = (datetime.now(UTC) - datetime.fromisoformat(message.time)).total_seconds()
                break
        found.append(Behind(stream, head.last, last, max(0, last - head.last), max(0.0, age), head.chain))
    head, there = await archive.head(BLOBS), set[tuple[str, str]]()
    async with aclosing(blobs.all()) as chunks:
        async for some in chunks:
            there |= {(blob.tenant, blob.digest) for blob in some}
    found.append(Behind(BLOBS, head.last, len(there), max(0, len(there) - head.last), 0.0, head.chain))
    return found


# --- check ---------------------------------------------------------------------------------------------------


async def check(
    nc: Connection, archive: Archive, progress: Progress = no_progress, key: bytes | None = None
) -> AsyncGenerator[Check]:
    """Read the whole archive, and compare it with the log, and its heads with the signature if there is a key.

    Raises: Unavailable.
    """
    chain = Check("archive", "every segment is complete and follows the one before", "archive to a new, empty address")
    same = Check("archived log", "the log equals the archive", "restore the archive to an empty NATS")
    people = People()
    for stream in STREAMS:
        await _compare(nc, archive, stream, chain, same, people, progress)
    yield await _check_keys(archive, people)
    yield await _check_blobs(archive, chain, progress)
    yield chain
    yield same
    if key:
        yield await _check_heads(archive, key)


async def _check_heads(archive: Archive, key: bytes) -> Check:
    found = Check("archived heads", "the archive goes on from what was signed", "see docs/archive.md, “The signature”")
    signed = await heads.signed(archive, key)
    if signed is None:
        found.fault("there is no signature under this key")
    for stream, (last, chain) in (signed or {}).items():
        found.checked += 1
        try:
            if reason := await heads.fault(archive, stream, last, chain):
                found.fault(reason)
        except Broken as error:
            found.fault(str(error))
    return found


async def _compare(
    nc: Connection, archive: Archive, stream: str, chain: Check, same: Check, people: People, progress: Progress
) -> None:
    firsts, last, reached = await archive.firsts(stream), await live(nc, stream).end(), 0
    chain.checked += len(firsts)
    try:
        async for archived, stored in paired(nc, archive, stream):
            reached = archived.sequence
            same.checked += 1
            if stream == EVENTS:
                people.note(archived)
            if stored is None:
                if stream in GAPLESS and reached <= last:
                    same.fault(f"{stream} {reached}: is archived, and missing in the log")
            elif field := difference(archived, stored):
                same.fault(f"{stream} {reached}: its {field} is not what was archived")
            if same.checked % 1000 == 0:
                progress(f"archive of {stream}", reached, max(last, reached))
        if reached > last:
            same.fault(f"{stream} {last + 1}: is archived, and the log ends before it")
    except Broken as error:
        chain.fault(str(error))


@dataclass
class People:
    """The people whose words the log holds, and erased people, as `<tenant>/<person>`."""

    known: set[str] = field(default_factory=set)
    erased: set[str] = field(default_factory=set)

    def note(self, message: Message) -> None:
        _, tenant, noun, id = message.subject.split(".", 3)
        if person := message.headers.get("Headrace-Person"):
            self.known.add(f"{tenant}/{person}")
        if noun == EndUser.TOPIC:
            self.erased.add(f"{tenant}/{id}")


async def _check_keys(archive: Archive, people: People) -> Check:
    found = Check("archived keys", "the archive has the keys of its people, and none of erased ones", "archive again")
    for name in sorted(people.known | people.erased):
        found.checked += 1
        try:
            data = await archive.key(name)
        except ValueError as error:
            found.fault(str(error))
            continue
        if data is None and name in people.known:
            found.fault(f"the key of {name} is missing")
        elif data is not None and name in people.erased and "key" in entry(data):
            found.fault(f"{name} was erased, and the archive still has the key")
    return found


async def _check_blobs(archive: Archive, chain: Check, progress: Progress) -> Check:
    found = Check("archived blobs", "every blob is in the archive, with its digest", "see docs/archive.md, “Repair”")
    try:
        digests = sorted({name.partition("/")[2] for name in await catalogue(archive)})
    except Broken as error:
        chain.fault(str(error))
        return found

    async def look(digest: str) -> None:
        try:
            if await archive.blob(digest) is None:
                found.fault(f"{blob_path(digest)} is missing")
        except ValueError as error:
            found.fault(str(error))
        found.checked += 1
        progress("archived blobs", found.checked, len(digests))

    await each(digests, look, FETCHES)
    return found


async def paired(
    nc: Connection, archive: Archive, stream: str, after: int = 0
) -> AsyncGenerator[tuple[Message, Message | None]]:
    """Every archived message of a stream after a sequence, with the log's message there. Raises: Broken."""
    source = live(nc, stream)
    async with aclosing(_single(source.read(after, await source.last()))) as messages:
        stored = await anext(messages, None)
        async for _, archived in archive.messages(stream, after):
            for message in archived:
                if message.sequence <= after:
                    continue
                while stored and stored.sequence < message.sequence:
                    stored = await anext(messages, None)
                yield message, stored if stored and stored.sequence == message.sequence else None


def difference(archived: Message, stored: Message) -> str | None:
    """The first field in which two messages differ."""
    for name in ("sequence", "subject", "headers", "body", "time"):
        if getattr(archived, name) != getattr(stored, name):
            return name
    return None


async def _single(chunks: AsyncGenerator[list[Message]]) -> AsyncGenerator[Message]:
    async with aclosing(chunks):
        async for messages in chunks:
            for message in messages:
                yield message
