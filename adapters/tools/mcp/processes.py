"""The processes of the operator's MCP servers: one for each tenant, server and secret, ended when it is idle."""

from __future__ import annotations

import asyncio
from asyncio import Task, TimerHandle
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import structlog

from adapters.models.withheld import Withheld
from adapters.sandbox.child import Child, Rights, Sandbox
from adapters.tools.mcp.programs import Program
from domain.tools.question import Answer, Question
from handlers.ports.tools import Ask, ToolError, no_user

if TYPE_CHECKING:
    from mcp import Client

log = structlog.get_logger(__name__)

IDLE_S = 120.0
"""Time after which a process without calls ends, in seconds."""

END_S = 10.0
"""Maximum time to wait for the reason why a process has ended, in seconds."""

MOST, MOST_OF_TENANT = 64, 8
"""Maximum number of processes of a worker, and of one tenant in it."""

Key = tuple[str, str, str]
"""Tenant, name of the server, secret."""


class Processes:
    """Use it as a context manager."""

    def __init__(
        self, sandbox: Callable[[], Awaitable[Sandbox]], programs: Mapping[str, Program], *, idle_s: float = IDLE_S
    ) -> None:
        self._sandbox = sandbox
        self._programs = programs
        self._idle_s = idle_s
        self._running: dict[Key, _Running] = {}
        self._ending: set[Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for key in list(self._running):
            self._dismiss(key, self._running[key])
        while self._ending:
            await asyncio.wait(self._ending)

    @property
    def pids(self) -> list[int]:
        """The processes that run."""
        return [running.child.pid for running in self._running.values() if running.child]

    @asynccontextmanager
    async def client(self, tenant: str, name: str, secret: str, ask: Ask = no_user) -> AsyncIterator[Client]:
        """A session with the process of this tenant, started where there is none. Raises: ToolError."""
        key = tenant, name, secret
        running = self._take(key)
        running.asks.append(ask)
        try:
            yield await asyncio.shield(running.ready)
        except Exception:
            if running.over.is_set():
                await asyncio.wait((running.task,), timeout=END_S)
            if running.fault:
                raise running.fault from None
            raise
        finally:
            running.asks.remove(ask)
            if running.over.is_set():
                self._dismiss(key, running)
            elif not running.asks:
                running.timer = asyncio.get_running_loop().call_later(self._idle_s, self._dismiss, key, running)

    def _take(self, key: Key) -> _Running:
        """Raises: ToolError."""
        tenant, name, secret = key
        running = self._running.get(key)
        if running and not running.over.is_set():
            if running.timer:
                running.timer.cancel()
                running.timer = None
            return running
        if (program := self._programs.get(name)) is None:
            raise ToolError("not_found", f"The operator has configured no MCP server {name!r}.")
        self._make_room(tenant)
        running = self._running[key] = _Running(self._sandbox, name, program, secret)
        return running

    def _make_room(self, tenant: str) -> None:
        """Raises: ToolError `rate_limited` where all processes are in use."""
        for most, counted in (
            (MOST_OF_TENANT, [key for key in self._running if key[0] == tenant]),
            (MOST, list(self._running)),
        ):
            if len(counted) >= most:
                idle = next((key for key in counted if not self._running[key].asks), None)
                if idle is None:
                    raise ToolError("rate_limited", f"All {most} processes of MCP servers are in use: try again later.")
                self._dismiss(idle, self._running[idle])

    def _dismiss(self, key: Key, running: _Running) -> None:
        if self._running.get(key) is running:
            del self._running[key]
        if running.timer:
            running.timer.cancel()
        self._ending.add(running.task)
        running.task.add_done_callback(self._ending.discard)
        running.dismiss()


class _Running:
    """A process and the session with it, which one task opens and closes."""

    def __init__(self, sandbox: Callable[[], Awaitable[Sandbox]], name: str, program: Program, secret: str) -> None:
        self.child: Child | None = None
        self.asks: list[Ask] = []
        """For each use, the way to ask its user."""
        self._withheld = Withheld([secret])
        self.timer: TimerHandle | None = None
        self.dismissed = False
        self.fault: Exception | None = None
        """Reason for the end of the session."""
        self.over = asyncio.Event()
        """Set when it is dismissed, or has ended."""
        self.ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._run(sandbox, name, program, secret))

    def dismiss(self) -> None:
        self.dismissed = True
        self.over.set()
        if not self.ready.done():
            self.task.cancel()

    async def _run(self, sandbox: Callable[[], Awaitable[Sandbox]], name: str, program: Program, secret: str) -> None:
        from adapters.tools.mcp.questions import callback
        from adapters.tools.mcp.session import over_pipes

        try:
            self.child = await _started(await sandbox(), program, secret)
            async with over_pipes(self.child, self.over.set, callback(self._ask, self._withheld)) as client:
                self.ready.set_result(client)
                await self.over.wait()
        except Exception as error:
            self.fault = error
            if not self.ready.done():
                self.ready.set_exception(error)
                self.ready.exception()  # perhaps no call waits for it any more
        finally:
            self.over.set()
            self.ready.cancel()
            if self.child:
                ending = await self.child.end()
                if not self.dismissed:
                    said = ending.said.decode(errors="replace").strip().rpartition("\n")[2][:200]
                    log.warning("mcp.ended", server=name, status=ending.status, said=said)

    async def _ask(self, question: Question) -> Answer:
        """Ask the user of the only call: with several, it is not known which one asks. Raises: ToolError."""
        if len(self.asks) != 1:
            raise ToolError("unsupported", "Several calls are under way in the session.")
        return await self.asks[0](question)


async def _started(sandbox: Sandbox, program: Program, secret: str) -> Child:
    variables = {**program.env, **({program.secret_env: secret} if program.secret_env else {})}
    try:
        return await sandbox.start(
            [program.command, *program.args], program.limits, program.readable, Rights(variables)
        )
    except OSError as error:
        log.warning("mcp.not_started", command=program.command, reason=str(error))
        raise ToolError("unreachable", "The program could not be started.") from None
