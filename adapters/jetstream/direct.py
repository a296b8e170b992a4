"""Direct reads of a subject from a stream, without a consumer: from any server, quickly, or from the leader."""

from __future__ import annotations

import asyncio
import base64
import itertools
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, cast

import nats.errors
import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg

from adapters.jetstream import codec
from adapters.jetstream.bulk import headers
from adapters.jetstream.nats_py import Raw, api, divert, server_info, status, whole
from domain.log import Position, Recorded
from handlers.ports.log import Unavailable

PLACE = (
    "Nats-Stream",
    "Nats-Subject",
    "Nats-Sequence",
    "Nats-Time-Stamp",
    "Nats-Num-Pending",
    "Nats-Last-Sequence",
    "Nats-UpTo-Sequence",
)
"""Headers that the server adds to a message that is read directly."""

_BATCH = 1000
_BYTES = 8 * 2**20
"""Maximum bytes of the answer to one request: without it, the server sends enough to cut off a slow connection."""

_NO_MESSAGE = 10037

_PATIENCE_S = 2.0
"""Maximum wait for one server to answer, in seconds."""

_LEASE_S = 3.0
"""Time after a heartbeat for which a leader is trusted: followers wait 4 s or longer before an election."""


def alone(nc: Client) -> bool:
    """True when the server is no part of a cluster and keeps the streams itself: it serves what it acknowledged."""
    info = server_info(nc)
    return bool(info.get("jetstream")) and not info.get("cluster")


def sequence(message: Msg) -> int:
    return int((message.headers or {})["Nats-Sequence"])


def decoded(stream: str, message: Msg, ciphers: codec.Ciphers, blobs: codec.Fetched) -> Recorded:
    """Decode a message of the stream that was read directly. Raises: Unavailable, when a key or a blob is missing."""
    headers = message.headers or {}
    at, place = datetime.fromisoformat(headers["Nats-Time-Stamp"]), Position(stream, sequence(message))
    return codec.decode(headers["Nats-Subject"], message.data, headers, place, at, ciphers, blobs)


