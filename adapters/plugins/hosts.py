"""The processes of plugins: for each plugin and tenant one, started by the tenant's first call, ended when idle; or
more, as its manifest lets it have, each started once all others have a call.

A process that ends is started again, after 1, 2, 4 … 60 seconds. After five failures in a row the plugin is suspended,
and tried again each minute. Another package, or other settings, start next to the old process, which serves until then
and ends when its calls have.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack, aclosing, suppress
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import psutil
import structlog

from adapters.egress.client import Egress
from adapters.plugins import protocol
from adapters.plugins.dify_protocol import VARIABLES, DifyDialect
from adapters.plugins.environments import Built, Environments, NotBuilt
from adapters.plugins.process import Dialect, Ended, LineProcess, Message
from adapters.plugins.uploads import Uploads
from adapters.sandbox.child import Limits, Rights, Sandbox, python
from domain.tools.plugin import Hook
from handlers.ports.log import Unavailable
from handlers.ports.plugins import EnabledPlugin, PluginFailed, Reply

log = structlog.get_logger(__name__)

READY_S, DIFY_READY_S = 30.0, 90.0
"""Time limits of a start, in seconds: of Headrace's own plugins, and of those of Dify, which load much."""

FAILURES = 5
"""Number of failures in a row after which a plugin is suspended."""

PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
"""The pause before a process is started again, which doubles, and the longest one, in seconds."""

DRAIN_S = 30.0
"""Time that the calls of a replaced process have to end, in seconds."""

IDLE_S = 300.0
"""Time after which a process without calls ends, in seconds."""

PING_S = 15.0
"""Interval between signs of life, in seconds; without one for two of them, the process counts as hanging."""

QUIET_S = 25.0
"""Time without a line after which a process is ended with the request that is given up, in seconds: it gives a sign of
life every ten."""

SILENCE_S = 60.0
"""Time without a line after which a process counts as hanging that gives signs of life by itself, in seconds."""

MOST_IDLE_CPU = 0.5
"""Share of a processor that a process may use without a call."""

CPU_S = 24 * 3600
"""Processor time of a process, in seconds; then it is started again."""

SCRATCH = 64 * 2**20
"""Size of a plugin's folder for files, in bytes."""


class Suspend(Protocol):
    async def __call__(self, plugin: EnabledPlugin, reason: str | None) -> None:
        """Record that a plugin is suspended, or with None that it works again. Raises: Unavailable."""
        ...


class Containment(NamedTuple):
    """The means of starting plugins: with `namespaces`, processes have a network of their own; with `unconfined`, the
    operator accepts plugins with network where they have not."""

    sandbox: Sandbox
    egress: Egress
    namespaces: bool
    unconfined: bool = False


Unseal = Callable[[str, str], str]
"""Opens a sealed secret of a tenant."""


