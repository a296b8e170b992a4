"""Replays and follows a stream, in order and without a gap."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig, DeliverPolicy

from adapters.jetstream import codec
from domain.log import EVENTS, OUTCOMES, Position, Recorded

_DECODE: dict[str, Callable[..., Recorded]] = {EVENTS: codec.decode_commit, OUTCOMES: codec.decode_verdict}

_BATCH = 5000
_AHEAD = 2 * _BATCH


class JetStreamLog:
    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._js = nc.jetstream()

    async def last(self, stream: str) -> int:
        """The sequence of the stream's last message, 0 when it is empty."""
        return int((await self._js.stream_info(stream)).state.last_seq)

    async def read(self, stream: str, after: int, *, follow: bool = True) -> AsyncGenerator[Sequence[Recorded]]:
        """As the port says; raises codec.UnknownEvent as well."""
        last = await self.last(stream)
        if not follow and after >= last:
            return
        queue: asyncio.Queue[Msg] = asyncio.Queue(_AHEAD)
        subscription = await self._js.subscribe(
            ">",
            stream=stream,
            ordered_consumer=True,
            cb=queue.put,
            config=ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=after + 1),
        )
        try:
            while follow or after < last:
                messages = [await queue.get()]
                while len(messages) < _BATCH and not queue.empty():
                    messages.append(queue.get_nowait())
                batch = [_recorded(stream, message) for message in messages]
                after = batch[-1].position.sequence
                yield batch
        finally:
            await subscription.unsubscribe()


def _recorded(stream: str, message: Msg) -> Recorded:
    metadata = message.metadata
    position = Position(stream, metadata.sequence.stream)
    return _DECODE[stream](message.subject, message.data, message.headers or {}, position, metadata.timestamp)
