"""A real NATS cluster on loopback, whose nodes can be killed, paused and cut off."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2
import nats
from nats.errors import Error

from ops.roles.worker import OUTAGES
from ops.servers.embedded import HOST, nats_server, taken

T = TypeVar("T")

READY_WITHIN_S = 120.0


class NotReady(Exception):
    """A cluster whose nodes did not find each other in time, with what each of them wrote last."""


class NatsCluster:
    """`nodes` servers with JetStream that sync every write; each is reached through wires that `cut` stops.

    `cuttable=False` leaves the wires out, which is quicker.
    """

    def __init__(
        self, folder: Path, nodes: int = 3, *, cuttable: bool = False, more: str = "", login: str = ""
    ) -> None:
        names = [f"node{number}" for number in range(nodes)]
        self.nodes = [Node(folder / name, name, nodes, cuttable, more, login) for name in names]

    @property
    def urls(self) -> str:
        """The addresses with the login that the cluster was given, which must be an administrator's."""
        return ",".join(node.url for node in self.nodes)

    def urls_of(self, login: str) -> str:
        return ",".join(node.url_of(login) for node in self.nodes)

    async def __aenter__(self) -> Self:
        try:
            for node in self.nodes:
                await node.lay([peer for peer in self.nodes if peer is not node])
            for node in self.nodes:
                node.start()
            await self.ready()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        for node in self.nodes:
            node.kill()
        for node in self.nodes:
            for wire in node.wires:
                await wire.close()

    async def ready(self, within: float = READY_WITHIN_S) -> None:
        """Wait until the nodes that run know each other and one meta leader, and have caught up with their streams."""
        try:
            async with httpx2.AsyncClient(timeout=10) as http, asyncio.timeout(within):
                while not await self._agree(http):
                    await asyncio.sleep(0.05)
        except TimeoutError as error:
            raise NotReady("\n".join(node.state for node in self.nodes)) from error

    async def _agree(self, http: httpx2.AsyncClient) -> bool:
        running = [node for node in self.nodes if node.reachable]
        try:
            leaders = {await node.sees(http, len(running) - 1) for node in running}
        except (httpx2.HTTPError, ValueError):
            return False
        return len(leaders) == 1 and None not in leaders

    async def leader(self, stream: str, within: float = READY_WITHIN_S) -> int:
        """The index of the node that leads a stream, once there is one."""
        servers = [node.url for node in self.nodes if node.reachable]
        async with asyncio.timeout(within):
            while True:
                with suppress(Error, OSError):
                    async with await nats.connect(servers, error_cb=_quiet, connect_timeout=2) as nc:
                        info = await nc.jetstream(timeout=2).stream_info(stream)
                    for number, node in enumerate(self.nodes):
                        if info.cluster and info.cluster.leader == node.name and node.reachable:
                            return number
                await asyncio.sleep(0.05)


