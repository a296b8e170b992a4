"""The contract of Registry."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256

import orjson
import pytest
from nats.aio.client import Client

from adapters.jetstream.keys import JetStreamKeys
from adapters.jetstream.registry import JetStreamRegistry
from domain.access.api_key import ApiKey
from domain.access.register import Register
from domain.aggregate import new_id
from handlers.ports.access import Registry
from tests.handlers.desk import Desk
from tests.memory import Memory, MemoryKeys, MemoryRegistry

REVOKED_WITHIN_S = 1.0
"""Maximum time until every process knows of a change."""


@pytest.fixture
async def desk(place: Memory | Client, tenant: str) -> Desk:
    desk = Desk(place, tenant)
    if isinstance(desk.keys, JetStreamKeys):
        await desk.keys.macs.establish()
    return desk


@pytest.fixture
async def registry(place: Memory | Client, desk: Desk) -> Registry:
    """The register as another process has it."""
    if isinstance(place, Memory):
        assert isinstance(desk.keys, MemoryKeys)
        return MemoryRegistry(place, desk.keys)
    registry = JetStreamRegistry(place, JetStreamKeys(place, desk.vault))
    await registry.start()
    return registry


async def key(desk: Desk, text: str) -> tuple[str, bytes]:
    """Id and digest of a new key."""
    digest = sha256(f"{desk.tenant} {text}".encode())
    id = await desk.done("api_key.create", name="K", digest=digest.hexdigest(), hint="abcd", permissions=["chat"])
    return id, digest.digest()


async def soon(registry: Registry, holds: Callable[[Register], bool]) -> None:
    async with asyncio.timeout(REVOKED_WITHIN_S):
        while not holds(await registry.now()):
            await asyncio.sleep(0.01)


async def test_a_key_is_known_and_revoked_everywhere_within_a_second(desk: Desk, registry: Registry) -> None:
    id, digest = await key(desk, "one")
    await soon(registry, lambda it: it.key(digest, datetime.now(UTC)) is not None)
    await desk.done("api_key.revoke", api_key=id)
    await soon(registry, lambda it: it.key(digest, datetime.now(UTC)) is None)


async def test_another_look_finds_what_is_recorded(desk: Desk, registry: Registry) -> None:
    """At once, whether there was a notice of it or not."""
    for text in ("first", "second", "third"):
        await registry.now()
        _, digest = await key(desk, text)
        assert (await registry.again()).key(digest, datetime.now(UTC))


async def test_a_role_is_known_and_taken_away_within_a_second(desk: Desk, registry: Registry) -> None:
    owner, member = [
        await desk.done("account.create", email=f"{name}-{new_id()}@example.com", name=name) for name in ("ada", "bob")
    ]
    await desk.done("tenant.create", tenant=desk.tenant, owner=owner, name="T")
    await desk.done("tenant.add_member", tenant=desk.tenant, account=member, role="editor")
    await soon(registry, lambda it: it.role(desk.tenant, member) == "editor")
    await desk.done("tenant.remove_member", tenant=desk.tenant, account=member)
    await soon(registry, lambda it: it.role(desk.tenant, member) is None)
    await desk.done("account.disable", account=owner)
    await soon(registry, lambda it: it.role(desk.tenant, owner) is None)


async def test_it_has_no_words_of_people(desk: Desk, registry: Registry) -> None:
    account = await desk.done("account.create", email=f"eve-{new_id()}@example.com", name="Eve")
    await soon(registry, lambda it: account in it.accounts)
    assert "Eve" not in repr(vars((await registry.now()).accounts[account]))


async def test_it_starts_with_what_the_log_has(desk: Desk, place: Memory | Client, registry: Registry) -> None:
    found = [await key(desk, str(number)) for number in range(20)]
    await desk.done("api_key.revoke", api_key=found[0][0])
    await soon(registry, lambda it: it.key(found[-1][1], datetime.now(UTC)) is not None)
    if isinstance(place, Client):
        registry = JetStreamRegistry(place, JetStreamKeys(place, desk.vault))
    known = [(await registry.now()).key(digest, datetime.now(UTC)) is not None for _, digest in found]
    assert known == [False, *[True] * 19]


async def test_a_forged_key_is_none(desk: Desk, nc: Client, registry: Registry) -> None:
    """A message that another program wrote into the log opens no door."""
    forged = ApiKey.begin(
        ApiKey.Created,
        new_id(),
        datetime.now(UTC),
        name="Forged",
        digest=sha256(b"forged").hexdigest(),
        hint="abcd",
        permissions=["chat"],
        apps=[],
        datasets=[],
        expires_at=None,
        account=None,
    )
    [event] = forged.pending()
    state = {name: value for name, value in vars(event).items() if name not in ("originator_id", "originator_version")}
    body = orjson.dumps([{"type": event.TOPIC, "version": 1, "state": state}])
    headers = {"Nats-Msg-Id": new_id(), "Headrace-Types": event.TOPIC, "Headrace-Schema": "1"}
    await nc.jetstream().publish(f"evt.{desk.tenant}.api_key.{forged.id}", body, headers=headers)
    _, digest = await key(desk, "true")
    await soon(registry, lambda it: it.key(digest, datetime.now(UTC)) is not None)
    assert (await registry.now()).key(sha256(b"forged").digest(), datetime.now(UTC)) is None
