"""The commands of roles, services, keys and operators, and rights that are taken away while commands wait."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest

from domain.access.actor import ANON
from domain.access.register import Register
from domain.access.tenant import HOUSE
from domain.log import Outcome
from tests.handlers.desk import Desk
from tests.handlers.test_routes import PASSWORD
from tests.memory import Memory, MemoryRegistry


@pytest.fixture
async def desk(memory: Memory) -> Desk:
    """A tenant with its owner."""
    desk = Desk(memory, "acme")
    await desk.done("tenant.create", tenant="acme", owner=await account(desk, "owner"), name="Acme")
    return desk


async def account(desk: Desk, name: str) -> str:
    return await desk.done("account.create", email=f"{name}@example.com", name=name)


async def member(desk: Desk, role: str, tenant: str = "acme") -> str:
    """The actor of a new member."""
    new = await account(desk, f"{role}-{tenant}")
    await desk.done("tenant.add_member", tenant=tenant, account=new, role=role)
    return f"a_{new}"


async def key(desk: Desk, text: str = "app-1", **fields: Any) -> str:
    """The actor of a new key."""
    digest = sha256(text.encode()).hexdigest()
    id = await desk.done(
        "api_key.create", **{"name": "K", "digest": digest, "hint": "abcd", "permissions": ["chat"]} | fields
    )
    return f"k_{id}"


async def an_app(desk: Desk) -> str:
    app = await desk.done("app.create", name="A")
    await desk.done("app.configure", app=app)
    return app


def code(outcome: Outcome) -> str | None:
    return outcome.code


@pytest.mark.parametrize(
    ("role", "may"),
    [
        ("admin", {"app.create", "dataset.create", "api_key.create", "provider.register"}),
        ("editor", {"app.create", "dataset.create"}),
        ("member", set()),
        ("dataset_operator", {"dataset.create"}),
        ("viewer", set()),
    ],
)
async def test_a_role_may_send_its_commands(desk: Desk, role: str, may: set[str]) -> None:
    actor = await member(desk, role)
    sent: dict[str, dict[str, Any]] = {
        "app.create": {"name": "A"},
        "dataset.create": {"name": "D"},
        "api_key.create": {"name": "K", "digest": "1" * 64, "hint": "ab", "permissions": ["chat"]},
        "provider.register": {"name": "lab", "base_url": "https://models.example.com/v1"},
        "bus_login.open": {"name": "crm"},
        "limits.impose": {"quantity": "messages", "period": "day", "most": 1},
    }
    outcomes = {name: await desk.send(name, fields, actor=actor) for name, fields in sent.items()}
    assert {name for name, outcome in outcomes.items() if outcome.status == "accepted"} == may
    assert {outcome.code for name, outcome in outcomes.items() if name not in may} == {"forbidden"}


async def test_a_member_of_another_tenant_may_nothing_here(desk: Desk) -> None:
    await desk.done("tenant.create", tenant="other", owner=await account(desk, "stranger"), name="Other")
    actor = await member(desk, "admin", "other")
    assert code(await desk.send("app.create", name="A", actor=actor)) == "forbidden"
    assert code(await desk.send("tenant.rename", tenant="acme", name="Mine", actor=actor)) == "forbidden"
    assert (await desk.send("tenant.rename", tenant="other", name="Mine", actor=actor)).status == "accepted"


@pytest.mark.parametrize("taken", ["role", "membership", "account", "everything"])
async def test_a_role_that_was_taken_away_stops_commands_that_wait(desk: Desk, taken: str) -> None:
    actor = await member(desk, "editor")
    assert (await desk.send("app.create", name="A", actor=actor)).status == "accepted"
    id = actor.removeprefix("a_")
    if taken == "role":
        await desk.done("tenant.set_role", tenant="acme", account=id, role="viewer")
    elif taken == "membership":
        await desk.done("tenant.remove_member", tenant="acme", account=id)
    elif taken == "account":
        await desk.done("account.disable", account=id)
    else:
        await desk.done("account.erase", account=id)
    assert code(await desk.send("app.create", name="A", actor=actor)) == "forbidden"


async def test_operators_are_members_of_the_house(desk: Desk) -> None:
    await desk.done("tenant.create", tenant=HOUSE, owner=await account(desk, "chief"), name="Operators")
    operator, guest = await member(desk, "admin", HOUSE), await member(desk, "viewer", HOUSE)
    for name, fields in {
        "app.create": {"name": "A"},
        "bus_login.open": {"name": "crm"},
        "account.create": {"email": "new@example.com", "name": "New"},
        "tenant.rename": {"tenant": "acme", "name": "B"},
    }.items():
        assert (await desk.send(name, fields, actor=operator)).status == "accepted"
        assert code(await desk.send(name, fields, actor=guest)) == "forbidden"


async def test_an_account_changes_itself_and_no_other(desk: Desk) -> None:
    one, other = await account(desk, "one"), await account(desk, "two")
    for name, fields in {"account.change_password": {"password": PASSWORD}, "account.sign_out": {}}.items():
        assert (await desk.send(name, {"account": one, **fields}, actor=f"a_{one}")).status == "accepted"
        assert code(await desk.send(name, {"account": other, **fields}, actor=f"a_{one}")) == "forbidden"
    assert code(await desk.send("account.disable", account=one, actor=f"a_{one}")) == "forbidden"


async def test_an_owner_is_not_erased_before_the_transfer(desk: Desk) -> None:
    heir = await account(desk, "heir")
    [owner] = [it.owner for it in (await desk.registry.now()).tenants.values()]
    assert code(await desk.send("account.erase", account=owner)) == "owner"
    await desk.done("tenant.transfer", tenant="acme", account=heir)
    assert (await desk.send("account.erase", account=owner)).status == "accepted"


async def test_services_and_keys_manage_neither_keys_nor_members(desk: Desk) -> None:
    every = await key(desk, permissions=["chat", "app.manage", "operate"])
    for actor in ("s_crm", every):
        assert (await desk.send("app.create", name="A", actor=actor)).status == "accepted"
        for name, fields in {
            "api_key.create": {"name": "K", "digest": "4" * 64, "hint": "ab", "permissions": ["chat"]},
            "api_key.revoke": {"api_key": every.removeprefix("k_")},
            "tenant.invite": {
                "tenant": "acme",
                "digest": "1" * 64,
                "role": "admin",
                "ends_at": "2999-01-01T00:00:00Z",
            },
            "account.create": {"email": "x@example.com", "name": "X"},
            "tenant.accept": {"tenant": "acme", "digest": "1" * 64, "account": every.removeprefix("k_")},
        }.items():
            assert code(await desk.send(name, fields, actor=actor)) == "forbidden"


async def test_a_key_of_an_app_is_for_that_app(desk: Desk) -> None:
    mine, other = await an_app(desk), await an_app(desk)
    theirs = await desk.done("message.send", app=other, query="?")
    actor = await key(desk, apps=[mine])
    talk = await desk.send("message.send", app=mine, query="?", actor=actor)
    assert talk.status == "accepted"
    conversation = talk.ids["conversation"]
    for name, fields, expected in (
        ("message.send", {"app": other, "query": "?"}, "forbidden"),
        ("message.send", {"app": mine, "query": "?", "conversation": theirs}, "forbidden"),
        ("message.send", {"app": mine, "query": "?", "conversation": conversation}, None),
        ("conversation.rename", {"conversation": theirs, "name": "x"}, "forbidden"),
        ("conversation.rename", {"conversation": conversation, "name": "x"}, None),
        ("conversation.fork", {"conversation": theirs, "message": theirs}, "forbidden"),
        ("app.delete", {"app": mine}, "forbidden"),
    ):
        assert code(await desk.send(name, fields, actor=actor)) == expected, (name, fields)


async def test_a_key_of_a_knowledge_base_is_for_that_one(desk: Desk) -> None:
    mine, other = [await desk.done("dataset.create", name=name) for name in "AB"]
    theirs = await desk.done("document.upload", dataset=other, name="a.txt", text="x")
    actor = await key(desk, datasets=[mine], permissions=["dataset.edit", "dataset.query", "dataset.manage"])
    own = await desk.send("document.upload", dataset=mine, name="a.txt", text="x", actor=actor)
    assert own.status == "accepted"
    for name, fields, expected in (
        ("document.upload", {"dataset": other, "name": "a.txt", "text": "x"}, "forbidden"),
        ("document.delete", {"document": theirs}, "forbidden"),
        ("document.delete", {"document": own.ids["document"]}, None),
        ("dataset.test", {"datasets": [mine, other], "query": "?"}, "forbidden"),
        ("dataset.create", {"name": "C"}, "forbidden"),
        ("dataset.delete", {"dataset": mine}, None),
    ):
        assert code(await desk.send(name, fields, actor=actor)) == expected, (name, fields)


async def test_a_revoked_or_ended_key_may_nothing(desk: Desk) -> None:
    revoked, soon = await key(desk), await key(desk, "app-2", expires_at=_in(0.05))
    app = await an_app(desk)
    assert (await desk.send("message.send", app=app, query="?", actor=revoked)).status == "accepted"
    await desk.done("api_key.revoke", api_key=revoked.removeprefix("k_"))
    while datetime.now(UTC) <= (await desk.registry.now()).keys["acme", soon.removeprefix("k_")].expires_at:  # type: ignore[operator]
        pass
    for actor in (revoked, soon, "k_unknown"):
        assert code(await desk.send("message.send", app=app, query="?", actor=actor)) == "forbidden"


async def test_a_key_of_an_account_ends_with_its_role(desk: Desk) -> None:
    owner = await member(desk, "editor")
    account = owner.removeprefix("a_")
    actor = await key(desk, account=account, permissions=["app.manage", "provider.manage"])
    assert (await desk.send("app.create", name="A", actor=actor)).status == "accepted"
    fields = {"name": "lab", "base_url": "https://models.example.com/v1"}
    assert code(await desk.send("provider.register", fields, actor=actor)) == "forbidden"
    await desk.done("tenant.set_role", tenant="acme", account=account, role="member")
    assert code(await desk.send("app.create", name="A", actor=actor)) == "forbidden"


async def test_a_key_is_found_by_its_digest_until_it_ends(desk: Desk) -> None:
    actor = await key(desk, "app-old")
    old, new, now = sha256(b"app-old").digest(), sha256(b"app-new").digest(), datetime.now(UTC)
    await desk.done("api_key.replace", api_key=actor.removeprefix("k_"), digest=new.hex(), hint="wxyz", overlap_s=60)
    register = await desk.registry.now()
    late = now + timedelta(minutes=2)
    assert [register.key(each, now) is not None for each in (old, new, b"other")] == [True, True, False]
    assert [register.key(each, late) is not None for each in (old, new)] == [False, True]


async def test_another_tenant_does_not_take_a_digest(desk: Desk) -> None:
    """The first key with a digest keeps it."""
    await key(desk)
    stranger = Desk(desk.server, "stranger")
    await key(stranger)
    found = (await desk.registry.now()).key(sha256(b"app-1").digest(), datetime.now(UTC))
    assert found is not None
    assert found.tenant == "acme"


async def test_an_archived_tenant_changes_no_more(desk: Desk) -> None:
    app, actor = await an_app(desk), await key(desk)
    await desk.done("tenant.archive", tenant="acme")
    for sender in (ANON, "s_crm", actor):
        assert code(await desk.send("message.send", app=app, query="?", actor=sender)) == "archived"
    assert (await desk.send("api_key.revoke", api_key=actor.removeprefix("k_"))).status == "accepted"
    assert (await desk.send("end_user.erase", user="ada")).status == "accepted"
    await desk.done("tenant.unarchive", tenant="acme")
    assert (await desk.send("message.send", app=app, query="?")).status == "accepted"


async def test_an_address_gets_another_account_once_the_first_is_erased(desk: Desk) -> None:
    first = await account(desk, "grace")
    assert code(await desk.send("account.create", email="Grace@Example.com", name="Grace")) == "exists"
    await desk.done("account.erase", account=first)
    second = await account(desk, "grace")
    assert second != first
    [created] = await desk.events("account", second)
    assert vars(created)["email"] == "grace@example.com"
    [created, *_] = await desk.events("account", first)
    assert (vars(created)["email"], vars(created)["password"]) == ("", "")


async def test_a_refused_account_leaves_no_key(desk: Desk, memory: Memory) -> None:
    before = set(memory.keys)
    assert code(await desk.send("account.create", email="x@example.com", name="X", actor="s_crm")) == "forbidden"
    assert set(memory.keys) == before


async def test_houses_and_tenants_have_commands_of_their_own(desk: Desk) -> None:
    house = Desk(desk.server, HOUSE)
    assert await house.fails("app.create", name="A") == ("invalid", "subject")


def _in(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


async def test_a_right_that_is_new_is_looked_for_once_more(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rejection is for ever, and the register may lag behind a moment."""
    before = await desk.registry.now()
    actor = await key(desk, permissions=["app.manage"])

    async def stale() -> Register:
        return before

    monkeypatch.setattr(desk.registry, "now", stale)
    monkeypatch.setattr(desk.registry, "again", MemoryRegistry.now.__get__(desk.registry))
    assert (await desk.send("app.create", name="A", actor=actor)).status == "accepted"
    assert code(await desk.send("dataset.create", name="A", actor=actor)) == "forbidden"
