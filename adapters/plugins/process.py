"""A process that speaks JSON lines: one object a line, requests in, replies out, many at once by their ids.

The meaning of the lines is that of a `Dialect`: `protocol` has the one of Headrace's own plugins. The process is not
trusted: a line that is too long, too many lines that no request waits for, and silence each end it.
"""

from __future__ import annotations

import asyncio
from asyncio import StreamReader
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import suppress
from typing import Any, Protocol

import orjson
import structlog

from adapters.sandbox.child import Child

log = structlog.get_logger(__name__)

Message = dict[str, Any]

LONGEST_LINE = 8 * 2**20
"""Maximum size of a line, in bytes."""

MOST_UNREAD = 64 * 2**20
"""Maximum size of requests that a process has not read yet, in bytes."""

MOST_UNASKED = 1000
"""Number of lines in a row that no request waits for, at which the process counts as flooding."""

MOST_REPLIES = 10_000
"""Maximum number of replies to one request that wait to be read."""

MOST_LEFT, MOST_LATE = 100, 16 * 2**20
"""Maximum number of requests that were given up and have not ended, and size of the further replies to one of them, in
bytes."""

LOGGED, LOGGED_S = 100, 60.0
"""Maximum number of lines that are logged of one process in this time, in seconds; further ones are counted."""

LAST_LINES = 20
"""Number of lines of standard error that are kept."""

GRACE_S = 5.0
"""Time that a process has to end by itself when it is closed, in seconds."""

_CHUNK = 2**16


class Ended(Exception):
    """The process has ended, or was ended for a fault; the message says why."""


class Dialect(Protocol):
    """The meaning of the lines of one kind of plugin."""

    ENDS: bool
    """True if the process ends by itself when it is asked to, or its standard input ends."""

    def key(self, message: Message) -> str | None:
        """The id of the request that a line replies to; None for one that replies to none."""
        ...

    def is_last(self, message: Message) -> bool:
        """Return whether no further reply to the request follows."""
        ...

    def is_ready(self, message: Message) -> bool:
        """Return whether the line says that the process has loaded. Raises: Ended, when it says that it cannot."""
        ...

    def unasked(self, message: Message) -> bool:
        """Take a line that replies to no request; return whether the protocol knows it."""
        ...

    def ping(self) -> Message | None:
        """The line that asks for a sign of life; None: the process gives one by itself."""
        ...

    def goodbye(self) -> Message | None:
        """The line that asks the process to end; None: the end of its standard input does."""
        ...


