"""The target of a storm: a whole Headrace on three NATS nodes and PostgreSQL, each part of which can be hit."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit, urlunsplit

import psutil

from adapters.jetstream import accounts
from adapters.jetstream.client import Client
from adapters.jetstream.streams import set_up
from ops.servers.embedded import HOST, EmbeddedPostgres
from ops.settings import Settings
from tests.chaos.plan import NODES, WORKERS, Blow
from tests.journeys.stack import Stack
from tests.nats_cluster import NatsCluster, Node, Wire, once_there

TENANT = "default"
"""The tenant that publishes, by an account of its own."""

NATS_LIMITS = "\nlogfile_size_limit: 4MB\nlogfile_max_num: 3\n"

LOG_LIMIT = 16 * 2**20
"""Bytes after which the workers' log is set aside; the one set aside before is dropped."""

LOOK_EVERY_S = 0.5


class Line:
    """A worker's wires to the servers."""

    def __init__(self, nats: list[Wire], postgres: Wire) -> None:
        self.nats = nats
        self.postgres = postgres

    @classmethod
    async def open(cls, cluster: NatsCluster, postgres: int) -> Self:
        return cls([await Wire.open(node.wires[0].to) for node in cluster.nodes], await Wire.open(postgres))

    @property
    def wires(self) -> list[Wire]:
        return [*self.nats, self.postgres]


class Site:
    def __init__(self, cluster: NatsCluster, postgres: EmbeddedPostgres, settings: Settings, client: Client) -> None:
        self.cluster = cluster
        self.postgres = postgres
        self.settings = settings
        self.stack = Stack(settings, client, settings.home / "workers.log")
        self.died = Counter[str]()
        """Workers that ended by themselves, and were started again."""
        self._lines: dict[str, Line] = {}
        self._down: set[str] = set()

    @classmethod
    @asynccontextmanager
    async def running(cls, home: Path) -> AsyncIterator[Site]:
        """Servers and workers, ready; the workers are started again when they end."""
        async with AsyncExitStack() as open:
            users = accounts.written(accounts.configuration(password, {TENANT: [accounts.login(TENANT)]}))
            cluster = NatsCluster(home / "nats", cuttable=True, more=NATS_LIMITS + users, login=login(accounts.ADMIN))
            await open.enter_async_context(cluster)
            async with await Client.connect(cluster.urls_of(login(accounts.SETUP))) as setup:
                await once_there(lambda: set_up(setup.stream, replicas=len(NODES)))
            postgres = await open.enter_async_context(EmbeddedPostgres(home))
            settings = Settings.load(home=home, nats_url=cluster.urls, postgres_url=postgres.url, replicas=len(NODES))
            assert settings.tenant == TENANT
            urls = cluster.urls_of(login(accounts.WORKER))
            client = await open.enter_async_context(await Client.connect(urls, settings.tenant))
            site = cls(cluster, postgres, settings, client)
            open.push_async_callback(site._close)
            for worker in WORKERS:
                site._lines[worker] = await Line.open(cluster, postgres.port)
                await site._spawn(worker)
            await site.stack.ready(*WORKERS)
            watch = asyncio.create_task(site._watch())
            try:
                yield site
            finally:
                watch.cancel()
                await asyncio.gather(watch, return_exceptions=True)

    async def _close(self) -> None:
        await self.stack.end()
        for line in self._lines.values():
            for wire in line.wires:
                await wire.close()

    async def _spawn(self, worker: str) -> None:
        self._set_log_aside()
        line = self._lines[worker]
        await self.stack.spawn(
            worker,
            HEADRACE_NATS_URL=",".join(f"nats://{login(accounts.WORKER)}@{HOST}:{wire.port}" for wire in line.nats),
            HEADRACE_POSTGRES_URL=_through(self.settings.postgres_url, line.postgres.port),
            HEADRACE_REPLICAS=str(self.settings.replicas),
        )

    def _set_log_aside(self) -> None:
        log = self.settings.home / "workers.log"
        if log.exists() and log.stat().st_size > LOG_LIMIT:
            log.replace(log.with_suffix(".log.1"))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            for worker in WORKERS:
                if worker not in self._down and self.stack.gone(worker):
                    self.died[worker] += 1
                    await self._spawn(worker)

    async def strike(self, blow: Blow) -> None:
        if blow.target in NODES:
            self._strike_node(self._node(blow), blow)
        elif blow.target == "postgres":
            self._strike_postgres(blow)
        else:
            await self._strike_worker(blow)

    async def mend(self, blow: Blow) -> None:
        if blow.target in NODES:
            self._mend_node(self._node(blow), blow)
        elif blow.target == "postgres":
            await self._mend_postgres(blow)
        else:
            await self._mend_worker(blow)

    def _node(self, blow: Blow) -> Node:
        return self.cluster.nodes[NODES.index(blow.target)]

    def _strike_node(self, node: Node, blow: Blow) -> None:
        match blow.kind:
            case "kill":
                node.kill()
            case "pause":
                node.pause()
            case "cut":
                node.cut()
                for wire in self._wires_to(node):
                    wire.cut(node)

    def _mend_node(self, node: Node, blow: Blow) -> None:
        match blow.kind:
            case "kill":
                node.start()
            case "pause":
                node.resume()
            case "cut":
                node.mend()
                for wire in self._wires_to(node):
                    wire.mend(node)

    def _wires_to(self, node: Node) -> list[Wire]:
        return [line.nats[self.cluster.nodes.index(node)] for line in self._lines.values()]

    def _strike_postgres(self, blow: Blow) -> None:
        if blow.kind == "cut":
            for line in self._lines.values():
                line.postgres.cut(self)
        else:
            self._signal_postgres(signal.SIGKILL if blow.kind == "kill" else signal.SIGSTOP)

    async def _mend_postgres(self, blow: Blow) -> None:
        if blow.kind == "kill":
            await self.postgres.start()
        elif blow.kind == "pause":
            self._signal_postgres(signal.SIGCONT)
        for line in self._lines.values():
            line.postgres.to = self.postgres.port
            line.postgres.mend(self)

    def _signal_postgres(self, number: signal.Signals) -> None:
        server = self.postgres.daemon.process()
        assert server is not None
        for process in (server, *server.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    async def _strike_worker(self, blow: Blow) -> None:
        match blow.kind:
            case "kill":
                self._down.add(blow.target)
                await self.stack.kill(blow.target)
            case "pause":
                self._signal_worker(blow.target, signal.SIGSTOP)
            case "cut":
                for wire in self._lines[blow.target].wires:
                    wire.cut(blow.target)

    async def _mend_worker(self, blow: Blow) -> None:
        match blow.kind:
            case "kill":
                await self._spawn(blow.target)
                self._down.discard(blow.target)
            case "pause":
                self._signal_worker(blow.target, signal.SIGCONT)
            case "cut":
                for wire in self._lines[blow.target].wires:
                    wire.mend(blow.target)

    def _signal_worker(self, worker: str, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self.stack.signal(worker, number)


def password(user: str) -> str:
    return f"p-{user}"


def login(user: str) -> str:
    """User and password, as in an address."""
    return f"{user}:{password(user)}"


def _through(url: str, port: int) -> str:
    """The address of a server by way of another port."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{port}"))
