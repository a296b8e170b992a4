"""One process counts the work that waits, and the others know about how much there is."""

from __future__ import annotations

import asyncio

import pytest
from nats.aio.client import Client

from adapters.jetstream import waiting
from adapters.jetstream.waiting import Announcer, NatsWaiting


async def heard(waiting: NatsWaiting, tenant: str, quantity: str, count: int) -> None:
    async with asyncio.timeout(5):
        while waiting.count(tenant, quantity) != count:
            await asyncio.sleep(0.01)


@pytest.fixture
async def known(nc: Client) -> NatsWaiting:
    found = NatsWaiting(nc)
    await found.start()
    return found


async def test_what_begins_here_counts_until_the_next_count(nc: Client, known: NatsWaiting, tenant: str) -> None:
    assert known.count(tenant, "messages") == 0
    for _ in range(3):
        known.begin(tenant, "messages")
    assert (known.count(tenant, "messages"), known.count(tenant, "documents")) == (3, 0)
    announcer = Announcer(nc)
    await announcer.announce({tenant: {"messages": 2, "documents": 7}})
    await heard(known, tenant, "messages", 2)
    known.begin(tenant, "messages")
    assert (known.count(tenant, "messages"), known.count(tenant, "documents")) == (3, 7)
    assert known.count(f"{tenant}x", "messages") == 0


async def test_a_tenant_that_has_nothing_left_is_announced(nc: Client, known: NatsWaiting, tenant: str) -> None:
    announcer = Announcer(nc)
    await announcer.announce({tenant: {"messages": 2}})
    await heard(known, tenant, "messages", 2)
    await announcer.announce({})
    await heard(known, tenant, "messages", 0)


async def test_a_count_that_is_not_renewed_is_forgotten(
    nc: Client, known: NatsWaiting, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that nothing is refused for ever when no process counts."""
    await Announcer(nc).announce({tenant: {"messages": 2}})
    await heard(known, tenant, "messages", 2)
    known.begin(tenant, "messages")
    monkeypatch.setattr(waiting, "KEPT_S", 0.0)
    assert known.count(tenant, "messages") == 0


async def test_counts_that_are_forgotten_leave_memory(
    known: NatsWaiting, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "KEPT", 10)
    for number in range(10):
        known.begin(f"{tenant}{number}", "messages")
    monkeypatch.setattr(waiting, "KEPT_S", 0.0)
    known.begin(tenant, "messages")
    assert list(known._known) == [tenant]


async def test_what_is_no_count_is_ignored(nc: Client, known: NatsWaiting, tenant: str) -> None:
    await nc.publish(f"waiting.{tenant}", b"{")
    await Announcer(nc).announce({tenant: {"messages": 1}})
    await heard(known, tenant, "messages", 1)
