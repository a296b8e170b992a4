"""Throughput of `headrace verify` in events per second."""

from __future__ import annotations

import time
from datetime import timedelta

from adapters.jetstream.audited import AuditedLog
from adapters.jetstream.keys import JetStreamKeys
from adapters.jetstream.log import JetStreamLog
from handlers.work.audit import Audit
from handlers.work.progress import no_progress
from ops.bench.measure import Aim, Measure
from ops.bench.stack import Stack
from ops.upkeep.rebuild import uncollected
from ops.upkeep.verify import verify

READ = ("sequence", "events", "aggregates", "commands", "tables")
"""The checks that read the log and the tables. A synthetic history has neither blobs nor an index."""


async def verifies(stack: Stack, read_s: float) -> list[Measure]:
    """Measure the log as it is; `read_s` is the time of a raw read."""
    nc, audit = stack.client.connection, Audit()
    log = JetStreamLog(nc, JetStreamKeys(nc, stack.settings.vault()), stack.client.blobs)
    began = time.perf_counter()
    with uncollected():
        await AuditedLog(log, audit).finish(no_progress)
    log_s, events = time.perf_counter() - began, audit.decoded.checked
    took: dict[str, float] = {}
    began = time.perf_counter()
    async for check in verify(stack.settings, timedelta(days=1), no_progress):
        took[check.name], began = time.perf_counter() - began, time.perf_counter()
    verify_s = sum(took[name] for name in READ)
    return [
        Measure("verify", events / verify_s, "events/s", events / read_s, Aim(ratio=0.28)),
        Measure("verify.log", events / log_s, "events/s", events / read_s),
    ]