class LineProcess:
    """A process and its lines; `label` are fields for the log."""

    def __init__(self, child: Child, dialect: Dialect, label: dict[str, str]) -> None:
        self._child = child
        self.dialect = dialect
        self._label = label
        self._waiting: dict[str, asyncio.Queue[Message | None]] = {}
        self._left: dict[str, int] = {}
        self._ready = asyncio.Event()
        self._gone = asyncio.Event()
        self._fault: str | None = None
        self._unasked = 0
        self._logged: deque[float] = deque(maxlen=LOGGED)
        self._unlogged = 0
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self.heard = asyncio.get_running_loop().time()
        """Time of the last line, by the loop's clock."""
        self._reading = [asyncio.create_task(self._read()), asyncio.create_task(self._read_errors())]
        self._watching = asyncio.create_task(self._watch())

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def alive(self) -> bool:
        return not self._gone.is_set() and self._child.alive

    @property
    def in_flight(self) -> int:
        return len(self._waiting)

    @property
    def reason(self) -> str:
        """The reason for the end."""
        return self._fault or "It ended."

    async def ready(self) -> None:
        """Wait until it has loaded; the caller sets a time limit. Raises: Ended."""
        ready, gone = asyncio.create_task(self._ready.wait()), asyncio.create_task(self._gone.wait())
        try:
            await asyncio.wait((ready, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
            gone.cancel()
        if not self._ready.is_set() or self._fault:
            raise Ended(self.reason)

    async def gone(self) -> None:
        """Wait for its end."""
        await self._gone.wait()

    def send(self, message: Message) -> None:
        """Write a line. Raises: Ended."""
        if self._gone.is_set():
            raise Ended(self.reason)
        self._child.stdin.write(orjson.dumps(message) + b"\n")
        if self._child.stdin.transport.get_write_buffer_size() > MOST_UNREAD:
            self._fail(f"It has left {MOST_UNREAD:,} bytes unread.")

    async def ask(self, id: str, message: Message) -> AsyncGenerator[Message]:
        """Write a request, and yield the replies to it, up to the last; the caller sets a time limit. Raises: Ended."""
        replies: asyncio.Queue[Message | None] = asyncio.Queue(MOST_REPLIES)
        self._waiting[id] = replies
        ended = False
        try:
            self.send(message)
            while (reply := await replies.get()) is not None:
                ended = self.dialect.is_last(reply)
                yield reply
                if ended:
                    return
            raise Ended(self.reason)
        finally:
            self._waiting.pop(id, None)
            if not ended:
                self._leave(id)

    def _leave(self, id: str) -> None:
        """Pass over further replies to a request that was given up."""
        self._left[id] = 0
        if len(self._left) > MOST_LEFT:
            self._fail(f"It has not ended {MOST_LEFT} requests that were given up.")

    async def close(self) -> None:
        """Ask it to end, and end it if it does not."""
        with suppress(Ended, OSError):
            if goodbye := self.dialect.goodbye():
                self.send(goodbye)
            self._child.stdin.close()
        if self.dialect.ENDS:
            with suppress(TimeoutError):
                async with asyncio.timeout(GRACE_S):
                    await self._gone.wait()
        await self.end("It was closed.")

    async def end(self, reason: str) -> None:
        """Kill it and all that it has started."""
        self._fail(reason)
        await asyncio.shield(self._watching)

    def _fail(self, reason: str) -> None:
        """Note the first fault; replies can come no more."""
        if self._fault is None:
            self._fault = reason
        self._gone.set()
        for replies in self._waiting.values():
            with suppress(asyncio.QueueFull):
                replies.put_nowait(None)

    async def _watch(self) -> None:
        """Wait for the end of the process or for a fault, and clear up."""
        reading, errors = self._reading
        gone = asyncio.create_task(self._gone.wait())
        await asyncio.wait((reading, gone), return_when=asyncio.FIRST_COMPLETED)
        for task in (reading, gone):
            task.cancel()
        await asyncio.wait((reading, gone))
        ending = await self._child.end()
        await asyncio.wait((errors,))
        said = f" {self._last[-1]}" if self._last else ""
        self._fail(f"It ended with status {ending.status}.{said}")

    async def _read(self) -> None:
        """Read lines until the end, or until one breaks a rule."""
        fault = None
        try:
            async for line in lines(self._child.stdout, LONGEST_LINE):
                self._take(line)
                if self._gone.is_set():
                    break
        except Ended as ended:
            fault = str(ended)
        except OSError as error:
            fault = str(error)
        if fault:
            self._fail(fault)

    def _take(self, line: bytes) -> None:
        """Raises: Ended."""
        self.heard = asyncio.get_running_loop().time()
        try:
            message = orjson.loads(line) if line.strip() else {}
        except orjson.JSONDecodeError:
            message = None
        if not isinstance(message, dict):
            self._stray(line)
            return
        if not message:
            return
        if not self._ready.is_set():
            if self.dialect.is_ready(message):
                self._ready.set()
            elif not self.dialect.unasked(message):
                self._stray(line)
            return
        key = self.dialect.key(message)
        if key is not None and (replies := self._waiting.get(key)):
            self._unasked = 0
            if replies.full():
                raise Ended(f"It gave more than {MOST_REPLIES:,} replies to a request.")
            replies.put_nowait(message)
        elif key in self._left:
            self._late(key, message, len(line))
        elif self.dialect.unasked(message):
            self._count()
        else:
            self._stray(line)

    def _late(self, key: str, message: Message, size: int) -> None:
        """Raises: Ended."""
        self._left[key] += size
        if self.dialect.is_last(message):
            del self._left[key]
        elif self._left[key] > MOST_LATE:
            raise Ended(f"It gave {MOST_LATE:,} bytes of replies to a request that was given up.")

    def _stray(self, line: bytes) -> None:
        """A line that is no message, as of a program that prints. Raises: Ended."""
        self._note("plugin.printed", line[:500].decode(errors="replace"))
        self._count()

    def _count(self) -> None:
        self._unasked += 1
        if self._unasked > MOST_UNASKED:
            raise Ended(f"It wrote {MOST_UNASKED:,} lines in a row that nothing waited for.")

    async def _read_errors(self) -> None:
        """Log what it writes to standard error."""
        if self._child.stderr is None:
            return
        async for line in lines(self._child.stderr, 4096, cut=True):
            text = line.decode(errors="replace").rstrip()
            if text:
                self._last.append(text[:500])
                self._note("plugin.says", text[:500])

    def _note(self, event: str, text: str) -> None:
        now = asyncio.get_running_loop().time()
        if len(self._logged) == LOGGED and self._logged[0] > now - LOGGED_S:
            self._unlogged += 1
            return
        self._logged.append(now)
        further = {"left_out": self._unlogged} if self._unlogged else {}
        self._unlogged = 0
        log.info(event, **self._label, text=text, **further)


async def lines(reader: StreamReader, longest: int, *, cut: bool = False) -> AsyncGenerator[bytes]:
    """Yield the lines of a stream without their ends; what follows the last line end is left out, unless `cut`.

    A longer line is cut, or without `cut` raises Ended.
    """
    held = bytearray()
    skipping = False
    while chunk := await reader.read(_CHUNK):
        for part, whole in _parts(chunk):
            if not skipping:
                held += part
            if len(held) > longest:
                if not cut:
                    raise Ended(f"It wrote a line of more than {longest:,} bytes.")
                skipping = True
                del held[longest:]
            if whole:
                yield bytes(held)
                held.clear()
                skipping = False
    if cut and held:
        yield bytes(held)


def _parts(chunk: bytes) -> Iterator[tuple[bytes, bool]]:
    """The pieces of a chunk between line ends, and whether each is the end of a line."""
    *whole, rest = chunk.split(b"\n")
    yield from ((part, True) for part in whole)
    if rest:
        yield rest, False
