"""Time that quotas add to a call of a model: reserving before it, charging and settling after it."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime

from rich.progress import Progress

from adapters.jetstream.keys import JetStreamKeys
from adapters.jetstream.snapshots import JetStreamSnapshots
from adapters.jetstream.store import JetStreamEventStore
from domain.aggregate import new_id
from domain.log import Metadata
from domain.models.model_call import ModelCall, TokenUsage
from handlers.models.grants import Grants
from handlers.repository import Repository
from handlers.work.cause import Cause
from ops.bench.measure import Aim, Measure, percentile
from ops.bench.stack import Sizes, Stack

IN_FLIGHT = (10, 100, 500)
"""Numbers of calls at a time."""

CALL_S = 0.05
"""Mean duration of a call, in seconds."""

USAGE = TokenUsage(
    prompt_tokens=400,
    completion_tokens=40,
    estimated=False,
    cached_tokens=None,
    cache_write_tokens=None,
    reasoning_tokens=None,
    raw={},
)


async def measure(stack: Stack, sizes: Sizes, bars: Progress) -> list[Measure]:
    bar = bars.add_task("quotas", total=len(IN_FLIGHT))
    await stack.make("quota.set", {"name": "calls", "unit": "calls", "period": "day", "limit": 10**9})
    await stack.make(
        "quota.set", {"name": "users", "scope": "key", "unit": "tokens", "period": "hour", "limit": 10**12}
    )
    keys = JetStreamKeys(stack.client.connection, stack.settings.vault())
    await keys.macs.establish()
    store = JetStreamEventStore(stack.client.connection, keys)
    grants = Grants(Repository(store, JetStreamSnapshots(stack.client.connection, keys)))
    measures = []
    aims = {(100, 50): Aim(at_most=1), (100, 99): Aim(at_most=5)}
    for number in IN_FLIGHT:
        times = await _times(grants, stack.client.tenant, number, sizes.singles)
        for percent in (50, 99):
            name, value = f"route.quota.p{percent}.of{number}", percentile(times, percent)
            measures.append(Measure(name, value, "ms", aim=aims.get((number, percent))))
        bars.advance(bar)
    await grants.close()
    return measures


async def _times(grants: Grants, tenant: str, in_flight: int, calls: int) -> list[float]:
    """Milliseconds that the quotas took of each call, after some calls that take the first leases."""
    times: list[float] = []

    async def call() -> None:
        cause = Cause(Metadata(new_id(), tenant, new_id(), actor="s_bench"), "message", new_id(), 1)
        began = time.perf_counter()
        reservation = await grants.reserve(cause, "lab", "lab:1", "small", prompt_tokens=2000, max_tokens=500)
        took = time.perf_counter() - began
        await asyncio.sleep(random.uniform(0, 2 * CALL_S))
        began = time.perf_counter()
        at = datetime.now(UTC)
        made = ModelCall.begin(
            ModelCall.Requested,
            new_id(),
            at,
            kind="chat",
            provider="lab",
            model="small",
            cause_noun="message",
            cause_id=cause.id,
            request={},
        )
        made.reserve(at, reservation.grants)
        made.complete(at, response="", finish_reason="stop", usage=USAGE, first_token_ms=1.0, duration_ms=1.0)
        reservation.charge(made, at, USAGE)
        reservation.settle(made)
        times.append(1000 * (took + time.perf_counter() - began))

    async def one_after_the_other() -> None:
        for _ in range(max(2, calls // 10)):
            await call()

    await asyncio.gather(*(call() for _ in range(in_flight)))
    times.clear()
    await asyncio.gather(*(one_after_the_other() for _ in range(in_flight)))
    return times