class Hosts:
    """The processes of this worker."""

    def __init__(
        self, environments: Environments, containment: Containment, unseal: Unseal, suspend: Suspend, version: str = ""
    ) -> None:
        self._environments = environments
        self._containment = containment
        self._unseal = unseal
        self._suspend = suspend
        self._version = version
        self.uploads = Uploads()
        self._hosts: dict[tuple[str, str], list[Host]] = {}
        self._sweeping: asyncio.Task[None] | None = None

    async def ask(self, plugin: EnabledPlugin, hook: Hook, call: Mapping[str, Any]) -> Reply:
        """As the port."""
        return await self.host(plugin).ask(plugin, hook, call)

    def host(self, plugin: EnabledPlugin) -> Host:
        """The host of a plugin for its tenant that has the fewest calls. Where each has one, another one is started."""
        hosts = self._hosts.setdefault((plugin.tenant, plugin.name), [])
        most = plugin.manifest.get("instances", 1)
        while len(hosts) < most:
            hosts.append(Host(self._start, self._suspend))
        running = [host for host in hosts[:most] if host.pid is not None] or hosts[:1]
        found = min(running, key=lambda host: host.in_flight)
        if found.in_flight and (waiting := next((host for host in hosts[:most] if host not in running), None)):
            waiting.prepare(plugin)
        if self._sweeping is None:
            self._sweeping = asyncio.create_task(self._sweep())
        return found

    @property
    def have_proxies(self) -> bool:
        return self._containment.namespaces

    async def keep(self, tenant: str, names: Collection[str]) -> None:
        """End the processes of the tenant but for those of these plugins."""
        for key in [key for key in self._hosts if key[0] == tenant and key[1] not in names]:
            await asyncio.gather(*(host.close() for host in self._hosts.pop(key)))

    async def close(self) -> None:
        if self._sweeping:
            self._sweeping.cancel()
        await asyncio.gather(*(host.close() for hosts in self._hosts.values() for host in hosts))
        self._hosts.clear()

    @property
    def pids(self) -> dict[tuple[str, str, int], int]:
        """The processes that run, by tenant, plugin and number."""
        return {
            (*key, number): host.pid
            for key, hosts in self._hosts.items()
            for number, host in enumerate(hosts)
            if host.pid is not None
        }

    async def _sweep(self) -> None:
        """Ask for signs of life, and end idle processes."""
        while True:
            await asyncio.sleep(PING_S)
            for host in [host for hosts in self._hosts.values() for host in hosts]:
                await host.look()

    async def _start(self, plugin: EnabledPlugin) -> Running:
        """Start a process and wait until it has loaded. Raises: NotBuilt, Ended, OSError, Unavailable."""
        built = await self._environments.get(plugin.digest)
        dify = plugin.manifest["kind"] == "dify"
        dialect: Dialect = DifyDialect() if dify else protocol.OwnDialect()
        ready_s = DIFY_READY_S if dify else READY_S
        async with AsyncExitStack() as stack:
            process = await started(stack, plugin, built, self._containment, dialect, self.uploads)
            if not dify:
                secrets = {name: json.loads(self._unseal(plugin.tenant, each)) for name, each in plugin.secrets.items()}
                process.send(protocol.load(plugin.tenant, {**plugin.settings, **secrets}, f"headrace {self._version}"))
            try:
                async with asyncio.timeout(ready_s):
                    await process.ready()
            except TimeoutError:
                raise Ended(f"It was not ready within {ready_s:g} s.") from None
            return Running(plugin, process, stack.pop_all())


async def started(
    stack: AsyncExitStack,
    plugin: EnabledPlugin,
    built: Built,
    containment: Containment,
    dialect: Dialect,
    uploads: Uploads,
) -> LineProcess:
    """Start the process of a package, with a proxy where it may use the network; both end with the stack.

    Raises: NotBuilt, Ended, OSError.
    """
    label = {"tenant": plugin.tenant, "plugin": plugin.name, "version": plugin.version}
    limits = Limits(
        memory=plugin.manifest["memory_mb"] * 2**20,
        cpu_s=CPU_S,
        file=SCRATCH,
        files=256,
        tasks=128,
        scratch=SCRATCH,
    )
    further = VARIABLES if isinstance(dialect, DifyDialect) else {}
    rights = Rights({"HOME": "/tmp", "PYTHONUNBUFFERED": "1", **further}, errors=True)
    hosts = named_hosts(plugin)
    if not hosts or not containment.namespaces:
        if hosts and not containment.unconfined:
            raise NotBuilt("It needs the network, and this machine has no namespaces: the operator can accept that.")
        child = await containment.sandbox.start(
            built.program, limits, built.readable, rights._replace(sockets=bool(hosts))
        )
        process = LineProcess(child, dialect, label)
        stack.push_async_callback(process.close)
        return process
    from adapters.plugins.proxy import Proxy

    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            program = [*python("adapters.plugins.entry", str(theirs.fileno())), *built.program]
            granted = rights._replace(sockets=True, descriptors=(theirs.fileno(),))
            child = await containment.sandbox.start(program, limits, built.readable, granted)
        process = LineProcess(child, dialect, label)
        stack.push_async_callback(process.close)
        listening = await _received(ours, process)
    proxy = Proxy(listening, containment.egress, plugin.tenant, hosts, label, uploads)
    await stack.enter_async_context(proxy)
    return process


