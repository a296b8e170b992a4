"""The contract of Counters."""

from __future__ import annotations

import asyncio

import pytest
from nats.aio.client import Client

from adapters.jetstream.counters import JetStreamCounters
from handlers.ports.counters import Counter, Counters
from tests.memory import Memory, MemoryCounters


def counters_of(place: Memory | Client) -> Counters:
    """Those of a process of its own."""
    return MemoryCounters(place) if isinstance(place, Memory) else JetStreamCounters(place)


@pytest.fixture
def counters(place: Memory | Client) -> Counters:
    return counters_of(place)


@pytest.mark.parametrize("period", ["minute", "day"])
async def test_adds_up(counters: Counters, tenant: str, period: str) -> None:
    counter = Counter(tenant, period, 7, "messages.tenant.all")
    assert [await counters.add(counter, amount) for amount in (1, 0, 41, -2, 0)] == [1, 1, 42, 40, 40]


async def test_each_counter_is_one_of_its_own(counters: Counters, tenant: str) -> None:
    counter = Counter(tenant, "minute", 7, "messages.tenant.all")
    others = [
        counter._replace(tenant=f"{tenant}x"),
        counter._replace(period="day"),
        counter._replace(number=8),
        counter._replace(name="bytes.tenant.all"),
    ]
    assert await counters.add(counter, 5) == 5
    assert [await counters.add(other, 1) for other in others] == [1, 1, 1, 1]


async def test_processes_that_add_at_once_lose_nothing(place: Memory | Client, tenant: str) -> None:
    """And each addition has a sum of its own, so that exactly those over a limit are refused."""
    counter = Counter(tenant, "minute", 7, "commands.tenant.all")
    processes = [counters_of(place) for _ in range(3)]
    sums = await asyncio.gather(*(process.add(counter, 2) for process in processes for _ in range(50)))
    assert sorted(sums) == list(range(2, 302, 2))


async def test_one_who_does_not_wait_for_the_sum_disturbs_no_other(place: Memory | Client, tenant: str) -> None:
    counter, counters = Counter(tenant, "minute", 7, "tokens.tenant.all"), counters_of(place)
    tasks = [asyncio.create_task(counters.add(counter, 1)) for _ in range(5)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[3].cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in done] == [asyncio.CancelledError, int, int, asyncio.CancelledError, int]
