"""Connections to the bus, and the commands of each: every role, key and login."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest

from domain.access.permissions import IN_ARCHIVES, OF_KEYS, ROLES
from domain.access.tenant import HOUSE
from handlers.access.connect import Grant, by_key, by_login
from handlers.routes import ROUTES
from tests.handlers.access.test_may import account, an_app, key
from tests.handlers.desk import Desk
from tests.memory import Memory

EVERYTHING = sorted(OF_KEYS)


@pytest.fixture
async def desk(memory: Memory) -> Desk:
    """A tenant with its owner."""
    desk = Desk(memory, "acme")
    await desk.done("tenant.create", tenant="acme", owner=await account(desk, "owner"), name="Acme")
    return desk


async def grant(desk: Desk, text: str = "app-1", *, after: timedelta = timedelta()) -> Grant | None:
    """The connection that a key has."""
    return by_key(await desk.registry.now(), sha256(text.encode()).digest(), datetime.now(UTC) + after)


def commands(permissions: Any) -> set[str]:
    return {name for name, route in ROUTES.items() if route.permission in {*permissions} - {"read"}}


@pytest.mark.parametrize("role", ROLES)
async def test_a_key_of_an_account_sends_what_its_role_may(desk: Desk, role: str) -> None:
    """And connects only where the role may read."""
    if role == "owner":
        [owner] = [tenant.owner for tenant in (await desk.registry.now()).tenants.values()]
    else:
        owner = await account(desk, role)
        await desk.done("tenant.add_member", tenant="acme", account=owner, role=role)
    actor = await key(desk, permissions=EVERYTHING, account=owner)
    found = await grant(desk)
    if "read" not in ROLES[role]:
        assert found is None
        return
    assert found
    assert found == Grant("acme", actor, sha256(b"app-1").hexdigest(), found.commands)
    assert {*found.commands} == commands(ROLES[role] & OF_KEYS)


@pytest.mark.parametrize("permission", EVERYTHING)
async def test_a_key_sends_what_its_permissions_allow(desk: Desk, permission: str) -> None:
    await key(desk, permissions=[permission])
    assert await grant(desk) is None or permission == "read"
    await key(desk, "app-2", permissions=[permission, "read"])
    found = await grant(desk, "app-2")
    assert found is not None
    assert {*found.commands} == commands({permission})
    assert not {*found.commands} & commands({"bus.manage", "key.manage", "member.manage", "account.manage", "door"})


async def test_what_does_not_cover_the_tenant_does_not_connect(desk: Desk) -> None:
    app, dataset = await an_app(desk), await desk.done("dataset.create", name="D")
    await key(desk, "of-app", permissions=["chat", "read"], apps=[app])
    await key(desk, "of-dataset", permissions=["dataset.query", "read"], datasets=[dataset])
    assert [await grant(desk, text) for text in ("of-app", "of-dataset", "unknown", "")] == [None] * 4


async def test_what_has_ended_does_not_connect(desk: Desk) -> None:
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    actor = await key(desk, permissions=["read"], expires_at=soon)
    assert await grant(desk)
    assert await grant(desk, after=timedelta(hours=2)) is None
    await desk.done("api_key.replace", api_key=actor[2:], digest=sha256(b"new").hexdigest(), hint="ab", overlap_s=60)
    for text in ("app-1", "new"):
        assert (found := await grant(desk, text))
        assert (found.actor, found.proof) == (actor, sha256(text.encode()).hexdigest())
    assert await grant(desk, after=timedelta(seconds=61)) is None
    assert await grant(desk, "new", after=timedelta(seconds=61))
    await desk.done("api_key.revoke", api_key=actor[2:])
    assert await grant(desk, "new") is None


@pytest.mark.parametrize("taken", ["role", "membership", "account"])
async def test_a_key_ends_or_shrinks_with_its_account(desk: Desk, taken: str) -> None:
    owner = await account(desk, "robot")
    await desk.done("tenant.add_member", tenant="acme", account=owner, role="editor")
    await key(desk, permissions=EVERYTHING, account=owner)
    assert (before := await grant(desk))
    if taken == "role":
        await desk.done("tenant.set_role", tenant="acme", account=owner, role="viewer")
        after = await grant(desk)
        assert after
        assert (before.actor, after.commands) == (after.actor, ())
        return
    if taken == "membership":
        await desk.done("tenant.remove_member", tenant="acme", account=owner)
    else:
        await desk.done("account.disable", account=owner)
    assert await grant(desk) is None


async def test_in_an_archived_tenant_a_key_reads_and_ends(desk: Desk) -> None:
    await key(desk, permissions=EVERYTHING)
    await desk.done("tenant.archive", tenant="acme")
    found = await grant(desk)
    assert found
    assert {*found.commands} == commands(OF_KEYS & IN_ARCHIVES) != commands(OF_KEYS)
    await desk.done("tenant.unarchive", tenant="acme")
    assert (found := await grant(desk))
    assert {*found.commands} == commands(OF_KEYS)


async def test_a_login_connects_while_it_is_open(desk: Desk) -> None:
    async def found(tenant: str = "acme", name: str = "crm") -> Grant | None:
        return by_login(await desk.registry.now(), tenant, name, datetime.now(UTC))

    assert await found() is None
    first = await desk.send("bus_login.open", name="crm")
    assert (grant := await found())
    assert (grant.actor, grant.proof, {*grant.commands}) == ("s_crm", first.command, commands(OF_KEYS))
    again = await desk.send("bus_login.open", name="crm")
    assert (grant := await found())
    assert grant.proof == again.command
    assert [await found("other"), await found(name="other"), await found(HOUSE)] == [None] * 3
    await desk.done("bus_login.close", bus_login="crm")
    assert await found() is None
    await desk.send("bus_login.open", name="crm")
    assert await found()