async def _received(ours: socket.socket, process: LineProcess) -> socket.socket:
    """The listening socket that the process hands over. Raises: Ended."""
    ours.setblocking(False)
    loop, arrived = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(ours, arrived.set)
    try:
        async with asyncio.timeout(READY_S):
            await arrived.wait()
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    except TimeoutError:
        raise Ended("It was not started in time.") from None
    finally:
        loop.remove_reader(ours)
    if not descriptors:
        with suppress(TimeoutError):
            async with asyncio.timeout(READY_S):
                await process.gone()
        raise Ended(process.reason)
    return socket.socket(fileno=descriptors[0])


def named_hosts(plugin: EnabledPlugin) -> frozenset[str]:
    """The hosts that a plugin may call, as `host` or `host:port`; `$name` stands for the address in a setting."""
    found = set()
    for entry in plugin.manifest["network"]:
        if not entry.startswith("$"):
            found.add(entry)
        elif parts := _address(plugin.settings.get(entry[1:])):
            found.add(parts)
    return frozenset(found)


def _address(value: object) -> str | None:
    try:
        parts = urlsplit(str(value))
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None
    return f"{parts.hostname.lower()}:{port}" if parts.hostname and port else None


def cpu_s(pid: int) -> float:
    """Processor time of a process and those that it has started, in seconds."""
    total = 0.0
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            with suppress(psutil.Error):
                times = each.cpu_times()
                total += times.user + times.system
    return total


class Running(NamedTuple):
    """A process that has loaded, and what must be closed with it."""

    plugin: EnabledPlugin
    process: LineProcess
    stack: AsyncExitStack

    def serves(self, plugin: EnabledPlugin) -> bool:
        """Return whether the process has the package and the settings of the plugin."""
        mine = self.plugin
        return (mine.digest, mine.settings, mine.secrets) == (plugin.digest, plugin.settings, plugin.secrets)


Send = Callable[[Message], None]
"""Writes a line to a process. Raises: Ended."""


