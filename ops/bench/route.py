"""Time that a route and quotas add to a call of a model: choosing and reserving before it, settling after it."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime

from rich.progress import Progress

from adapters.jetstream.keys import JetStreamKeys
from adapters.jetstream.snapshots import JetStreamSnapshots
from adapters.jetstream.store import JetStreamEventStore
from adapters.models.catalogue import LogCatalogue
from adapters.models.circuit import LocalOutages
from adapters.models.registry import TenantModels
from domain.aggregate import new_id
from domain.chat.app import ModelSettings
from domain.log import Metadata
from domain.models.model_call import ModelCall, TokenUsage
from domain.models.provider import Provider
from handlers.cause import Cause
from handlers.models.choose import Choose
from handlers.models.grants import Grants
from handlers.ports.models import ChatMessage, ChatModel, ChatRequest
from handlers.repository import Repository
from ops.bench.measure import Aim, Measure, percentile
from ops.bench.stack import Sizes, Stack
from ops.egress import egress
from projections.values.prices import Prices

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
    bar = bars.add_task("route and quotas", total=len(IN_FLIGHT))
    await stack.make("quota.set", {"name": "calls", "unit": "calls", "period": "day", "limit": 10**9})
    await stack.make(
        "quota.set", {"name": "users", "scope": "key", "unit": "tokens", "period": "hour", "limit": 10**12}
    )
    keys = JetStreamKeys(stack.client.connection, stack.settings.vault())
    await keys.macs.establish()
    store = JetStreamEventStore(stack.client.connection, keys)
    repository = Repository(store, JetStreamSnapshots(stack.client.connection, keys))
    grants, choose = Grants(repository), await _choosing(stack, repository)
    measures = []
    aims = {(100, 50): Aim(at_most=1), (100, 99): Aim(at_most=5)}
    for number in IN_FLIGHT:
        both, quota = await _times(choose, grants, stack.client.tenant, number, sizes.singles)
        for percent in (50, 99):
            aim = aims.get((number, percent))
            measures.append(Measure(f"route.p{percent}.of{number}", percentile(both, percent), "ms", aim=aim))
            measures.append(Measure(f"route.quota.p{percent}.of{number}", percentile(quota, percent), "ms"))
        bars.advance(bar)
    await grants.close()
    return measures


async def _choosing(stack: Stack, repository: Repository) -> Choose[ChatModel]:
    """The choice among three models in two groups, of two providers, which nothing is sent to."""
    for name in ("lab", "cloud"):
        provider = {"name": name, "base_url": "http://127.0.0.1:9/v1", "key": "k", "check": False}
        await stack.make("provider.register", provider)
    first, second = ({"provider": name, "name": "small"} for name in ("lab", "cloud"))
    groups = [{"strategy": "fastest", "members": [first, second]}, {"members": [{**first, "name": "large"}]}]
    await stack.make("route.configure", {"name": "fast", "groups": groups})

    async def registered(tenant: str, name: str) -> Provider | None:
        return await repository.get(Provider, tenant, name)

    models = TenantModels(registered, stack.settings.vault().open, egress(stack.settings))
    return Choose(repository, models, LocalOutages(), LogCatalogue(repository, Prices()))


async def _times(
    choose: Choose[ChatModel], grants: Grants, tenant: str, in_flight: int, calls: int
) -> tuple[list[float], list[float]]:
    """Milliseconds that the route and the quotas took of each call, and the quotas alone, after some calls that take
    the first leases."""
    both, times = list[float](), list[float]()
    settings = ModelSettings(provider="", name="", max_tokens=500, context_window=8192, parameters={}, route="fast")
    request = ChatRequest("", [ChatMessage("user", "When does the lock open?")], 500)

    async def call() -> None:
        cause = Cause(Metadata(new_id(), tenant, new_id(), actor="s_bench"), "message", new_id(), 1)
        began = time.perf_counter()
        course = choose(tenant, settings, request)
        way, _ = await course.next()
        chosen = time.perf_counter() - began
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
        began = time.perf_counter()
        await course.answered(way, 1.0, 440)
        course.left(way)
        both.append(times[-1] + 1000 * (chosen + time.perf_counter() - began))

    async def one_after_the_other() -> None:
        for _ in range(max(2, calls // 10)):
            await call()

    await asyncio.gather(*(call() for _ in range(in_flight)))
    both.clear()
    times.clear()
    await asyncio.gather(*(one_after_the_other() for _ in range(in_flight)))
    return both, times
