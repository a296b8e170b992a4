"""Messages in the log that Headrace did not write: they stop no other aggregate, and an operator discards them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from adapters.jetstream.macs import Macs
from adapters.postgres.quarantine import VERSION
from domain.aggregate import new_id
from handlers.work.progress import no_progress
from ops.servers.embedded import EmbeddedNats, EmbeddedPostgres
from ops.settings import Settings
from ops.upkeep.doctor import examine
from ops.upkeep.rebuild import check, rebuild
from ops.upkeep.verify import verify
from tests.conftest import fresh_database
from tests.journeys.stack import Stack

JUNK = (
    b'{"stream":"COMMANDS","seq":1}',
    b'"text"',
    b"[1]",
    b'[{"type":"app.created.v1"}]',
    b'[{"type":"app.created.v1","version":1,"state":{"timestamp":"yesterday"}}]',
    b"\xff\xfe",
    b"",
    b'[{"type":"app.deleted.v1","version":2,"state":{"timestamp":"2026-05-04T08:00:00+00:00"}}]',
)
"""Bodies in `EVENTS`; a worker could read the last one, but has not written it."""


@pytest.fixture(scope="module")
async def stack(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    home: Path = tmp_path_factory.mktemp("quarantine")
    async with EmbeddedNats(home) as nats, fresh_database(postgres) as url:
        settings = Settings.load(home=home, nats_url=nats.url, postgres_url=url)
        async with Stack.running(settings) as stack:
            yield stack


async def forge(stack: Stack, subject: str, body: bytes, headers: dict[str, str] | None = None) -> int:
    """Write to a stream of the log, past all that checks it."""
    return (await stack.client.stream.publish(subject, body, headers=headers)).seq


async def faults(stack: Stack) -> dict[str, list[str]]:
    checks = [each async for each in verify(stack.settings, timedelta(minutes=5), no_progress)]
    return {each.name: each.first for each in checks if each.faults}


async def test_what_is_no_commit_freezes_its_aggregate_until_it_is_discarded(stack: Stack) -> None:
    app = await stack.make("app.create", name="frozen")
    places = {f"EVENTS:{await forge(stack, f'evt.{stack.tenant}.app.{app}', body)}": body for body in JUNK}

    refused = await stack.refused("app.delete", app=app)
    assert refused["code"] == "quarantined"
    assert "is frozen" in refused["message"]
    other = await stack.make("app.create", name="free")
    await stack.until("SELECT FROM headrace.apps WHERE id = %(id)s", id=other)
    await stack.send("app.delete", app=other)
    await stack.until("SELECT FROM headrace_projection.quarantine WHERE stream = 'EVENTS' HAVING count(*) = 8")

    findings = {each.what: each async for each in examine(stack.settings)}
    assert not findings["quarantine"].good
    assert [place.replace(":", " ") in " ".join((await faults(stack))["events"]) for place in places] == [True] * 8
    assert [table.table for table in await check(stack.settings) if table.first] == []
    await rebuild(stack.settings)

    assert {each["place"] for each in (await stack.command("quarantine", "list"))[1]} == set(places)
    first = next(iter(places))
    [shown] = (await stack.command("quarantine", "show", first))[1]
    assert (shown["body"], shown["reason"].startswith("is no commit")) == (places[first].decode(), True)
    for place in places:
        code, [outcome] = await stack.command("quarantine", "discard", place)
        assert (code, outcome["status"]) == (0, "accepted")
    await stack.send("app.delete", app=app)
    await stack.until("SELECT WHERE NOT EXISTS (SELECT FROM headrace.apps WHERE id = %(id)s)", id=app)
    assert (await stack.command("quarantine", "list"))[1] == []
    assert await faults(stack) == {}
    assert (await stack.command("quarantine", "discard", "EVENTS:1"))[0] != 0


FORGED = {"name": "app.create", "status": "rejected", "at": "2026-05-04T08:00:00+00:00", "code": "invalid", "ids": {}}
FORGED |= dict.fromkeys(("stream", "sequence", "version", "message", "field", "excerpt", "correlation", "actor"))


@pytest.mark.parametrize("body", [{"stream": "COMMANDS", "seq": 2}, FORGED])
async def test_what_is_no_outcome_decides_nothing(stack: Stack, body: dict[str, object]) -> None:
    id = new_id()
    place = await forge(stack, f"out.{stack.tenant}.{id}", json.dumps(body | {"command": id}).encode())
    outcome = await stack.client.send("app.create", {"name": "mine"}, id=id, wait=20)
    assert outcome["status"] == "accepted"
    await stack.until("SELECT FROM headrace.apps WHERE id = %(id)s", id=id)
    assert list(await faults(stack)) == ["events"]
    assert (await stack.command("quarantine", "discard", f"OUTCOMES:{place}"))[0] == 0
    assert await faults(stack) == {}


async def test_what_is_no_entry_of_the_keys_erases_no_person(stack: Stack) -> None:
    app = await stack.make("app.create", name="talks")
    await stack.send("app.configure", app=app)
    await stack.send("message.send", app=app, query="Who?", user="eve")
    await stack.until("SELECT FROM headrace.messages WHERE query = 'Who?'")
    [asked] = await stack.sql("SELECT person_id FROM headrace.messages WHERE query = 'Who?'")
    entry = f"$KV.keys.{stack.tenant}.{asked['person_id']}"
    for junk in (b'{"stream":"COMMANDS","seq":2}', b'["erased"]', b'{"erased":"2026-05-04T08:00:00+00:00"}'):
        await stack.client.stream.publish(entry, junk)
    await stack.send("message.send", app=app, query="And who?", user="ada")
    await stack.until("SELECT FROM headrace.messages WHERE query = 'And who?'")
    assert await stack.sql("SELECT FROM headrace.messages WHERE query = 'Who?'") == [{}]
    await stack.send("message.send", app=app, query="Who else?", user="eve")
    await stack.until("SELECT FROM headrace.messages WHERE query = 'Who else?'")


@pytest.mark.long
async def test_an_event_of_a_newer_version_waits_for_the_upgrade(stack: Stack) -> None:
    app = await stack.make("app.create", name="sold")
    body = [{"type": "app.sold.v1", "version": 2, "state": {"timestamp": "2026-05-04T08:00:00+00:00", "price": 1}}]
    subject, written = f"evt.{stack.tenant}.app.{app}", json.dumps(body).encode()
    signed = Macs(stack.client.connection, stack.settings.vault()).sign("EVENTS", subject, {}, written)
    place = f"EVENTS:{await forge(stack, subject, written, signed)}"
    refused = await stack.refused("app.delete", app=app)
    assert "Upgrade" in refused["message"]
    await stack.until("SELECT FROM headrace_projection.quarantine WHERE newer")
    code, _ = await stack.command("quarantine", "discard", place)
    assert code != 0
    await stack.sql("UPDATE headrace_projection.quarantine SET version = 'other' WHERE newer RETURNING 1")
    await stack.kill("project")
    await stack.start("project")
    await stack.until("SELECT FROM headrace_projection.quarantine WHERE newer AND version = %(now)s", now=VERSION)
    assert [table.table for table in await check(stack.settings) if table.first] == []
