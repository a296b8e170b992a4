"""The event store: an aggregate's commits are the messages of one subject of the stream EVENTS."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import RawStreamMsg

from adapters.jetstream import codec
from adapters.jetstream.direct import DirectReader
from domain.aggregate import Event
from domain.log import EVENTS
from handlers.ports import Commit, Conflict, Metadata, Position, Subject, Unavailable

_WRONG_LAST_SEQUENCE = {10071, 10164, 10201}
"""One replica or a stale value; three replicas, a race in flight; a batch tried again."""

_UNAVAILABLE = (
    nats.errors.Error,
    nats.js.errors.ServiceUnavailableError,
    nats.js.errors.NoStreamResponseError,
    asyncio.TimeoutError,
)


class JetStreamEventStore:
    def __init__(self, nc: Client, *, timeout_s: float = 5.0) -> None:
        self._js = nc.jetstream(timeout=timeout_s)
        self._reader = DirectReader(nc, timeout_s=timeout_s)

    async def load(self, subject: Subject, *, after: int = 0, limit: int | None = None) -> list[Commit]:
        messages = await self._reader.messages(EVENTS, str(subject), after=after, limit=limit)
        return [_commit(message) for message in messages]

    async def append(self, subject: Subject, events: Sequence[Event], metadata: Metadata, expected: int) -> Position:
        body, headers = codec.encode_commit(events, metadata)
        headers["Nats-Expected-Last-Subject-Sequence"] = str(expected)
        try:
            ack = await self._js.publish(str(subject), body, stream=EVENTS, headers=dict(headers))
        except nats.js.errors.APIError as error:
            if error.err_code not in _WRONG_LAST_SEQUENCE:
                raise Unavailable(f"EVENTS does not take a commit: {error.description}") from error
            if position := await self._own(subject, metadata.id):
                return position
            raise Conflict(str(subject)) from error
        except _UNAVAILABLE as error:
            # The acknowledgement is lost, not necessarily the commit.
            if position := await self._own(subject, metadata.id):
                return position
            raise Unavailable(f"NATS does not answer: {error!r}") from error
        if ack.duplicate and not await self._own(subject, metadata.id):
            raise Unavailable(f"EVENTS holds commit {metadata.id} of another aggregate.")
        return Position(EVENTS, ack.seq)

    async def _own(self, subject: Subject, id: str) -> Position | None:
        """Where the subject's last commit is, if it has this id; read through the leader, which is never behind."""
        try:
            last: RawStreamMsg = await self._js.get_last_msg(EVENTS, str(subject))
        except nats.js.errors.NotFoundError:
            return None
        except _UNAVAILABLE as error:
            raise Unavailable(f"NATS does not answer: {error!r}") from error
        return Position(EVENTS, int(last.seq or 0)) if (last.headers or {}).get("Nats-Msg-Id") == id else None


def _commit(message: Msg) -> Commit:
    headers = message.headers or {}
    at = datetime.fromisoformat(headers["Nats-Time-Stamp"])
    position = Position(EVENTS, int(headers["Nats-Sequence"]))
    return codec.decode_commit(headers["Nats-Subject"], message.data, headers, position, at)