class DirectReader:
    """Messages that it reads carry the headers `Nats-Subject`, `Nats-Sequence` and `Nats-Time-Stamp`."""

    def __init__(self, nc: Client, *, timeout_s: float) -> None:
        self._nc = nc
        self._api = api(nc)
        self._timeout = timeout_s
        self._led_until: dict[str, float] = {}
        self._inbox = nc.new_inbox()
        self._tokens = itertools.count()
        self._waiting: dict[str, _Batch] = {}
        self._subscribed = False

    async def messages(self, stream: str, subject: str, *, after: int = 0, limit: int | None = None) -> list[Msg]:
        """The first `limit` messages of a subject whose sequence is greater than `after`, in order.

        Any server of a cluster answers, and may lag behind the last write: only the newest can be missing. Raises:
        Unavailable.
        """
        found: list[Msg] = []
        while True:
            wanted = _BATCH if limit is None else min(_BATCH, limit - len(found))
            batch = await self._next(stream, subject, after, wanted)
            found += batch.messages
            if not batch.pending or not batch.messages or len(found) == limit:
                return found
            after = sequence(found[-1])

    async def _next(self, stream: str, subject: str, after: int, wanted: int) -> _Batch:
        """The first messages of a subject after a sequence, at most `wanted`, and `_BYTES` or a single one."""
        request = {"batch": wanted, "max_bytes": _BYTES, "seq": after + 1, "next_by_subj": subject}
        return await self._batch(stream, request)

    async def until(self, stream: str, subject: str, after: int, last: int) -> AsyncGenerator[list[Msg]]:
        """The messages of a subject, of which `last` is one or was, in order and in chunks. Raises: Unavailable."""
        while after < last:
            found = (await self._next(stream, subject, after, _BATCH)).messages
            if not found:  # there are none, or the server that answered lags behind
                message = await self._of_leader(stream, {"seq": after + 1, "next_by_subj": subject})
                if message is None:
                    return
                found = [message]
            after = sequence(found[-1])
            yield found

    async def load_from_leader(self, stream: str, subject: str, *, after: int = 0) -> list[Msg]:
        """The messages of a subject whose sequence is greater than `after`, from the stream's leader, which never lags.

        None from a single server, since direct reads of one never lag either.

        Raises: Unavailable.
        """
        found: list[Msg] = []
        while not alone(self._nc):
            message = await self._of_leader(stream, {"seq": after + 1, "next_by_subj": subject})
            if message is None:
                break
            found.append(message)
            after = sequence(message)
        return found

    async def latest(self, stream: str, subjects: Sequence[str]) -> dict[str, Msg]:
        """The last message of each of these subjects (at most 1000) that has one, as any server of a cluster knows it.

        Raises: Unavailable.
        """
        return (await self.newer(stream, subjects, 0))[0]

    async def newer(self, stream: str, subjects: Sequence[str], after: int) -> tuple[dict[str, Msg], int]:
        """As `latest`, of those that have one after a sequence; and the sequence of the last message of the stream, 0
        where it has none of any of these subjects.

        Raises: Unavailable.
        """
        batch = await self._batch(stream, {"multi_last": list(subjects), "batch": _BATCH, "seq": after + 1})
        found = {(message.headers or {})["Nats-Subject"]: message for message in batch.messages}
        return found, batch.through

    async def last(self, stream: str, subject: str) -> Msg | None:
        """The last message of a subject, from the stream's leader. Raises: Unavailable."""
        return await self._of_leader(stream, {"last_by_subj": subject})

    async def at(self, stream: str, sequence: int) -> Msg | None:
        """The message of a sequence, from the stream's leader. Raises: Unavailable."""
        return await self._of_leader(stream, {"seq": sequence})

    async def _of_leader(self, stream: str, request: dict[str, object]) -> Msg | None:
        response = await self._ask(f"STREAM.MSG.GET.{stream}", request)
        while not alone(self._nc) and time.monotonic() > self._led_until.get(stream, 0.0):
            self._led_until[stream] = await self._lease(stream)
            response = await self._ask(f"STREAM.MSG.GET.{stream}", request)
        if refusal := response.get("error"):
            if refusal.get("err_code") == _NO_MESSAGE:
                return None
            raise Unavailable(f"{stream} cannot be read: {refusal.get('description')}")
        found = response["message"]
        found_headers = headers(base64.b64decode(found.get("hdrs", "")))
        place = {
            "Nats-Subject": found["subject"],
            "Nats-Sequence": str(found["seq"]),
            "Nats-Time-Stamp": found["time"],
        }
        data = base64.b64decode(found.get("data", ""))
        return Msg(self._nc, found["subject"], "", data, found_headers | place)

    async def _lease(self, stream: str) -> float:
        """The time (monotonic) until which no other server can lead: a majority has heard from the leader lately.

        A leader that slept or was cut off goes on answering for a while. Raises: Unavailable.
        """
        asked = time.monotonic()
        info = await self._ask(f"STREAM.INFO.{stream}", {})
        if refusal := info.get("error"):
            raise Unavailable(f"{stream} cannot be read: {refusal.get('description')}")
        peers = (info.get("cluster") or {}).get("replicas") or []
        silent: float = sorted([0.0, *(peer["active"] / 1e9 for peer in peers)])[(1 + len(peers)) // 2]
        until = asked - silent + _LEASE_S
        if until < time.monotonic():
            raise Unavailable(f"The leader of {stream} has not heard from the others for {silent:.1f} s.")
        return until

    async def _ask(self, subject: str, request: dict[str, object]) -> dict[str, Any]:
        """The leader's answer. Retried: a leader that dies answers nothing, and the next one only what reaches it.

        Raises: Unavailable.
        """
        deadline = time.monotonic() + self._timeout
        while True:
            left = max(0.001, deadline - time.monotonic())
            try:
                reply = await self._nc.request(f"{self._api}.{subject}", orjson.dumps(request), min(left, _PATIENCE_S))
                return cast("dict[str, Any]", orjson.loads(reply.data))
            except nats.errors.Error as error:
                if left <= _PATIENCE_S or not isinstance(error, nats.errors.TimeoutError):
                    raise Unavailable(f"NATS does not answer, or has no leader for {subject}: {error!r}") from error

    async def _batch(self, stream: str, request: Mapping[str, object]) -> _Batch:
        """One request: the server sends the messages one by one and ends with a status.

        A silent server may hang, so the request is repeated: another server may take it.
        """
        if not self._subscribed:
            self._subscribed = True
            divert(await self._nc.subscribe(f"{self._inbox}.*"), self._collect)
        deadline = time.monotonic() + self._timeout
        batch = None
        while batch is None:
            batch = await self._once(stream, request, deadline)
        if batch.status == "503":
            raise Unavailable(f"NATS has no stream {stream}, or it has no leader.")
        if batch.status not in ("204", "404"):
            raise Unavailable(f"{stream} cannot be read: status {batch.status}")
        return batch

    async def _once(self, stream: str, request: Mapping[str, object], deadline: float) -> _Batch | None:
        """None when no message arrived and there is time for another request."""
        token = str(next(self._tokens))
        batch = self._waiting[token] = _Batch()
        try:
            to = f"{self._api}.DIRECT.GET.{stream}"
            await self._nc.publish(to, orjson.dumps(request), reply=f"{self._inbox}.{token}")
            with suppress(TimeoutError):
                async with asyncio.timeout(min(_PATIENCE_S, deadline - time.monotonic())):
                    await batch.ended.wait()
            left = deadline - time.monotonic()
            if not batch.ended.is_set() and not batch.messages and left > 0:
                return None
            async with asyncio.timeout(left):
                await batch.ended.wait()
        except (TimeoutError, nats.errors.Error) as error:
            raise Unavailable(f"NATS does not answer: {error!r}") from error
        finally:
            del self._waiting[token]
        return batch

    def _collect(self, parts: Raw) -> None:
        batch = self._waiting.get(parts[0].decode().rpartition(".")[2])
        if batch is None:
            return
        message = whole(self._nc, parts)
        if found := status(parts):
            batch.status = found
            stated = message.headers or {}
            batch.pending = int(stated.get("Nats-Num-Pending", 0))
            batch.through = int(stated.get("Nats-UpTo-Sequence", 0))
            batch.ended.set()
        else:
            batch.messages.append(message)


class _Batch:
    def __init__(self) -> None:
        self.messages: list[Msg] = []
        self.status = ""
        self.pending = 0
        self.through = 0
        self.ended = asyncio.Event()
