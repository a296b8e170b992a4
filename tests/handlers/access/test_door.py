"""Reports of doors: who may send them, and whose key seals what is personal in them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from domain.access.actor import ANON
from domain.access.door import Door, month
from domain.access.tenant import HOUSE
from domain.aggregate import new_id
from domain.log import Commit, Metadata, Outcome, Subject
from handlers.dispatch import Delivery
from tests.handlers.desk import Desk
from tests.memory import Memory

CAME = {"address": "192.0.2.7", "browser": "Firefox"}
SIGN_IN = {"credential": "password", **CAME}


@pytest.fixture
def desk(memory: Memory) -> Desk:
    return Desk(memory, "acme")


async def report(desk: Desk, name: str, tenant: str = HOUSE, actor: str = ANON, /, **fields: Any) -> Outcome:
    id = new_id()
    metadata = Metadata(id, tenant, id, actor=actor, door="viewer")
    return await desk.dispatch(Delivery(name, orjson.dumps(fields), metadata, datetime.now(UTC)))


async def commit(desk: Desk, outcome: Outcome) -> Commit:
    assert outcome.status == "accepted", outcome
    [found] = await desk.store.load(Subject(outcome.metadata.tenant, Door.TOPIC, outcome.ids["door"]))
    return found


async def this_month(desk: Desk, tenant: str) -> str:
    """The person of the month, in a tenant."""
    person, _ = await desk.keys.last_person(tenant, month(datetime.now(UTC)))
    return person


async def test_an_account_seals_what_is_reported_of_it(desk: Desk) -> None:
    account = await desk.done("account.create", email="ada@example.com", name="Ada")
    for name, fields in (
        ("door.report_sign_in", {"account": account, **SIGN_IN}),
        ("door.report_use", {"actor": f"a_{account}", **CAME}),
    ):
        outcome = await report(desk, name, **fields)
        found = await commit(desk, outcome)
        assert found.metadata.person == account
        assert found.events[0].address == "192.0.2.7"  # type: ignore[attr-defined]
    await desk.done("account.erase", account=account)
    [event] = (await commit(desk, outcome)).events
    assert isinstance(event, Door.Used)
    assert (event.actor, event.address, event.browser) == (f"a_{account}", "", "")
    late = await commit(desk, await report(desk, "door.report_sign_in", account=account, **SIGN_IN))
    assert late.events[0].address == ""  # type: ignore[attr-defined]


async def test_the_month_seals_what_is_reported_without_a_person(desk: Desk) -> None:
    service = await desk.done("account.create_service", name="Billing")
    for tenant, name, fields in (
        (HOUSE, "door.report_sign_in", SIGN_IN),
        (HOUSE, "door.report_sign_in", {"account": service, **SIGN_IN}),
        (HOUSE, "door.report_sign_in", {"account": "no-account", **SIGN_IN}),
        (HOUSE, "door.report_refusals", {"credential": "key", "address": "192.0.2.7", "count": 41}),
        (HOUSE, "door.report_use", {"actor": "anon", **CAME}),
        ("acme", "door.report_use", {"actor": "k_gate", **CAME}),
        ("acme", "trace.search", {"search": "/traces?q=tide"}),
        ("acme", "trace.open", {"trace": "the-trace"}),
    ):
        person = (await commit(desk, await report(desk, name, tenant, **fields))).metadata.person
        assert person == await this_month(desk, tenant)


async def test_a_month_of_the_house_is_erased_and_no_other_name(desk: Desk) -> None:
    outcome = await report(desk, "door.report_use", actor="anon", **CAME)
    refused = await report(desk, "end_user.erase", user="ada@example.com")
    assert (refused.code, refused.field) == ("invalid", "user")
    erased = await report(desk, "end_user.erase", user=month(datetime.now(UTC)))
    assert (erased.status, erased.ids["end_user"]) == ("accepted", await this_month(desk, HOUSE))
    assert (await commit(desk, outcome)).events[0].address == ""  # type: ignore[attr-defined]


@pytest.mark.parametrize("actor", ["s_crm", "k_gate", "a_0193aaaa-0000-7000-8000-000000000001"])
@pytest.mark.parametrize("tenant", [HOUSE, "acme"])
async def test_only_doors_report(desk: Desk, tenant: str, actor: str) -> None:
    outcome = await report(desk, "door.report_sign_in", tenant, actor, **SIGN_IN)
    assert (outcome.status, outcome.code) == ("rejected", "forbidden")


async def test_who_reads_is_a_member_who_may(desk: Desk) -> None:
    owner, viewer, member = [
        await desk.done("account.create", email=f"{name}@example.com", name=name) for name in ("o", "v", "m")
    ]
    await desk.done("tenant.create", tenant="acme", owner=owner, name="Acme")
    await desk.done("tenant.add_member", tenant="acme", account=viewer, role="viewer")
    await desk.done("tenant.add_member", tenant="acme", account=member, role="member")
    read = [(await report(desk, "trace.open", "acme", f"a_{each}", trace="t")).code for each in (owner, viewer, member)]
    assert read == [None, None, "forbidden"]
