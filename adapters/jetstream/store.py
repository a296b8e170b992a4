"""The event store: an aggregate's commits are the messages of one subject of the stream EVENTS."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from adapters.jetstream import codec
from adapters.jetstream.blobs import JetStreamBlobs
from adapters.jetstream.direct import DirectReader, alone, decoded, sequence
from adapters.jetstream.keys import JetStreamKeys, people
from adapters.jetstream.large_values import fetch
from adapters.jetstream.publisher import Publisher
from adapters.jetstream.size import TOO_LARGE, largest, size_of
from adapters.jetstream.streams import NOT_LAST
from adapters.many import each
from adapters.tracing import publishing
from domain.aggregate import Event
from domain.log import EVENTS, Commit, Metadata, Position, Quarantined, Subject
from domain.work.quarantine import Quarantine, quarantine_id
from handlers.ports.log import Blobs, Conflict, Ends, Frozen, TooLarge, Unavailable

_CONFLICTS = NOT_LAST | {10158, 10201}
"""Error codes: another last sequence; the same commit in flight; a retried batch."""


AT_ONCE = 16
"""Maximum number of large values that are stored at a time."""

LARGEST_VALUES = 64 * 2**20
"""Maximum size of the large values of a commit, in bytes: readers have them in memory."""


class JetStreamEventStore:
    def __init__(
        self, nc: Client, keys: JetStreamKeys | None = None, blobs: Blobs | None = None, *, timeout_s: float = 5.0
    ) -> None:
        """`blobs` hold large values; those of JetStream by default."""
        self._nc = nc
        self._blobs = blobs or JetStreamBlobs(nc)
        self._js = nc.jetstream(timeout=timeout_s)
        self._publisher = Publisher(nc, EVENTS, timeout_s=timeout_s)
        self._reader = DirectReader(nc, timeout_s=timeout_s)
        self._keys = keys

    @property
    def largest(self) -> int:
        return largest(self._nc)

    async def load(self, subject: Subject, *, after: int = 0, limit: int | None = None) -> list[Commit]:
        messages = await self._reader.messages(EVENTS, str(subject), after=after, limit=limit)
        return await self._commits(messages)

    async def load_from_leader(self, subject: Subject, *, after: int) -> list[Commit]:
        return await self._commits(await self._reader.load_from_leader(EVENTS, str(subject), after=after))

    async def ends(self, subjects: Sequence[Subject], *, after: int = 0) -> Ends:
        if alone(self._nc):
            found, through = await self._reader.newer(EVENTS, [str(each) for each in subjects], after)
            lasts = [found.get(str(subject)) for subject in subjects]
        else:
            lasts = await asyncio.gather(*(self._reader.last(EVENTS, str(each)) for each in subjects))
            through = min((sequence(last) for last in lasts if last), default=0)
        return Ends({each: sequence(last) for each, last in zip(subjects, lasts, strict=True) if last}, through)

    async def append(self, subject: Subject, events: Sequence[Event], metadata: Metadata, expected: int) -> Position:
        cipher = await self._keys.of(subject.tenant, metadata.person) if self._keys and metadata.person else None
        large: dict[str, bytes] = {}
        body, headers = codec.encode_commit(events, metadata, cipher, large)
        headers["Nats-Expected-Last-Subject-Sequence"] = str(expected)
        if self._keys:
            headers = self._keys.macs.sign(EVENTS, str(subject), headers, body)
        if (size := size_of(body, headers)) > self.largest:
            raise TooLarge(size, self.largest)
        if (values := sum(map(len, large.values()))) > LARGEST_VALUES:
            raise TooLarge(values, LARGEST_VALUES)
        await each(large.values(), partial(self._blobs.put, subject.tenant), AT_ONCE)
        try:
            with publishing(EVENTS):
                ack = await self._publisher.publish(str(subject), body, headers)
        except nats.js.errors.APIError as error:
            if error.err_code == TOO_LARGE:
                raise TooLarge(size, await self._limit()) from error
            if error.err_code not in _CONFLICTS:
                raise Unavailable(f"EVENTS refuses a commit: {error.description}") from error
            if position := await self._own(subject, metadata.id):
                return position
            if (last := await self._after_discarded(subject, expected)) > expected:
                return await self.append(subject, events, metadata, last)
            raise Conflict(str(subject)) from error
        except nats.errors.MaxPayloadError as error:  # the server's limit was lowered a moment ago
            raise TooLarge(size, self.largest) from error
        except nats.errors.Error as error:
            # The acknowledgement was lost, not necessarily the commit.
            if position := await self._own(subject, metadata.id):
                return position
            raise Unavailable(f"NATS does not answer: {error!r}") from error
        if ack.duplicate and not await self._own(subject, metadata.id):
            if await self._reader.messages(EVENTS, str(subject), after=ack.sequence - 1, limit=1):
                raise Conflict(str(subject))
            raise Unavailable(f"EVENTS holds commit {metadata.id} of another aggregate.")
        return Position(EVENTS, ack.sequence)

    async def _limit(self) -> int:
        """The configured maximum size of a message in EVENTS, in bytes. Raises: Unavailable."""
        try:
            return int((await self._js.stream_info(EVENTS)).config.max_msg_size or self.largest)
        except nats.errors.Error as error:
            raise Unavailable(f"NATS does not answer: {error!r}") from error

    async def _own(self, subject: Subject, id: str) -> Position | None:
        """The position of the subject's last commit, if it has this id."""
        last = await self._reader.last(EVENTS, str(subject))
        if last is None or (last.headers or {}).get("Nats-Msg-Id") != id:
            return None
        return Position(EVENTS, sequence(last))

    async def _commits(self, messages: Sequence[Msg]) -> list[Commit]:
        """Decode; what was discarded from the quarantine is left out. Raises: Frozen, Unavailable."""
        if self._keys:
            await self._keys.load(people(messages))
        blobs = await fetch(self._blobs, messages)
        found = [decoded(EVENTS, message, self._keys or codec.NO_CIPHERS, blobs) for message in messages]
        for recorded in found:
            if isinstance(recorded, Quarantined) and not await self._is_discarded(recorded):
                raise Frozen(recorded.subject, recorded)
        return [recorded for recorded in found if isinstance(recorded, Commit)]

    async def _is_discarded(self, message: Quarantined) -> bool:
        quarantine = Subject(message.subject.tenant, Quarantine.TOPIC, quarantine_id(*message.position))
        last = await self._reader.last(EVENTS, str(quarantine))
        return last is not None and isinstance(decoded(EVENTS, last, self._keys or codec.NO_CIPHERS, {}), Commit)

    async def _after_discarded(self, subject: Subject, expected: int) -> int:
        """The sequence of the subject's last message if all after `expected` were discarded; else `expected`."""
        messages = await self._reader.messages(EVENTS, str(subject), after=expected)
        messages += await self._reader.load_from_leader(
            EVENTS, str(subject), after=sequence(messages[-1]) if messages else expected
        )
        if await self._commits(messages):
            return expected
        return sequence(messages[-1]) if messages else expected
