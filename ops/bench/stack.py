"""A complete Headrace for one benchmark, started like `headrace up` in a temporary home."""

from __future__ import annotations

import os
import shutil
import tempfile
from asyncio.subprocess import DEVNULL, create_subprocess_exec
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.jetstream import accounts
from adapters.jetstream.client import Client
from adapters.model_files import find_model
from ops import supervisor
from ops.servers.embedded import EmbeddedNats
from ops.settings import CONFIG, Settings


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of the benchmarks."""

    rounds: int = 3
    commands: int = 3000
    singles: int = 300
    questions: int = 200
    seconds: float = 30.0
    ingest: int = 0
    commits: int = 40_000
    calls: int = 100_000
    segments: int = 100_000
    searches: int = 200
    waiting: int = 20_000
    large: int = 150
    connects: int = 1000


@dataclass(frozen=True, slots=True)
class Stack:
    settings: Settings
    client: Client

    async def make(self, name: str, payload: dict[str, Any], id: str | None = None) -> str:
        """Send a command. Return the id of the aggregate it created. Raises: RuntimeError when rejected."""
        outcome = await self.client.send(name, payload, id, wait=60)
        if outcome["status"] != "accepted":
            raise RuntimeError(f"{name} was rejected: {outcome['message']}")
        return str(outcome["command"])

    @property
    def model(self) -> Path:
        return find_model(self.settings.embedding_model)


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder on disk, since the system's may be in memory."""
    disk = "/var/tmp" if os.access("/var/tmp", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="headrace-bench-", dir=disk))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@asynccontextmanager
async def running() -> AsyncIterator[Stack]:
    """Servers and workers, ready to use."""
    os.environ.pop(CONFIG, None)  # it may name servers in use
    with scratch() as home:
        async with _running(home) as stack:
            yield stack


@asynccontextmanager
async def _running(home: Path) -> AsyncIterator[Stack]:
    own: dict[str, Any] = {
        "nats_url": "",
        "postgres_url": "",
        "opensearch_url": "",
        "egress_allow": "127.0.0.1:1-65535",
        "max_waiting_per_actor": Settings.model_fields["max_waiting_commands"].default,  # one sender is the whole load
    }
    settings = Settings.load(home=home, tenant="default", **own)
    try:
        command = supervisor.command_line("up", "--detach", "--json")
        started = await create_subprocess_exec(*command, env=supervisor.environment(settings), stdout=DEVNULL)
        if await started.wait():
            raise SystemExit(1)  # it has printed the reason
        located = settings.located()
        administrator = EmbeddedNats(home).last_url_of(accounts.ADMIN)  # benchmarks make streams, and pause consumers
        async with await Client.connect(administrator) as client:
            yield Stack(located.model_copy(update={"nats_url": administrator}), client)
    finally:
        await supervisor.down(settings)
