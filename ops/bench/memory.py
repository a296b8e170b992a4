"""Resident memory of all processes when idle, and of NATS after large commits."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from typing import NamedTuple

import psutil
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig
from rich.progress import Progress

from adapters.jetstream import nats_py, streams
from ops.bench.documents import HANDBOOK, upload
from ops.bench.measure import Aim, Measure
from ops.bench.processes import family, roots
from ops.bench.stack import Sizes, Stack, scratch
from ops.servers.embedded import MEMORY, EmbeddedNats

SETTLE_S = 3.0
MOST_MB = 1500.0

AT_ONCE, READERS = 6, 4
SMALLEST, LARGEST = 300_000, 7_900_000
"""Sizes of large commits in bytes: the largest nearly fills a message of the embedded server."""


class Resident(NamedTuple):
    """Megabytes of a process and its children: shared pages divided among their processes, and counted in each."""

    divided: float
    counted: float


async def measure(stack: Stack, sizes: Sizes, bars: Progress) -> list[Measure]:
    """Memory in total and by process with its children, after one document and one question."""
    bars.add_task("memory", total=None)
    dataset = await stack.make("dataset.create", {"name": "Handbook"})
    file = HANDBOOK / "history.txt"
    await upload(stack, dataset, {file.name: file.read_bytes()})
    app = await stack.make("app.create", {"name": "Handbook assistant"})
    await stack.make("app.configure", {"app": app, "datasets": [dataset]})
    async for _ in stack.client.ask(app, "Who lit 64 lamps?"):
        pass
    await asyncio.sleep(SETTLE_S)
    pids = roots(stack)
    found = {name: _resident(pid, set(pids.values())) for name, pid in pids.items()}
    large = await _after_large_commits(sizes.large)
    return [
        Measure("memory", sum(size.divided for size in found.values()), "MB", aim=Aim(at_most=MOST_MB)),
        Measure("memory.summed", sum(size.counted for size in found.values()), "MB"),
        *(Measure(f"memory.{name}", size.divided, "MB") for name, size in found.items()),
        Measure("memory.large_commits", large, "MB", MEMORY / 1e6, Aim(ratio_at_most=1.15)),
    ]


def _resident(pid: int, known: set[int]) -> Resident:
    """Memory of a process and its children, without those counted on their own."""
    sizes = [_bytes(process) for process in family(psutil.Process(pid), known - {pid})]
    return Resident(sum(divided for divided, _ in sizes) / 1e6, sum(counted for _, counted in sizes) / 1e6)


def _bytes(process: psutil.Process) -> tuple[int, int]:
    """Bytes of a process: with shared pages divided where the system supports it, and with all of them."""
    try:
        full = process.memory_full_info()
    except psutil.NoSuchProcess:
        return 0, 0
    return int(getattr(full, "pss", 0) or full.uss), int(full.rss)


async def _after_large_commits(count: int) -> float:
    """Megabytes of a NATS server after this number of large commits that several consumers have read."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(EmbeddedNats(stack.enter_context(scratch())))
        log = await nats_py.connect(server.url, error_cb=_ignore)
        stack.push_async_callback(log.close)
        await streams.set_up(log.jetstream())
        unread = asyncio.Semaphore(0)

        async def read(message: Msg) -> None:
            await message.ack()
            unread.release()

        for number in range(READERS):
            reader = await nats_py.connect(server.url, error_cb=_ignore)
            stack.push_async_callback(reader.close)
            await reader.jetstream().subscribe(
                "evt.>",
                durable=f"reader-{number}",
                cb=read,
                manual_ack=True,
                config=ConsumerConfig(max_ack_pending=AT_ONCE),
                pending_bytes_limit=2**30,
            )
        text, room = os.urandom(LARGEST), asyncio.Semaphore(AT_ONCE)

        async def write(number: int) -> None:
            size = SMALLEST + (LARGEST - SMALLEST) * number // count
            async with room:
                await log.jetstream().publish(f"evt.bench.document.{number}", text[:size], timeout=120)

        await asyncio.gather(*map(write, range(count)))
        for _ in range(count * READERS):
            await unread.acquire()
        process = server.daemon.process()
        assert process is not None
        return float(process.memory_info().rss) / 1e6


async def _ignore(_: Exception) -> None:
    """Ignore that a slow reader is disconnected: it reconnects and reads on."""
