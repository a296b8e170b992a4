"""Reads the messages of a subject straight from a stream, many at a time and without a consumer."""

from __future__ import annotations

import asyncio
import itertools

import nats.errors
import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg

from handlers.ports import Unavailable

_BATCH = 1000


class DirectReader:
    """What it reads may lag behind the last write, and has its place in the headers `Nats-Subject`, `Nats-Sequence` and
    `Nats-Time-Stamp`."""

    def __init__(self, nc: Client, *, timeout_s: float) -> None:
        self._nc = nc
        self._timeout = timeout_s
        self._inbox = nc.new_inbox()
        self._tokens = itertools.count()
        self._waiting: dict[str, _Batch] = {}
        self._subscribed = False

    async def messages(self, stream: str, subject: str, *, after: int = 0, limit: int | None = None) -> list[Msg]:
        """The first `limit` messages of a subject whose sequence is greater than `after`, in order.

        Raises: Unavailable.
        """
        found: list[Msg] = []
        while True:
            wanted = _BATCH if limit is None else min(_BATCH, limit - len(found))
            batch = await self._batch(stream, {"batch": wanted, "seq": after + 1, "next_by_subj": subject})
            found += batch.messages
            if not batch.pending or not batch.messages or len(found) == limit:
                return found
            after = int((found[-1].headers or {})["Nats-Sequence"])

    async def _batch(self, stream: str, request: dict[str, object]) -> _Batch:
        """One request: the server sends the messages one by one and ends with a status."""
        if not self._subscribed:
            self._subscribed = True
            await self._nc.subscribe(f"{self._inbox}.*", cb=self._collect)
        token = str(next(self._tokens))
        batch = self._waiting[token] = _Batch()
        try:
            to = f"$JS.API.DIRECT.GET.{stream}"
            await self._nc.publish(to, orjson.dumps(request), reply=f"{self._inbox}.{token}")
            await asyncio.wait_for(batch.ended.wait(), self._timeout)
        except (TimeoutError, nats.errors.Error) as error:
            raise Unavailable(f"NATS does not answer: {error!r}") from error
        finally:
            del self._waiting[token]
        if batch.status == "503":
            raise Unavailable(f"NATS has no stream {stream}, or it has no leader.")
        if batch.status not in ("204", "404"):
            raise Unavailable(f"{stream} cannot be read: status {batch.status}")
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
