"""Resident memory of all processes when idle."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import psutil
from rich.progress import Progress

from ops.bench.documents import HANDBOOK, upload
from ops.bench.measure import Aim, Measure
from ops.bench.stack import Sizes, Stack

SETTLE_S = 3.0
MOST_MB = 1500.0


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
    record = stack.settings.running()
    roots = {"supervisor": record["pid"], **record["processes"]}
    sizes_mb = {name: _megabytes(pid, set(roots.values())) for name, pid in roots.items()}
    total = Measure("memory", sum(sizes_mb.values()), "MB", aim=Aim(at_most=MOST_MB))
    return [total, *(Measure(f"memory.{name}", size, "MB") for name, size in sizes_mb.items())]


def _megabytes(pid: int, roots: set[int]) -> float:
    """Bytes of a process and its children, without those counted on their own."""
    return sum(_resident(process) for process in _family(psutil.Process(pid), roots - {pid})) / 1e6


def _family(process: psutil.Process, without: set[int]) -> Iterator[psutil.Process]:
    yield process
    for child in process.children():
        if child.pid not in without:
            yield from _family(child, without)


def _resident(process: psutil.Process) -> int:
    """Bytes of a process; shared pages are divided among the sharing processes where the system supports it."""
    try:
        full = process.memory_full_info()
    except psutil.NoSuchProcess:
        return 0
    return int(getattr(full, "pss", 0) or full.uss)
