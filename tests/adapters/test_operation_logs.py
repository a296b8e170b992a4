"""The view `operation_logs`: commands and reports of doors in one list, each with the address of its sender."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import psycopg
from psycopg.rows import dict_row

from adapters.postgres import rebuild
from adapters.postgres.operation_logs import PAGE
from domain.access.door import Door
from domain.access.tenant import HOUSE
from domain.aggregate import new_id
from domain.log import EVENTS, Outcome, Position
from tests.adapters.test_postgres import RecordedLog, caught_up, following, recorded_files
from tests.projections.history import History, outcome

CAME = {"address": "192.0.2.7", "browser": "Firefox"}


async def audit(url: str, where: str = "true") -> dict[str, dict[str, Any]]:
    async with await psycopg.AsyncConnection.connect(url, row_factory=dict_row) as connection:
        query = f"SELECT * FROM headrace.operation_logs WHERE {where}"
        return {row["id"]: row for row in await (await connection.execute(query.encode())).fetchall()}


def sent(history: History, actor: str, origin: str | None = None, **fields: Any) -> Outcome:
    one = outcome(history, **fields)
    history.decide(one := replace(one, metadata=replace(one.metadata, actor=actor, door="viewer", origin=origin)))
    return one


async def test_every_command_and_report_has_a_row_that_names_sender_target_and_outcome(database_url: str) -> None:
    history = History()
    house, own = (Door.begin(Door.Used, new_id(), history.now, actor="a_ada", **CAME) for _ in range(2))
    history.record(house, HOUSE)
    history.record(own)
    at = Position(EVENTS, 1)
    asked = sent(
        history, "a_ada", house.id, name="message.send", position=at, ids={"conversation": "t", "message": "m"}
    )
    denied = sent(
        history,
        "k_gate",
        own.id,
        name="app.delete",
        status="rejected",
        code="forbidden",
        message="No.",
        ids={"app": "x"},
    )
    unknown = sent(
        history, "s_own", name="app.create", status="rejected", code="invalid", message="Name it.", field="name"
    )
    opened = sent(history, "a_ada", house.id, name="trace.open", position=at, ids={"trace": "the-trace", "door": "d"})
    searched = sent(history, "a_ada", name="trace.search", position=at, ids={"door": "d"})
    history.record(Door.begin(Door.TracesSearched, searched.command, history.now, search="/traces?q=tide"))
    hidden = sent(history, "anon", name="door.report_use", position=at, ids={"door": own.id})
    signed = Door.begin(Door.SignedIn, new_id(), history.now, account=None, credential="token", **CAME)
    refused = Door.begin(Door.Refused, new_id(), history.now, credential="key", address="192.0.2.8", count=41)
    for door in (signed, refused):
        history.record(door, HOUSE)
    async with following(database_url, history):
        await caught_up(database_url, history)
    rows = await audit(database_url)
    names = ("tenant_id", "actor", "account_id", "action", "target_noun", "target_id", "outcome", "code", "detail")
    came = (*CAME.values(),)
    own_row = ("default", "a_ada", None, "door.used", "door", own.id, "used", None, None, *came)
    assert {id: tuple(row[name] for name in (*names, "address", "browser")) for id, row in rows.items()} == {
        asked.command: ("default", "a_ada", "ada", "message.send", "message", "m", "accepted", None, None, *came),
        denied.command: ("default", "k_gate", None, "app.delete", "app", "x", "rejected", "forbidden", "No.", *came),
        unknown.command: (
            *("default", "s_own", None, "app.create", "app", None, "rejected", "invalid", "name: Name it."),
            *(None, None),
        ),
        opened.command: ("default", "a_ada", "ada", "trace.open", "trace", "the-trace", "accepted", None, None, *came),
        searched.command: (
            *("default", "a_ada", "ada", "trace.search", "door", "d", "accepted", None, "/traces?q=tide"),
            *(None, None),
        ),
        own.id: own_row,
        house.id: (HOUSE, *own_row[1:5], house.id, *own_row[6:]),
        signed.id: (HOUSE, None, None, "door.signed_in", "door", signed.id, "signed_in", "token", None, *came),
        refused.id: (
            *(HOUSE, None, None, "door.refused", "door", refused.id, "refused", "key", "41"),
            *("192.0.2.8", None),
        ),
    }
    assert hidden.command not in rows
    await rebuild.rebuild(database_url, RecordedLog(history), recorded_files(history), ["commands", "door_events"])
    assert await audit(database_url) == rows
    assert set(await audit(database_url, "tenant_id = 'default' AND actor = 'k_gate'")) == {denied.command}


async def test_a_page_is_read_in_the_order_of_the_indexes(database_url: str) -> None:
    history = History()
    for _ in range(200):
        history.decide(outcome(history, name="app.create", position=Position(EVENTS, 1), ids={"app": new_id()}))
    history.record(Door.begin(Door.Used, new_id(), history.now, actor="anon", **CAME))
    async with following(database_url, history):
        await caught_up(database_url, history)
    page = PAGE.format(where="tenant_id = 'default' AND created_at <= now()", limit=50)
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.execute("ANALYZE; SET enable_seqscan = off; SET enable_bitmapscan = off")
        plan = "\n".join(line for [line] in await (await connection.execute(f"EXPLAIN {page}".encode())).fetchall())
        rows = await (await connection.execute(page.encode())).fetchall()
    assert plan.count("Presorted Key: ") == 2, plan
    assert plan.count("Index Scan Backward using ix_") == 2, plan
    view = await audit(database_url)
    newest = sorted(view.values(), key=lambda row: (row["created_at"], row["id"]), reverse=True)[:50]
    assert rows == [(*row.values(),) for row in newest]
