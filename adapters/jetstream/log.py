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
from adapters.jetstream.bulk import Place, Stored, bulk
from adapters.jetstream.keys import JetStreamKeys, people
from domain.access.end_user import EndUser
from domain.log import EVENTS, OUTCOMES, Position, Recorded
from handlers.ports.log import Unavailable

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_BATCH = 1000
_AHEAD = 10 * _BATCH

SILENCE_S = 2.0
"""After so long without a message it is asked whether there is one."""


class JetStreamLog:
    def __init__(self, nc: Client, keys: JetStreamKeys | None = None) -> None:
        self._nc = nc
        self._js = nc.jetstream()
        self._keys = keys

    async def last(self, stream: str) -> int:
        """The sequence of the stream's last message, 0 when it is empty. Raises: Unavailable."""
        try:
            return int((await self._js.stream_info(stream)).state.last_seq)
        except nats.errors.Error as error:
            raise Unavailable(f"Stream {stream} cannot be read: {error!r}") from error

    async def read(self, stream: str, after: int, *, follow: bool = True) -> AsyncGenerator[Sequence[Recorded]]:
        """As the port says; raises codec.UnknownEvent as well."""
        async with aclosing(self.messages(stream, after, follow=follow)) as chunks:
            async for messages in chunks:
                await self.load_keys(stream, messages)
                yield [self.recorded(stream, message) for message in messages]

    async def load_keys(self, stream: str, messages: Sequence[Msg | Stored]) -> None:
        """Have the keys at hand that these messages are read with. Raises: MissingKey, Unavailable."""
        if self._keys and stream == EVENTS:
            await self._keys.load(people(messages))

    def recorded(self, stream: str, message: Msg | Stored) -> Recorded:
        """What a message of the stream says; the keys of people must have been loaded.

        Once it has said that a person was erased, no word of theirs is read any more, whatever keys say elsewhere.
        Raises: codec.UnknownEvent, and whatever a broken one leads to.
        """
        found = recorded(stream, message, self._keys or codec.NO_CIPHERS)
        if self._keys and found.subject.noun == EndUser.TOPIC and stream == EVENTS:
            self._keys.forget(found.subject.tenant, found.subject.id)
        return found

    async def messages(self, stream: str, after: int, *, follow: bool = True) -> AsyncGenerator[Sequence[Msg | Stored]]:
        """What `read` reads, as it is stored."""
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

    async def _next(self, stream: str, after: int, arrived: asyncio.Queue[Msg]) -> Msg | None:
        """The message after a sequence, once there is one; None when there is and does not come: the consumer went with
        its server, and the client may not have noticed. Raises: Unavailable."""
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
        """Whether the stream is as long as this, or will be once a new leader has caught up."""
        for _ in range(3):
            if await self.last(stream) >= after:
                return True
            await asyncio.sleep(SILENCE_S)
        return False


@asynccontextmanager
async def arriving(
    js: JetStreamContext, stream: str, after: int, subject: str = ">"
) -> AsyncGenerator[asyncio.Queue[Msg]]:
    """What comes after a sequence, as it arrives. Raises: Unavailable."""
    arrived: asyncio.Queue[Msg] = asyncio.Queue(_AHEAD)
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


def batch(first: Msg, arrived: asyncio.Queue[Msg]) -> list[Msg]:
    """A message, and those that have arrived after it."""
    messages = [first]
    while len(messages) < _BATCH and not arrived.empty():
        messages.append(arrived.get_nowait())
    return messages


async def ends(js: JetStreamContext, stream: str, after: int, subject: str = ">") -> bool:
    """No message comes after a sequence, though the stream may say so: its last were deleted, or a disk has lost them.

    Raises: Unavailable.
    """
    try:
        await js.get_msg(stream, after + 1, subject=subject, next=True)
    except NotFoundError:
        return True
    except nats.errors.Error as error:
        raise Unavailable(f"Stream {stream} cannot be read: {error!r}") from error
    return False


def recorded(stream: str, message: Msg | Stored, ciphers: codec.Ciphers = codec.NO_CIPHERS) -> Recorded:
    """What a message of the stream says. Raises: codec.UnknownEvent, and whatever a broken one leads to."""
    place = Place.of(message)
    at = _EPOCH + timedelta(microseconds=place.at // 1000)
    header, where = message.headers or {}, Position(stream, place.sequence)
    if stream == OUTCOMES:
        return codec.decode_verdict(message.subject, message.data, header, where, at)
    return codec.decode_commit(message.subject, message.data, header, where, at, ciphers)


def position(stream: str, message: Msg | Stored) -> Position:
    """Where a message that a consumer delivered stands."""
    return Position(stream, Place.of(message).sequence)
