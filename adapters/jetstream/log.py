"""Replays and follows a stream, in order and without a gap."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from adapters.jetstream import codec
from adapters.jetstream.blobs import JetStreamBlobs
from adapters.jetstream.bulk import Place, Stored, bulk
from adapters.jetstream.keys import JetStreamKeys, people
from adapters.jetstream.large_values import Message, fetch, parts
from domain.access.end_user import EndUser
from domain.log import EVENTS, Commit, Position, Recorded
from handlers.ports.log import Blobs, Unavailable

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_BATCH, _BYTES = 1000, 8 * 2**20
"""Messages, and bytes of them, at which a chunk is complete."""

_AHEAD, _AHEAD_BYTES = 10 * _BATCH, 4 * _BYTES
"""Messages, and bytes of them, that wait here; the server keeps the others."""

SILENCE_S = 2.0
"""Silence, in seconds, after which the stream is asked for a message."""


class JetStreamLog:
    def __init__(self, nc: Client, keys: JetStreamKeys | None = None, blobs: Blobs | None = None) -> None:
        """`blobs` hold large values; those of JetStream by default."""
        self._nc = nc
        self._blobs = blobs or JetStreamBlobs(nc)
        self._js = nc.jetstream()
        self._keys = keys

    async def last(self, stream: str) -> int:
        """The sequence of the stream's last message, 0 when it is empty. Raises: Unavailable."""
        try:
            return int((await self._js.stream_info(stream)).state.last_seq)
        except nats.errors.Error as error:
            raise Unavailable(f"Stream {stream} cannot be read: {error!r}") from error

    async def read(self, stream: str, after: int, *, follow: bool = True) -> AsyncGenerator[Sequence[Recorded]]:
        """As the port."""
        async with aclosing(self.messages(stream, after, follow=follow)) as chunks:
            async for messages in chunks:
                await self.load_keys(stream, messages)
                async for part, blobs in self.whole(stream, messages):
                    yield [self.recorded(stream, message, blobs) for message in part]

    async def load_keys(self, stream: str, messages: Sequence[Msg | Stored]) -> None:
        """Load the keys for these messages. Raises: MissingKey, Unavailable."""
        if self._keys:
            await self._keys.load(people(messages) if stream == EVENTS else [])

    async def whole(
        self, stream: str, messages: Sequence[Message]
    ) -> AsyncGenerator[tuple[Sequence[Message], codec.Fetched]]:
        """The messages in parts, each with its large values. Raises: Unavailable."""
        for part in parts(messages):
            yield part, await fetch(self._blobs, part if stream == EVENTS else [])

    def recorded(self, stream: str, message: Msg | Stored, blobs: codec.Fetched) -> Recorded:
        """Decode a message of the stream; the keys of people must have been loaded, and large values fetched.

        After a message that erases a person, no words of theirs are read, whatever keys exist elsewhere.
        Raises: Unavailable, when a key or a large value is missing.
        """
        found = recorded(stream, message, self._keys or codec.NO_CIPHERS, blobs)
        if self._keys and isinstance(found, Commit) and found.subject.noun == EndUser.TOPIC:
            self._keys.forget(found.subject.tenant, found.subject.id)
        return found

    async def messages(self, stream: str, after: int, *, follow: bool = True) -> AsyncGenerator[Sequence[Msg | Stored]]:
        """As `read`, but the messages as stored."""
        last = await self.last(stream)
        if not follow:
            try:
                async with aclosing(bulk(self._nc, stream, after, last)) as chunks:
                    async for chunk in chunks:
                        after = position(stream, chunk[-1]).sequence
                        yield chunk
            except Unavailable:
                if not await ends(self._js, stream, after):
                    raise
        while follow and await self._reaches(stream, after):
            async with arriving(self._js, stream, after) as arrived:
                while first := await self._next(stream, after, arrived):
                    messages = batch(first, arrived)
                    after = position(stream, messages[-1]).sequence
                    yield messages

    async def _next(self, stream: str, after: int, arrived: Arrivals) -> Msg | None:
        """Wait for the message after a sequence; None when it exists but is not delivered.

        The consumer is gone with its server then, and the client may not have noticed. Raises: Unavailable.
        """
        waiting = False
        while True:
            try:
                async with asyncio.timeout(SILENCE_S):
                    return await arrived.get()
            except TimeoutError:
                if waiting:
                    return None
                waiting = await self.last(stream) != after

    async def _reaches(self, stream: str, after: int) -> bool:
        """True if the stream reaches this sequence, or will once a new leader has caught up."""
        for _ in range(3):
            if await self.last(stream) >= after:
                return True
            await asyncio.sleep(SILENCE_S)
        return False


class Arrivals(asyncio.Queue[Msg]):
    """Messages that have arrived; it is full at `_AHEAD` messages or `_AHEAD_BYTES`."""

    def _init(self, maxsize: int) -> None:
        super()._init(maxsize)
        self._size = 0

    def _put(self, item: Msg) -> None:
        super()._put(item)
        self._size += len(item.data)

    def _get(self) -> Msg:
        item = super()._get()
        self._size -= len(item.data)
        return item

    def full(self) -> bool:
        return super().full() or self._size >= _AHEAD_BYTES


@asynccontextmanager
async def arriving(js: JetStreamContext, stream: str, after: int, subject: str = ">") -> AsyncGenerator[Arrivals]:
    """The messages after a sequence, as they arrive. Raises: Unavailable."""
    arrived = Arrivals(_AHEAD)
    start = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=after + 1)
    try:
        subscription = await js.subscribe(subject, stream=stream, ordered_consumer=True, cb=arrived.put, config=start)
    except nats.errors.Error as error:
        raise Unavailable(f"Stream {stream} cannot be read: {error!r}") from error
    try:
        yield arrived
    finally:
        with suppress(nats.errors.Error):
            await subscription.unsubscribe()


def batch(first: Msg, arrived: Arrivals) -> list[Msg]:
    """A message, and those that have arrived since, up to `_BATCH` messages or `_BYTES`."""
    messages, size = [first], len(first.data)
    while len(messages) < _BATCH and size < _BYTES and not arrived.empty():
        messages.append(arrived.get_nowait())
        size += len(messages[-1].data)
    return messages


async def ends(js: JetStreamContext, stream: str, after: int, subject: str = ">") -> bool:
    """True if no message follows a sequence, although the stream's state may claim so: they were deleted or lost.

    Raises: Unavailable.
    """
    try:
        await js.get_msg(stream, after + 1, subject=subject, next=True)
    except NotFoundError:
        return True
    except nats.errors.Error as error:
        raise Unavailable(f"Stream {stream} cannot be read: {error!r}") from error
    return False


def recorded(stream: str, message: Msg | Stored, ciphers: codec.Ciphers, blobs: codec.Fetched) -> Recorded:
    """Decode a message of the stream; what cannot be decoded is in quarantine.

    Raises: Unavailable, without its key or its large values.
    """
    place = Place.of(message)
    at = _EPOCH + timedelta(microseconds=place.at // 1000)
    where = Position(stream, place.sequence)
    return codec.decode(message.subject, message.data, message.headers or {}, where, at, ciphers, blobs)


def position(stream: str, message: Msg | Stored) -> Position:
    """The position of a message that a consumer delivered."""
    return Position(stream, Place.of(message).sequence)
