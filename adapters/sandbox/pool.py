"""Contained processes of one program that answer requests, each for one tenant only."""

from __future__ import annotations

import asyncio
import json
import signal
from asyncio import IncompleteReadError, Task, TimerHandle
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from adapters.sandbox.child import Child, Limits, Sandbox
from adapters.sandbox.serve import READY, REPLY, REQUEST
from handlers.ports.log import Unavailable
from handlers.work.turns import Turns

USES = 500
"""Number of requests that a child answers before a new child replaces it, by default."""

IDLE_S = 60.0
"""Time after which a child without requests ends, in seconds."""

KEPT = 6
"""Maximum number of processes that wait for further requests."""

START_S = 60.0
"""Maximum time of a start, in seconds."""

MOST_REPLY = 2**29
"""Maximum size of a reply, in bytes, where a program has no smaller one."""


_OUT_OF_MEMORY = (b"MemoryError", b"memory allocation of", b"bad_alloc")
"""Messages of Python, Rust and C++ before they end the process."""


class TooSlow(Exception):
    """The request took longer than it may."""


class Died(Exception):
    """The request ended the process: its status, negative for a signal, and its last output on standard error."""

    def __init__(self, status: int, said: bytes) -> None:
        super().__init__(signal.Signals(-status).name if status < 0 else f"status {status}")
        self.status = status
        self.said = said

    @property
    def out_of_memory(self) -> bool:
        return any(words in self.said for words in _OUT_OF_MEMORY)


class Children:
    """At most `most` processes answer one tenant at a time, and one more answers others, who take turns; idle ones wait
    for further requests of the tenant that each served.

    A spare one, which has served no tenant, hides the time of a start: always with `warm`, else while there are
    requests. Use it as a context manager.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        program: Sequence[str],
        limits: Limits,
        *,
        most: int,
        readable: Sequence[Path] = (),
        most_reply: int = MOST_REPLY,
        warm: bool = False,
        uses: int = USES,
    ) -> None:
        self._sandbox = sandbox
        self._program = program
        self._limits = limits
        self._readable = readable
        self._most_reply = most_reply
        self._warm = warm
        self._uses = uses
        self._turns = Turns(most + 1, most)
        self._idle: list[_Server] = []
        self._spare: Task[_Server] | None = None
        self._closing: set[Task[Any]] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        if self._warm:
            self._prepare()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        for server in self._idle:
            self._dismiss(server)
        self._idle.clear()
        if self._spare:
            self._discard(self._spare)
        while self._closing:
            await asyncio.wait(self._closing)

    @property
    def pids(self) -> list[int]:
        """The processes that wait for further requests of their tenant."""
        return [server.child.pid for server in self._idle]

    async def ask(self, tenant: str, head: Mapping[str, Any], data: bytes, *, seconds: float) -> bytes:
        """The reply to a request. Raises: TooSlow, Died; Unavailable when no process can be started."""
        async with self._turns.turn(tenant):
            while True:
                server = await self._take(tenant)
                fresh = server.uses == 0
                try:
                    async with asyncio.timeout(seconds):
                        reply = await server.ask(json.dumps(head).encode(), data, self._most_reply)
                except TimeoutError:
                    raise TooSlow(f"It took longer than {seconds:g} s.") from None
                except (OSError, IncompleteReadError):
                    ending = await server.child.end()
                    if fresh:
                        raise Died(*ending) from None
                else:
                    self._keep(server, tenant)
                    return reply
                finally:
                    if server not in self._idle:
                        await server.child.end()

    async def _take(self, tenant: str) -> _Server:
        """A process that has served this tenant or none."""
        for server in [server for server in reversed(self._idle) if server.tenant == tenant]:
            self._idle.remove(server)
            if server.take():
                return server
            self._dismiss(server)
        spare, self._spare = self._spare, None
        if spare:
            self._prepare()
        server = await self._started(spare or asyncio.create_task(self._start()))
        if not server.take():  # the spare has ended
            server = await self._started(asyncio.create_task(self._start()))
        self._prepare()
        return server

    async def _started(self, starting: Task[_Server]) -> _Server:
        """The process. A start is never cancelled, since asyncio could then wait for it for ever."""
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            self._discard(starting)
            raise

    def _keep(self, server: _Server, tenant: str) -> None:
        if server.uses < self._uses and server.child.alive and not self._closed:
            server.tenant = tenant
            self._idle.append(server)
            server.timer = asyncio.get_running_loop().call_later(IDLE_S, self._expire, server)
            if len(self._idle) > KEPT:
                self._dismiss(self._idle.pop(0))

    def _expire(self, server: _Server) -> None:
        if server in self._idle:
            self._idle.remove(server)
            self._dismiss(server)

    def prepare(self, tenant: str) -> None:
        """Have a process ready for a request of this tenant that may come."""
        if not any(server.tenant == tenant for server in self._idle):
            self._prepare()

    def _prepare(self) -> None:
        """Start a spare process, unless there is one."""
        if self._spare is None and not self._closed:
            self._spare = asyncio.create_task(self._start())
            self._spare.add_done_callback(self._prepared)

    def _prepared(self, spare: Task[_Server]) -> None:
        if spare is not self._spare:
            return
        if spare.cancelled() or spare.exception():
            self._spare = None  # the next request says why
        elif not self._warm:
            spare.result().timer = asyncio.get_running_loop().call_later(IDLE_S, self._expire_spare, spare)

    def _expire_spare(self, spare: Task[_Server]) -> None:
        if spare is self._spare:
            self._spare = None
            self._discard(spare)

    async def _start(self) -> _Server:
        try:
            return await _Server.start(self._sandbox, self._program, self._limits, self._readable)
        except OSError as error:
            raise Unavailable(f"A contained process could not be started: {error}") from error

    def _dismiss(self, server: _Server) -> None:
        server.take()
        self._background(asyncio.create_task(server.child.end()))

    def _discard(self, starting: Task[_Server]) -> None:
        async def end() -> None:
            with suppress(Unavailable):
                await (await starting).child.end()

        self._background(asyncio.create_task(end()))

    def _background(self, task: Task[Any]) -> None:
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class _Server:
    """A process that answers one request after the other."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.tenant: str | None = None
        self.uses = 0
        self.timer: TimerHandle | None = None

    @classmethod
    async def start(cls, sandbox: Sandbox, program: Sequence[str], limits: Limits, readable: Sequence[Path]) -> Self:
        """Start a process and wait until it has loaded. Raises: OSError."""
        child = await sandbox.start(program, limits, readable)
        try:
            async with asyncio.timeout(START_S):
                await child.stdout.readexactly(len(READY))
        except (IncompleteReadError, TimeoutError):
            ending = await child.end()
            said = ending.said.decode(errors="replace").strip().rpartition("\n")[2]
            raise OSError(said or f"it ended with status {ending.status}") from None
        except BaseException:
            await child.end()
            raise
        return cls(child)

    def take(self) -> bool:
        """Take it for use; False if it has ended."""
        if self.timer:
            self.timer.cancel()
            self.timer = None
        return self.child.alive

    async def ask(self, head: bytes, data: bytes, most_reply: int) -> bytes:
        """Raises: OSError or IncompleteReadError when the process has died or breaks the protocol."""
        self.uses += 1
        writer, reader = self.child.stdin, self.child.stdout
        writer.writelines((REQUEST.pack(len(head), len(data)), head, data))
        await writer.drain()
        (size,) = REPLY.unpack(await reader.readexactly(REPLY.size))
        if size > most_reply:
            raise OSError(f"The reply has {size} bytes.")
        return await reader.readexactly(size)
