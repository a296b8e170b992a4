"""Throughput of `headrace verify` in events per second."""

from __future__ import annotations

import time
from datetime import timedelta

from ops.bench.measure import Aim, Measure
from ops.bench.stack import Stack
from ops.upkeep.verify import verify

LOG, TABLES = ("sequence", "events", "aggregates", "commands"), ("tables",)


async def verifies(stack: Stack, read_s: float) -> list[Measure]:
    """Measure the log as it is; `read_s` is the time of a raw read.

    The time of checking blobs and index is left out: a synthetic history has neither.
    """
    took: dict[str, float] = {}
    events, began = 0, time.perf_counter()
    async for check in verify(stack.settings, timedelta(days=1), lambda what, done, total: None):
        took[check.name], began = time.perf_counter() - began, time.perf_counter()
        if check.name == "events":
            events = check.checked
    log, tables = (sum(took[name] for name in names) for names in (LOG, TABLES))
    return [
        Measure("verify", events / (log + tables), "events/s", events / read_s, Aim(at_least=20_000)),
        Measure("verify.log", events / log, "events/s", events / read_s),
    ]
