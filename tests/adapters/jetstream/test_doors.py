"""Reports of doors: each sign-in, refusals summed up, and the first use of an actor from an address."""

from __future__ import annotations

import asyncio

import orjson
import pytest
from nats.aio.client import Client as Connection
from structlog.testing import capture_logs

from adapters.jetstream import doors
from adapters.jetstream.client import Client, NotSent
from adapters.jetstream.doors import DoorReports, Use
from domain.access.door import BROWSER
from domain.access.tenant import HOUSE

Sent = list[tuple[str, str, dict[str, object]]]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """The commands that were posted: tenant, name and payload."""
    found: Sent = []

    async def post(client: Client, name: str, payload: dict[str, object], id: str | None = None) -> str:
        await asyncio.sleep(0)
        found.append((client.tenant, name, orjson.loads(orjson.dumps(payload))))
        return str(id)

    monkeypatch.setattr(Client, "post", post)
    return found


def reports(known: str | None = None) -> DoorReports:
    async def find(use: Use) -> str | None:
        return known

    return DoorReports(Connection(), "viewer", find)


async def test_a_first_use_is_reported_once(sent: Sent) -> None:
    door = reports()
    origins = await asyncio.gather(*(door.origin("acme", "anon", "192.0.2.7", "Firefox") for _ in range(5)))
    assert len(set(origins)) == 1
    assert await door.origin("other", "anon", "192.0.2.7", "Firefox") == origins[0]
    assert await door.origin("acme", "k_gate", "192.0.2.7", "Firefox") not in origins
    assert await door.origin("acme", "anon", "192.0.2.8", "Firefox") not in origins
    fields = {"actor": "anon", "address": "192.0.2.7", "browser": "Firefox"}
    assert sent == [
        (HOUSE, "door.report_use", fields),
        ("acme", "door.report_use", fields | {"actor": "k_gate"}),
        (HOUSE, "door.report_use", fields | {"address": "192.0.2.8"}),
    ]


async def test_a_use_that_the_tables_know_is_not_reported_again(sent: Sent) -> None:
    assert await reports("the-report").origin("acme", "anon", "192.0.2.7", "Firefox") == "the-report"
    assert sent == []


async def test_only_so_much_is_remembered(sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "ADDRESSES", 2)
    door = reports()
    for address in ("1", "2", "3", "1"):
        await door.origin("acme", "anon", address, "")
    assert len(sent) == 4
    for address in "123":
        door.refused("key", address)
    await door.flush()
    assert [fields["address"] for _, name, fields in sent if name == "door.report_refusals"] == ["1", "2", ""]


async def test_the_name_of_a_browser_is_stored_as_far_as_it_can_be(sent: Sent) -> None:
    await reports().signed_in("token", "192.0.2.7", "Fire\0fox \udc80" + "x" * 999)
    [(_, _, fields)] = sent
    assert str(fields["browser"]).startswith("Firefox ?xx")
    assert len(str(fields["browser"])) == BROWSER


async def test_refusals_are_summed_up(sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "MOST", 2)
    door = reports()
    for address, count in {"a": 1, "b": 10_000, "c": 5, "d": 2}.items():
        for _ in range(count):
            door.refused("password", address)
    door.refused("key", "b")
    await door.flush()
    await door.flush()
    found = [(fields["credential"], fields["address"], fields["count"]) for _, _, fields in sent]
    assert found == [("password", "b", 10_000), ("password", "c", 5), ("password", "", 3), ("key", "", 1)]
    assert {(tenant, name) for tenant, name, _ in sent} == {(HOUSE, "door.report_refusals")}


async def test_a_door_that_closes_reports_what_it_has(sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "EVERY_S", 0.01)
    door = reports()
    running = asyncio.create_task(door.run())
    door.refused("link", "a")
    async with asyncio.timeout(5):
        while not sent:
            await asyncio.sleep(0.01)
    monkeypatch.setattr(doors, "EVERY_S", 60)
    await asyncio.sleep(0.05)
    door.refused("link", "b")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [fields["address"] for _, _, fields in sent] == ["a", "b"]


async def test_a_sign_in_that_cannot_be_reported_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    async def post(*_: object, **__: object) -> str:
        raise NotSent("The disk of NATS is full.")

    monkeypatch.setattr(Client, "post", post)
    with capture_logs() as logs:
        await reports().signed_in("password", "192.0.2.7", "Firefox", "ada")
    assert [(line["event"], line["account"], line["reason"]) for line in logs] == [
        ("not reported", "ada", "The disk of NATS is full.")
    ]
    with pytest.raises(NotSent):
        await reports().origin("acme", "anon", "192.0.2.7", "Firefox")
