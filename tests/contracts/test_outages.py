"""The contract of Outages."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from nats.aio.client import Client

from adapters.jetstream.outages import NatsOutages
from adapters.models.circuit import LocalOutages
from handlers.ports.outages import Outage, Outages
from tests.memory import Memory

DOWN = Outage("It is silent.", 5, 10.0, 1_790_000_000.5)


@pytest.fixture
async def workers(place: Memory | Client) -> list[Outages]:
    """The outages as two processes see them."""
    if isinstance(place, Memory):
        return 2 * [LocalOutages()]
    found = [NatsOutages(place), NatsOutages(place)]
    for each in found:
        await each.start()
    return list(found)


async def known(outages: Outages, tenant: str, expected: Outage | None, provider: str = "one") -> None:
    async with asyncio.timeout(5):
        while outages.known(tenant, provider) != expected:
            await asyncio.sleep(0.01)


async def test_a_change_is_known_to_all(workers: list[Outages], tenant: str) -> None:
    mine, other = workers
    assert mine.known(tenant, "one") is None
    assert await mine.change(tenant, "one", lambda _: DOWN) == DOWN
    assert mine.known(tenant, "one") == DOWN
    await known(other, tenant, DOWN)
    assert await other.change(tenant, "one", lambda outage: replace(outage or DOWN, pause_s=20.0)) == replace(
        DOWN, pause_s=20.0
    )
    await known(mine, tenant, replace(DOWN, pause_s=20.0))


async def test_an_outage_ends_for_all_and_may_begin_again(workers: list[Outages], tenant: str) -> None:
    mine, other = workers
    await mine.change(tenant, "one", lambda _: DOWN)
    assert await other.change(tenant, "one", lambda _: None) is None
    await known(mine, tenant, None)
    assert await mine.change(tenant, "one", lambda outage: outage or replace(DOWN, failures=7)) == replace(
        DOWN, failures=7
    )


async def test_what_stays_the_same_is_read(workers: list[Outages], tenant: str) -> None:
    mine, other = workers
    assert await mine.change(tenant, "one", lambda outage: outage) is None
    await mine.change(tenant, "one", lambda _: DOWN)
    assert await other.change(tenant, "one", lambda outage: outage) == DOWN
    assert other.known(tenant, "one") == DOWN


async def test_tenants_and_providers_are_apart(workers: list[Outages], tenant: str) -> None:
    mine, _ = workers
    await mine.change(tenant, "one", lambda _: DOWN)
    assert await mine.change(tenant, "two", lambda outage: outage) is None
    assert await mine.change(f"{tenant}x", "one", lambda outage: outage) is None


async def test_of_many_at_once_each_sees_the_change_before(workers: list[Outages], tenant: str) -> None:
    """As when several workers want to let one call through: the first is the only one."""

    def let_through(probe: str, outage: Outage | None) -> Outage:
        assert outage is not None
        return outage if outage.probe else replace(outage, probe=probe)

    await workers[0].change(tenant, "one", lambda _: DOWN)
    found = await asyncio.gather(
        *(
            workers[number % 2].change(tenant, "one", lambda outage, number=number: let_through(f"p{number}", outage))
            for number in range(6)
        )
    )
    [probe] = {outage.probe for outage in found if outage}
    assert probe.startswith("p")
    await known(workers[0], tenant, replace(DOWN, probe=probe))
