"""The messages of a stream as they are stored, read in order, and restored to a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Self

import nats.errors
import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError

from adapters.jetstream.codec import TIME
from adapters.jetstream.direct import PLACE, DirectReader, sequence
from adapters.jetstream.message import Message
from adapters.jetstream.size import size_of
from handlers.ports.log import Unavailable

_EXPECTED = "Nats-Expected-Last-Sequence"
_FILLER = "Headrace-Gap"
"""Mark of messages that are published for a free sequence, and deleted again."""

_BATCH, _BYTES = 1000, 32 * 2**20
"""Messages and bytes that are unconfirmed at a time."""

_TIMEOUT_S = 10.0


class Occupied(Exception):
    """The stream refuses a message at its sequence: another program writes to it, or the message is too large."""


class RawStream:
    """A stream, or its messages with a subject. Every method raises: Unavailable."""

    def __init__(self, nc: Client, stream: str, subject: str = ">") -> None:
        self._nc = nc
        self._stream = stream
        self._subject = subject
        self._js = nc.jetstream(timeout=_TIMEOUT_S)
        self._direct = DirectReader(nc, timeout_s=_TIMEOUT_S)

    async def end(self) -> int:
        """The sequence of the last message that the stream ever had; 0 when there is no stream."""
        try:
            return int((await self._js.stream_info(self._stream)).state.last_seq)
        except NotFoundError:
            return 0
        except nats.errors.Error as error:
            raise self._away(error) from error

    async def last(self) -> int:
        """The sequence of the last message, from the stream's leader; 0 when there is none, or no stream."""
        if self._subject == ">":
            return await self.end()
        try:
            return int((await self._js.get_last_msg(self._stream, self._subject)).seq or 0)
        except NotFoundError:
            return 0
        except nats.errors.Error as error:
            raise self._away(error) from error

    async def read(self, after: int, until: int) -> AsyncGenerator[list[Message]]:
        """The messages with a sequence greater than `after` and at most `until`, in chunks."""
        async with aclosing(self._direct.until(self._stream, self._subject, after, until)) as chunks:
            async for some in chunks:
                if messages := [message for message in map(_message, some) if message.sequence <= until]:
                    yield messages

    async def put_back(self, after: int, chunks: AsyncIterator[Sequence[Message]], done: Callable[[int], None]) -> int:
        """Publish messages, each at its sequence, onto a stream that ends at `after`. Return the new end.

        Raises: Occupied.
        """
        fillers: list[int] = []
        async with _Window(self._nc, self._stream) as window:
            async for messages in chunks:
                for message in messages:
                    for sequence in range(after + 1, message.sequence):
                        fillers.append(sequence)
                        await window.publish(self._filler(sequence))
                    await window.publish(message)
                    after = message.sequence
                done(after)
        for sequence in fillers:
            await self._delete(sequence)
        return after

    async def drop_fillers(self) -> None:
        """Delete the fillers that an interrupted `put_back` has left."""
        async for messages in self.read(0, await self.last()):
            for message in messages:
                if _FILLER in message.headers:
                    await self._delete(message.sequence)

    def _filler(self, sequence: int) -> Message:
        return Message(sequence, self._subject.replace(">", "gap"), "", {_FILLER: "1"}, b"")

    async def _delete(self, sequence: int) -> None:
        try:
            await self._js.delete_msg(self._stream, sequence)
        except nats.errors.Error as error:
            raise self._away(error) from error

    def _away(self, error: Exception) -> Unavailable:
        return Unavailable(f"Stream {self._stream} does not answer: {error!r}")


class _Window:
    """Publishes messages at their sequences, many unconfirmed at a time; leaving the context waits for all."""

    def __init__(self, nc: Client, stream: str) -> None:
        self._nc = nc
        self._stream = stream
        self._inbox = nc.new_inbox()
        self._open: dict[int, int] = {}
        """Sizes by sequence, in bytes."""
        self._unconfirmed = 0
        """Sum of these."""
        self._freed = asyncio.Event()
        self._refused: Occupied | None = None

    async def __aenter__(self) -> Self:
        self._answers = await self._nc.subscribe(f"{self._inbox}.*", cb=self._hear)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self._until(0, 0)
        finally:
            await self._answers.unsubscribe()

    async def publish(self, message: Message) -> None:
        """Raises: Unavailable; Occupied, for this or an earlier message."""
        await self._until(_BATCH - 1, _BYTES)
        # Messages after a refused one are refused, too, since their sequences are not the next.
        headers = {**message.headers, TIME: message.time, _EXPECTED: str(message.sequence - 1)}
        if (size := size_of(message.body, headers)) > self._nc.max_payload:
            reason = f"it has {size:,} bytes, and the server takes {self._nc.max_payload:,} (max_payload)"
            raise Occupied(f"{self._stream} does not take message {message.sequence}: {reason}.")
        self._open[message.sequence] = size
        self._unconfirmed += size
        try:
            reply = f"{self._inbox}.{message.sequence}"
            await self._nc.publish(message.subject, message.body, reply=reply, headers=headers)
        except nats.errors.Error as error:
            raise Unavailable(f"Stream {self._stream} does not answer: {error!r}") from error

    async def _until(self, few: int, size: int) -> None:
        """Wait until at most `few` messages, and `size` bytes, are unconfirmed."""
        while (len(self._open) > few or self._unconfirmed > size) and not self._refused:
            self._freed.clear()
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    await self._freed.wait()
            except TimeoutError as error:
                raise Unavailable(f"Stream {self._stream} does not confirm message {min(self._open)}.") from error
        if self._refused:
            raise self._refused

    async def _hear(self, message: Msg) -> None:
        sequence = int(message.subject.rpartition(".")[2])
        answer = orjson.loads(message.data or b"{}")
        if answer.get("seq") == sequence and not answer.get("duplicate"):
            self._unconfirmed -= self._open.pop(sequence, 0)
        elif not self._refused:
            reason = answer.get("error", {}).get("description") or f"it is at {answer.get('seq')}"
            self._refused = Occupied(f"{self._stream} does not take message {sequence}: {reason}.")
        self._freed.set()


def _message(message: Msg) -> Message:
    stated = message.headers or {}
    headers = {name: value for name, value in stated.items() if name not in (*PLACE, _EXPECTED, TIME)}
    time = stated.get(TIME) or _in_nanoseconds(stated["Nats-Time-Stamp"])
    return Message(sequence(message), stated["Nats-Subject"], time, headers, message.data)


def _in_nanoseconds(time: str) -> str:
    """A time in UTC with nine decimals, of which the server leaves out the last zeros."""
    second, _, fraction = time.removesuffix("Z").partition(".")
    return f"{second}.{fraction:0<9}Z"
