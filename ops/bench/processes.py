"""The processes of a Headrace, each with its children."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import psutil

from ops.bench.stack import Stack


def roots(stack: Stack) -> dict[str, int]:
    """The pids of supervisor, servers and workers, by name."""
    record = stack.settings.running()
    return {"supervisor": record["pid"], **record["processes"]}


def family(process: psutil.Process, without: set[int]) -> Iterator[psutil.Process]:
    """The process and its descendants, but for those in `without` and theirs."""
    yield process
    with suppress(psutil.NoSuchProcess):  # it may have ended
        for child in process.children():
            if child.pid not in without:
                yield from family(child, without)


def processor_s(stack: Stack) -> dict[str, dict[int, float]]:
    """Seconds of processor time of each process and its children, by name and pid."""
    pids = roots(stack)
    without = set(pids.values())
    return {
        name: {process.pid: _processor_s(process) for process in family(psutil.Process(pid), without - {pid})}
        for name, pid in pids.items()
    }


def _processor_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)
