"""Replays and follows a stream, in order and without a gap."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import UTC, datetime, timedelta

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig, DeliverPolicy

from adapters.jetstream import codec
from domain.log import EVENTS, OUTCOMES, Position, Recorded
from handlers.ports import Unavailable

_DECODE: dict[str, Callable[..., Recorded]] = {EVENTS: codec.decode_commit, OUTCOMES: codec.decode_verdict}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_BATCH = 1000
_AHEAD = 10 * _BATCH


class JetStreamLog:
    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._js = nc.jetstream()

    async def last(self, stream: str) -> int:
        """The sequence of the stream's last message, 0 when it is empty. Raises: Unavailable."""
        try:
            return int((await self._js.stream_info(stream)).state.last_seq)
        except nats.errors.Error as error:
            raise Unavailable(f"Stream {stream} cannot be read: {error!r}") from error

    async def read(self, stream: str, after: int, *, follow: bool = True) -> AsyncGenerator[Sequence[Recorded]]:
        """As the port says; raises codec.UnknownEvent as well."""
        last = await self.last(stream)
        if not follow and after >= last:
            return
        arrived: asyncio.Queue[Msg] = asyncio.Queue(_AHEAD)
        start = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=after + 1)
        try:
            subscription = await self._js.subscribe(
                ">", stream=stream, ordered_consumer=True, cb=arrived.put, config=start
            )
        except nats.errors.Error as error:
            raise Unavailable(f"Stream {stream} cannot be read: {error!r}") from error
        try:
            while follow or after < last:
                messages = [await arrived.get()]
                while len(messages) < _BATCH and not arrived.empty():
                    messages.append(arrived.get_nowait())
                batch = [_recorded(stream, message) for message in messages]
                after = batch[-1].position.sequence
                yield batch
        finally:
            await subscription.unsubscribe()


def _recorded(stream: str, message: Msg) -> Recorded:
    # $JS.ACK.<stream>.<consumer>.<delivered>.<stream sequence>.<consumer sequence>.<nanoseconds>.<pending>
    place = message.reply.split(".")
    at = _EPOCH + timedelta(microseconds=int(place[-2]) // 1000)
    return _DECODE[stream](message.subject, message.data, message.headers or {}, Position(stream, int(place[-4])), at)
