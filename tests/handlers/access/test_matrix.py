"""Every command × every actor × own and foreign tenant, generated from the routes: nothing crosses.

The expectation is written apart from the judgement: by the permission of each route, and by what each actor has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import orjson
import pytest

from domain.access.permissions import OF_KEYS, OF_SERVICES, OPERATORS, PERMISSIONS, ROLES
from domain.access.tenant import HOUSE
from domain.aggregate import new_id
from domain.log import Metadata
from handlers.dispatch import Delivery
from handlers.routes import ROUTES
from tests.handlers.desk import Desk
from tests.handlers.test_routes import ACCEPTED, filled, world
from tests.memory import Memory

_ = world

FORBIDDEN = {"forbidden"}
EXAMPLES: Mapping[str, dict[str, Any]] = {name: fields for name, fields, *_ in reversed(ACCEPTED)}
TAKEN_BACK = {
    "document.enable": "document.disable",
    "document.unarchive": "document.archive",
    "segment.enable": "segment.disable",
    "account.enable": "account.disable",
    "tenant.unarchive": "tenant.archive",
    "conversation.unpin": "conversation.pin",
    "message.unsave": "message.save",
}


@dataclass(frozen=True)
class Actor:
    """An actor, and the permissions that it must have in its own tenant."""

    name: str
    permissions: frozenset[str]


@pytest.fixture
def desk(memory: Memory) -> Desk:
    return Desk(memory, "mill")


async def account(desk: Desk, name: str) -> str:
    return await desk.done("account.create", email=f"{name}@example.com", name=name)


async def key(desk: Desk, name: str, permissions: frozenset[str], **fields: Any) -> str:
    digest = sha256(f"{desk.tenant} {name}".encode()).hexdigest()
    scope = {"permissions": sorted(permissions), **fields}
    return "k_" + await desk.done("api_key.create", name=name, digest=digest, hint="abcd", **scope)


async def actors(desk: Desk) -> dict[str, Actor]:
    """Every kind of actor of a tenant with an owner."""
    found = {"a service": Actor("s_services", frozenset(OF_SERVICES))}
    owner = (await desk.registry.now()).tenants[desk.tenant].owner
    for role, permissions in ROLES.items():
        if role == "owner":
            id = owner
        else:
            id = await account(desk, f"{role}-{desk.tenant}")
            await desk.done("tenant.add_member", tenant=desk.tenant, account=id, role=role)
        found[f"the {role}"] = Actor(f"a_{id}", frozenset(permissions))
    found["a key with all"] = Actor(await key(desk, "all", OF_KEYS), frozenset(OF_KEYS))
    for permission in sorted(OF_KEYS):
        of_one = frozenset({permission})
        found[f"a key with {permission}"] = Actor(await key(desk, permission, of_one), of_one)
    revoked = await key(desk, "revoked", OF_KEYS)
    await desk.done("api_key.revoke", api_key=revoked.removeprefix("k_"))
    disabled, erased = [await account(desk, f"{name}-{desk.tenant}") for name in ("disabled", "erased")]
    for id, verb in ((disabled, "disable"), (erased, "erase")):
        await desk.done("tenant.add_member", tenant=desk.tenant, account=id, role="admin")
        await desk.done(f"account.{verb}", account=id)
    nothing = frozenset[str]()
    strangers = {
        "a revoked key": revoked,
        "a disabled admin": f"a_{disabled}",
        "an erased admin": f"a_{erased}",
        "an unknown key": f"k_{new_id()}",
        "an unknown account": f"a_{new_id()}",
        "an actor of before": "anonymous",
    }
    return found | {name: Actor(actor, nothing) for name, actor in strangers.items()}


async def sent(desk: Desk, name: str, fields: dict[str, Any], actor: str) -> str | None:
    """The code of the outcome."""
    outcome = await desk.send(name, fields, actor=actor)
    return outcome.code


@pytest.mark.parametrize("name", sorted(ROUTES))
async def test_a_command_is_for_those_with_its_permission(desk: Desk, world: Any, name: str) -> None:
    """In the own tenant: what is judged away is `forbidden`, what is not is never that."""
    fields = filled(EXAMPLES[TAKEN_BACK.get(name, name)], world)
    route, own = ROUTES[name], await actors(desk)
    for who, actor in own.items():
        itself = route.permission == "account.own" and actor.name == f"a_{fields['account']}"
        allowed = route.permission in actor.permissions or itself
        code = await sent(desk, name, fields, actor.name)
        assert (code not in FORBIDDEN) == allowed, (name, who, code)


@pytest.mark.parametrize("name", sorted(ROUTES))
async def test_nothing_crosses_to_another_tenant(desk: Desk, world: Any, name: str) -> None:
    """Actors of another tenant: in this tenant they may nothing, and in their own they reach nothing of this one."""
    other = Desk(desk.server, "other")
    await desk.done("tenant.create", tenant="other", owner=await account(desk, "stranger"), name="Other")
    fields = filled(EXAMPLES[TAKEN_BACK.get(name, name)], world)
    strangers, house = await actors(other), ROUTES[name].house
    before = len(desk.server.streams["EVENTS"].messages) if isinstance(desk.server, Memory) else 0
    for who, actor in strangers.items():
        if actor.name.startswith("s_") and not house:
            continue  # the bus lets it publish in its own tenant only
        assert await sent(desk, name, fields, actor.name) in FORBIDDEN, (name, who)
    assert isinstance(desk.server, Memory)
    assert len(desk.server.streams["EVENTS"].messages) == before
    if house:
        return
    mine = {subject for subject in _subjects(desk.server) if subject.startswith("evt.mill.")}
    at = {subject: len(desk.server.streams["EVENTS"].of(subject, 0)) for subject in mine}
    for actor in strangers.values():
        await sent(other, name, fields, actor.name)
    assert {subject: len(desk.server.streams["EVENTS"].of(subject, 0)) for subject in mine} == at


@pytest.mark.parametrize("name", sorted(ROUTES))
async def test_operators_are_of_the_house(desk: Desk, world: Any, name: str) -> None:
    await desk.done("tenant.create", tenant=HOUSE, owner=await account(desk, "chief"), name="House")
    fields = filled(EXAMPLES[TAKEN_BACK.get(name, name)], world)
    for role, permissions in ROLES.items():
        if role == "owner":
            continue
        id = await account(desk, f"{role}-of-the-house")
        await desk.done("tenant.add_member", tenant=HOUSE, account=id, role=role)
        code = await sent(desk, name, fields, f"a_{id}")
        reads = ROUTES[name].permission == "read" and "read" in permissions
        assert (code not in FORBIDDEN) == ("member.manage" in permissions or reads), (name, role, code)


SCOPED = {"app": "apps", "conversation": "apps", "dataset": "datasets", "document": "datasets"}


@pytest.mark.parametrize("name", sorted(name for name, route in ROUTES.items() if route.permission in OF_KEYS))
async def test_a_key_of_another_app_or_knowledge_base_reaches_nothing(desk: Desk, world: Any, name: str) -> None:
    app, dataset = await desk.done("app.create", name="Own"), await desk.done("dataset.create", name="Own")
    actor = await key(desk, "scoped", OF_KEYS, apps=[app], datasets=[dataset])
    fields = filled(EXAMPLES[TAKEN_BACK.get(name, name)], world)
    assert await sent(desk, name, fields, actor) in FORBIDDEN, name


def test_every_permission_is_tried() -> None:
    assert {route.permission for route in ROUTES.values()} == set(PERMISSIONS)
    assert OPERATORS.isdisjoint(OF_SERVICES | OF_KEYS)
    assert set(EXAMPLES) | set(TAKEN_BACK) == set(ROUTES)


async def test_the_house_takes_no_other_commands(desk: Desk) -> None:
    """Also from the operator."""
    for name, route in ROUTES.items():
        if route.house is False:
            id = new_id()
            delivery = Delivery(name, orjson.dumps({}), Metadata(id, HOUSE, id, actor="anon"), datetime.now(UTC))
            outcome = await desk.dispatch(delivery)
            assert (outcome.code, outcome.field) == ("invalid", "subject")


def _subjects(memory: Memory) -> set[str]:
    return {message.subject for message in memory.streams["EVENTS"].messages}