class Host:
    """One plugin for one tenant: its process, its restarts, and its suspension."""

    def __init__(self, start: Callable[[EnabledPlugin], Awaitable[Running]], suspend: Suspend) -> None:
        self._begin = start
        self._suspend = suspend
        self._running: Running | None = None
        self._starting: asyncio.Task[Running | None] | None = None
        self._failures = 0
        self._reason = ""
        self._not_before = 0.0
        self._reported: bool | None = None
        self._starts = -1
        self._closing: set[asyncio.Task[Any]] = set()
        self._ids = itertools.count(1)
        self._used = asyncio.get_running_loop().time()
        self._pinged = 0.0
        self._cpu = 0.0

    @property
    def pid(self) -> int | None:
        return self._running.process.pid if self._running and self._running.process.alive else None

    @property
    def in_flight(self) -> int:
        """The number of calls that its process has."""
        return self._running.process.in_flight if self._running else 0

    def prepare(self, plugin: EnabledPlugin) -> None:
        """Start the process before its first call, unless it failed too often."""
        if self._failures < FAILURES:
            self._used = asyncio.get_running_loop().time()
            self._start(plugin)

    async def ask(self, plugin: EnabledPlugin, hook: Hook, call: Mapping[str, Any]) -> Reply:
        """As the port. A hook whose process ends under it is asked again, while there is time."""
        limit = plugin.manifest["timeout_ms"]
        running, sent = None, 0.0
        try:
            async with asyncio.timeout(limit / 1000):
                while True:
                    running = None
                    running = await self.running(plugin)
                    sent, id = asyncio.get_running_loop().time(), str(next(self._ids))
                    try:
                        async with aclosing(running.process.ask(id, protocol.hook(id, hook, call))) as replies:
                            fields = await anext(replies)
                        break
                    except Ended as ended:
                        self._died(running, str(ended))
        except TimeoutError:
            if running is None:  # a start has a time limit of its own
                raise PluginFailed("unusable", self._reason or f"It did not start within {limit} ms.") from None
            self._late(running, sent, f"{hook} took longer than {limit} ms.")
            raise PluginFailed("timeout", f"{hook} took longer than {limit} ms.") from None
        if "error" in fields:
            reason = str(fields["error"])[:500]
            self._failed(running.plugin, f"{hook}: {reason}")
            raise PluginFailed("failed", reason)
        self._worked(running, plugin)
        return Reply(running.plugin.version, running.plugin.digest, fields)

    async def stream(self, plugin: EnabledPlugin, id: str, message: Message) -> AsyncGenerator[tuple[Message, Send]]:
        """Yield the replies to a request of another dialect, each with a way to send its process another line.

        The caller sets a time limit. Raises: PluginFailed.
        """
        running = await self.running(plugin)
        sent, ended = asyncio.get_running_loop().time(), False
        try:
            async with aclosing(running.process.ask(id, message)) as replies:
                async for reply in replies:
                    ended = running.process.dialect.is_last(reply)
                    yield reply, running.process.send
        except Ended as ending:
            ended = True
            self._died(running, str(ending))
            raise PluginFailed("died", str(ending)) from None
        finally:
            if not ended and asyncio.get_running_loop().time() - max(running.process.heard, sent) > QUIET_S:
                reason = f"It gave no sign of life for {QUIET_S:g} s."
                self._background(running.process.end(reason))
                self._died(running, reason)
        self._worked(running, plugin)

    async def running(self, plugin: EnabledPlugin) -> Running:
        """The process for a call: the old one while another package or other settings are started.

        Raises: PluginFailed when the plugin is suspended.
        """
        self._used = asyncio.get_running_loop().time()
        if plugin.starts > self._starts:  # the tenant enabled or configured it since
            self._starts, self._failures, self._not_before, self._reported = plugin.starts, 0, 0.0, None
        current = self._running
        if current and current.process.alive:
            if current.serves(plugin):
                return current
            if self._failures < FAILURES:
                self._start(plugin)
                return current
            self._retire()
        elif current:
            self._died(current, current.process.reason)
        while True:
            if self._failures >= FAILURES and asyncio.get_running_loop().time() < self._not_before:
                raise PluginFailed("suspended", self._reason)
            started = await asyncio.shield(self._start(plugin))
            if started is not None:
                return started

    def _start(self, plugin: EnabledPlugin) -> asyncio.Task[Running | None]:
        """Start a process, unless one is being started for the same."""
        starting = self._starting
        if starting is None or starting.done():
            starting = self._starting = asyncio.create_task(self._started(plugin))
            starting.add_done_callback(lambda task: task.exception())  # those who wait have it, if any do
        return starting

    async def _started(self, plugin: EnabledPlugin) -> Running | None:
        """The process, in its place; None when it could not be started. Waits for the pause after a failure."""
        pause = self._not_before - asyncio.get_running_loop().time()
        if pause > 0:
            await asyncio.sleep(pause)
        try:
            running = await self._begin(plugin)
        except (NotBuilt, Ended, OSError, Unavailable) as error:
            self._failed(plugin, str(error) or repr(error))
            return None
        log.info("plugin.started", tenant=plugin.tenant, plugin=plugin.name, version=plugin.version)
        if self._running:
            self._retire()
        self._running = running
        self._background(self._watch(running))
        return running

    async def _watch(self, running: Running) -> None:
        """Note the end of a process when it happens, not when the next call does."""
        await running.process.gone()
        self._died(running, running.process.reason)

    def _died(self, running: Running, reason: str) -> None:
        if self._running is running:
            self._running = None
            self._background(running.stack.aclose())
            self._failed(running.plugin, reason)

    def _late(self, running: Running, sent: float, reason: str) -> None:
        """A hook had no reply in time: a process that has said nothing since it was sent hangs, and is ended."""
        if running.process.heard >= sent:
            self._failed(running.plugin, reason)
        elif self._running is running:
            self._background(running.process.end(reason))
            self._died(running, reason)

    def _failed(self, plugin: EnabledPlugin, reason: str) -> None:
        """Count a failure; the next start waits, and after several the plugin is suspended."""
        self._failures += 1
        self._reason = reason
        pause = min(PAUSE_S * 2 ** (self._failures - 1), LONGEST_PAUSE_S)
        about = {"tenant": plugin.tenant, "plugin": plugin.name, "version": plugin.version}
        log.warning("plugin.failed", **about, reason=reason, in_a_row=self._failures)
        if self._failures >= FAILURES:
            pause = LONGEST_PAUSE_S
            self._retire()
            self._report(plugin, f"It failed {self._failures} times in a row: {reason}")
        self._not_before = asyncio.get_running_loop().time() + pause

    def _worked(self, running: Running, plugin: EnabledPlugin) -> None:
        if self._failures and not running.serves(plugin):
            return  # the old process, while the new one fails
        self._failures, self._not_before = 0, 0.0
        if self._reported or (plugin.suspended and self._reported is None):
            self._report(plugin, None)

    def _report(self, plugin: EnabledPlugin, reason: str | None) -> None:
        suspended = reason is not None
        if self._reported is not suspended:
            self._reported = suspended
            self._background(self._record(plugin, reason))

    async def _record(self, plugin: EnabledPlugin, reason: str | None) -> None:
        try:
            await self._suspend(plugin, reason)
        except Exception as error:
            self._reported = None
            log.warning("plugin.not_recorded", tenant=plugin.tenant, plugin=plugin.name, reason=str(error))

    def _retire(self) -> None:
        """Let the calls of the process end, and then the process."""
        running, self._running = self._running, None
        if running:
            self._background(self._drain(running))

    async def _drain(self, running: Running) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + DRAIN_S
        while running.process.in_flight and loop.time() < until:
            await asyncio.sleep(0.05)
        await running.stack.aclose()

    async def look(self) -> None:
        """Ask for a sign of life; end a process that gives none, and one that has had no call for long."""
        running, now = self._running, asyncio.get_running_loop().time()
        if running is None:
            return
        idle = now - self._used > PING_S and not running.process.in_flight
        cpu, before = cpu_s(running.process.pid), self._cpu
        self._cpu = cpu
        if idle and before and cpu - before > MOST_IDLE_CPU * PING_S:
            await running.process.end(f"It used {cpu - before:.0f} s of processor time in {PING_S:g} s without a call.")
        elif now - self._used > IDLE_S and not running.process.in_flight:
            self._retire()
        elif (ping := running.process.dialect.ping()) is None:
            if now - running.process.heard > SILENCE_S:
                await running.process.end(f"It gave no sign of life for {SILENCE_S:g} s.")
        elif self._pinged and running.process.heard < self._pinged and now - self._pinged > PING_S:
            self._pinged = 0.0
            await running.process.end(f"It gave no sign of life for {PING_S:g} s.")
        elif not self._pinged or running.process.heard >= self._pinged:
            self._pinged = now
            with suppress(Ended):
                running.process.send(ping)

    async def close(self) -> None:
        if self._starting:
            self._starting.cancel()
        running, self._running = self._running, None
        if running:
            await running.stack.aclose()
        for task in list(self._closing):
            if not task.done():
                await asyncio.wait((task,), timeout=DRAIN_S)

    def _background(self, work: Awaitable[Any]) -> None:
        task = asyncio.ensure_future(work)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
