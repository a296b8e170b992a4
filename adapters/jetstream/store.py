"""The event store: an aggregate's commits are the messages of one subject of the stream EVENTS."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from datetime import datetime

import nats.errors
import nats.js.errors
import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import RawStreamMsg

from adapters.jetstream import codec
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

_BATCH = 1000


class JetStreamEventStore:
    def __init__(self, nc: Client, *, timeout_s: float = 5.0) -> None:
        self._nc = nc
        self._js = nc.jetstream(timeout=timeout_s)
        self._timeout = timeout_s
        self._inbox = nc.new_inbox()
        self._tokens = itertools.count()
        self._waiting: dict[str, _Batch] = {}
        self._subscribed = False

    async def load(self, subject: Subject, *, after: int = 0, limit: int | None = None) -> list[Commit]:
        commits: list[Commit] = []
        while True:
            wanted = _BATCH if limit is None else min(_BATCH, limit - len(commits))
            batch = await self._batch({"batch": wanted, "seq": after + 1, "next_by_subj": str(subject)})
            commits += [_commit(message) for message in batch.messages]
            if not batch.pending or not batch.messages or len(commits) == limit:
                return commits
            after = commits[-1].position.sequence

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

    async def _batch(self, request: dict[str, object]) -> _Batch:
        """A direct get of many messages: the server sends them one by one and ends with a status."""
        if not self._subscribed:
            self._subscribed = True
            await self._nc.subscribe(f"{self._inbox}.*", cb=self._collect)
        token = str(next(self._tokens))
        batch = self._waiting[token] = _Batch()
        try:
            await self._nc.publish(
                f"$JS.API.DIRECT.GET.{EVENTS}", orjson.dumps(request), reply=f"{self._inbox}.{token}"
            )
            await asyncio.wait_for(batch.ended.wait(), self._timeout)
        except _UNAVAILABLE as error:
            raise Unavailable(f"NATS does not answer: {error!r}") from error
        finally:
            del self._waiting[token]
        if batch.status not in ("204", "404"):
            raise Unavailable(f"EVENTS cannot be read: status {batch.status}")
        return batch

    async def _collect(self, message: Msg) -> None:
        batch = self._waiting.get(message.subject.rpartition(".")[2])
        if batch is None:
            return
        headers = message.headers or {}
        if "Status" not in headers:
            batch.messages.append(message)
        else:
            batch.status = headers["Status"]
            batch.pending = int(headers.get("Nats-Num-Pending", 0))
            batch.ended.set()


class _Batch:
    def __init__(self) -> None:
        self.messages: list[Msg] = []
        self.status = ""
        self.pending = 0
        self.ended = asyncio.Event()


def _commit(message: Msg) -> Commit:
    headers = message.headers or {}
    at = datetime.fromisoformat(headers["Nats-Time-Stamp"])
    position = Position(EVENTS, int(headers["Nats-Sequence"]))
    return codec.decode_commit(headers["Nats-Subject"], message.data, headers, position, at)