@dataclass
class Node:
    """A server of a cluster of `size`."""

    folder: Path
    name: str
    size: int
    cuttable: bool
    more: str
    login: str
    wires: list[Wire] = field(default_factory=list)
    """To its clients, and from it to its peers."""
    _ports: list[int] = field(default_factory=lambda: free_ports(3))
    _child: subprocess.Popen[bytes] | None = None
    _paused: bool = False
    _peers: list[Node] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.url_of(self.login)

    def url_of(self, login: str) -> str:
        """The address with a login, `user:password`; empty for none."""
        return f"nats://{login}{'@' * bool(login)}{HOST}:{self.wires[0].port if self.wires else self._ports[0]}"

    @property
    def pid(self) -> int:
        assert self._child is not None, f"{self.name} does not run"
        return self._child.pid

    @property
    def reachable(self) -> bool:
        cut = bool(self.wires) and self.wires[0].is_cut
        return self._child is not None and self._child.poll() is None and not self._paused and not cut

    @property
    def log(self) -> Path:
        return self.folder / "nats.log"

    @property
    def state(self) -> str:
        """Exit status, if it ended, and the last lines of its log."""
        ended = self._child.poll() if self._child is not None else "not started"
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return f"{self.name} on {self._ports}: ended {ended}\n" + "\n".join(lines[-10:])

    async def lay(self, peers: list[Node]) -> None:
        """Write the configuration; the wires, when there are any, lie between it and everyone else."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._peers = peers
        client, route, monitor = self._ports
        routes = [peer._ports[1] for peer in peers]
        if self.cuttable:
            self.wires = [await Wire.open(port) for port in (client, *routes)]
            routes = [wire.port for wire in self.wires[1:]]
        settings: dict[str, Any] = {
            "server_name": self.name,
            "listen": f"{HOST}:{client}",
            "http": f"{HOST}:{monitor}",
            "max_payload": 8 * 2**20,
            "ping_interval": "10s",
            "log_file": str(self.log),
            "jetstream": {"store_dir": str(self.folder / "data"), "sync_interval": "always"},
            "cluster": {
                "name": "headrace",
                "listen": f"{HOST}:{route}",
                "no_advertise": True,
                "ping_interval": "3s",
                "ping_max": 2,
                "routes": [f"nats://{HOST}:{port}" for port in routes],
            },
        }
        if self.cuttable:  # what servers tell each other of themselves must not lead past the wires
            settings["cluster"]["advertise"] = f"{HOST}:1"
        (self.folder / "nats.conf").write_text(json.dumps(settings, indent=2)[:-1] + f"{self.more}\n}}")

    def start(self) -> None:
        assert self._child is None or self._child.poll() is not None, f"{self.name} runs already"
        self._paused = False
        with self.log.open("ab") as log:
            command = [nats_server(), "--config", str(self.folder / "nats.conf")]
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    async def stop(self) -> None:
        """End it in an orderly way: it gives its leaderships away first."""
        self._end(signal.SIGINT)
        if self._child is not None:
            await asyncio.to_thread(self._child.wait)

    def kill(self) -> None:
        """End it at once, in the middle of whatever it does."""
        self._end(signal.SIGKILL)
        if self._child is not None:
            self._child.wait()

    def _end(self, how: signal.Signals) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(how)
            self.resume()

    def pause(self) -> None:
        """Stop it from running, without ending it."""
        assert self._child is not None
        self._child.send_signal(signal.SIGSTOP)
        self._paused = True

    def resume(self) -> None:
        if self._child is not None and self._paused:
            self._child.send_signal(signal.SIGCONT)
        self._paused = False

    def cut(self, *, from_clients: bool = True) -> None:
        """Let nothing through, to or from its peers and, usually, its clients; no one is notified."""
        assert self.cuttable
        for wire in self._all_wires()[0 if from_clients else 1 :]:
            wire.cut(self)

    def mend(self) -> None:
        for wire in self._all_wires():
            wire.mend(self)

    def _all_wires(self) -> list[Wire]:
        mine = self._ports[1]
        return [*self.wires, *(wire for peer in self._peers for wire in peer.wires if wire.to == mine)]

    async def sees(self, http: httpx2.AsyncClient, peers: int) -> str | None:
        """The meta leader that it follows, once it is healthy and connected to `peers` others."""
        address = f"http://{HOST}:{self._ports[2]}"
        routes = (await http.get(f"{address}/routez")).json()["routes"]
        if len({route["remote_id"] for route in routes}) < peers:
            return None
        if (await http.get(f"{address}/healthz")).status_code != 200:
            return None
        meta = (await http.get(f"{address}/jsz")).json().get("meta_cluster", {})
        found = meta.get("leader")
        if found == self.name and sum(not peer.get("offline") for peer in meta.get("replicas", [])) < peers:
            return None  # it would place nothing with those of whom it has not heard yet
        return str(found) if found and meta.get("cluster_size") == self.size else None


class Wire:
    """A TCP proxy to the port `to`; while it is cut, what comes waits as it does for a lost network."""

    def __init__(self, to: int) -> None:
        self.to = to
        self._cut_by: set[int] = set()
        self._whole = asyncio.Event()
        self._whole.set()
        self._flows: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, to: int) -> Self:
        wire = cls(to)
        [wire.port] = free_ports(1)
        wire._server = await asyncio.start_server(wire._carry, HOST, wire.port)
        return wire

    port: int
    _server: asyncio.Server

    @property
    def is_cut(self) -> bool:
        return not self._whole.is_set()

    def cut(self, by: object) -> None:
        self._cut_by.add(id(by))
        self._whole.clear()

    def mend(self, by: object) -> None:
        self._cut_by.discard(id(by))
        if not self._cut_by:
            self._whole.set()

    async def close(self) -> None:
        self._server.close()
        for flow in self._flows:
            flow.cancel()
        await asyncio.gather(*self._flows, return_exceptions=True)
        await self._server.wait_closed()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        flow = asyncio.current_task()
        assert flow is not None
        self._flows.add(flow)
        far = None
        try:
            await self._whole.wait()
            far_reader, far = await asyncio.open_connection(HOST, self.to)
            ways = [asyncio.create_task(self._flow(*way)) for way in ((reader, far), (far_reader, writer))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._flows.discard(flow)
            for end in (writer, far):
                if end is not None:
                    end.transport.abort()
                    with suppress(OSError, asyncio.CancelledError):
                        await end.wait_closed()

    async def _flow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            await self._whole.wait()
            writer.write(data)
            await writer.drain()


def free_ports(count: int) -> list[int]:
    """Ports without a listener, below those that the system gives to connections: they stay free for a restart."""
    found: set[int] = set()
    while len(found) < count:
        port = random.SystemRandom().randint(15000, 32000)
        if not taken(port):
            found.add(port)
    return list(found)


async def _quiet(error: Exception) -> None: ...


async def once_there(ask: Callable[[], Awaitable[T]]) -> T:
    """Return its result as soon as no outage is in its way: just after a restart, leaders change still."""
    async with asyncio.timeout(READY_WITHIN_S):
        while True:
            try:
                return await ask()
            except OUTAGES:
                await asyncio.sleep(0.05)
