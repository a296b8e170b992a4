from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import nats.errors
import pytest
from nats.aio.client import Client

from adapters.jetstream import key_uses
from adapters.jetstream.key_uses import JetStreamKeyUses
from handlers.ports.log import Unavailable

KEYS = ["a", "b", *map(str, range(1100))]


async def test_a_use_is_written_later_and_the_last_one_counts(nc: Client, tenant: str) -> None:
    door, other = JetStreamKeyUses(nc), JetStreamKeyUses(nc)
    door.used(tenant, "a")
    door.used(tenant, "b")
    assert await door.last(tenant, KEYS) == {}
    await door.write()
    first = await other.last(tenant, KEYS)
    assert set(first) == {"a", "b"}
    assert all(datetime.now(UTC) - at < timedelta(seconds=5) for at in first.values())
    other.used(tenant, "a")
    await other.write()
    second = await door.last(tenant, KEYS)
    assert second["a"] > first["a"]
    assert second["b"] == first["b"]


async def test_a_tenant_has_its_own_keys_only(nc: Client, tenant: str) -> None:
    uses = JetStreamKeyUses(nc)
    uses.used(tenant, "a")
    uses.used(f"{tenant}x", "b")
    await uses.write()
    assert set(await uses.last(tenant, KEYS)) == {"a"}


async def test_a_thousand_uses_of_a_key_are_one_write(nc: Client, tenant: str) -> None:
    uses, js = JetStreamKeyUses(nc), nc.jetstream()
    before = (await js.stream_info(key_uses.STREAM)).state.last_seq
    for _ in range(1000):
        uses.used(tenant, "a")
    await uses.write()
    await uses.write()
    assert (await js.stream_info(key_uses.STREAM)).state.last_seq == before + 1


async def test_uses_are_kept_while_the_bucket_is_away(nc: Client, tenant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    uses = JetStreamKeyUses(nc)

    async def away(*_: object, **__: object) -> None:
        raise nats.errors.TimeoutError

    uses.used(tenant, "a")
    with monkeypatch.context() as patch:
        patch.setattr(uses._js, "publish", away)
        with pytest.raises(Unavailable):
            await uses.write()
    await uses.write()
    assert set(await uses.last(tenant, KEYS)) == {"a"}


async def test_a_door_writes_each_minute_and_when_it_ends(
    nc: Client, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_uses, "INTERVAL_S", 0.01)
    uses = JetStreamKeyUses(nc)
    writing = asyncio.create_task(uses.keep_writing())
    uses.used(tenant, "a")
    async with asyncio.timeout(5):
        while not await uses.last(tenant, KEYS):
            await asyncio.sleep(0.01)
    monkeypatch.setattr(key_uses, "INTERVAL_S", 60)
    await asyncio.sleep(0.05)
    uses.used(tenant, "b")
    writing.cancel()
    with suppress(asyncio.CancelledError):
        await writing
    assert set(await uses.last(tenant, KEYS)) == {"a", "b"}
