"""`headrace audit`: as a table for people, as lines of JSON for programs."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain.access.door import Door
from domain.access.tenant import HOUSE
from domain.aggregate import new_id
from domain.log import EVENTS, Position
from ops.cli import audit
from tests.adapters.test_postgres import caught_up, following
from tests.ops.cli.test_cli import Cli
from tests.projections.history import History, outcome


@pytest.fixture
async def history(database_url: str, monkeypatch: pytest.MonkeyPatch) -> History:
    """Five commands, the last one rejected, a use between them, and a sign-in in the house."""
    monkeypatch.setenv("HEADRACE_POSTGRES_URL", database_url)
    monkeypatch.setattr(audit, "FETCHED", 2)
    history = History()
    for number in range(4):
        history.decide(outcome(history, name="app.create", position=Position(EVENTS, 1), ids={"app": str(number)}))
        if number == 1:
            history.record(
                Door.begin(Door.Used, new_id(), history.now, actor="k_gate", address="192.0.2.7", browser="")
            )
    rejected = {"status": "rejected", "code": "forbidden", "message": "No."}
    history.decide(outcome(history, name="dataset.delete", **rejected))
    fields: dict[str, Any] = {"account": None, "credential": "link", "address": "192.0.2.7", "browser": "Firefox"}
    history.record(Door.begin(Door.SignedIn, new_id(), history.now, **fields), HOUSE)
    async with following(database_url, history):
        await caught_up(database_url, history)
    return history


async def test_programs_get_all_lines_in_order_of_time(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    headrace = Cli(capsys)
    lines = (await headrace("audit")).lines
    assert [line["action"] for line in lines] == ["app.create"] * 2 + ["door.used"] + ["app.create"] * 2 + [
        "dataset.delete"
    ]
    assert [line["created_at"] for line in lines] == sorted(line["created_at"] for line in lines)
    assert (await headrace("audit", "--json")).lines == lines
    [door] = (await headrace("audit", "--actor", "k_gate")).lines
    assert (door["address"], door["browser"], door["outcome"]) == ("192.0.2.7", None, "used")
    assert len((await headrace("audit", "--action", "app")).lines) == 4
    [rejected] = (await headrace("audit", "--outcome", "rejected")).lines
    assert (rejected["action"], rejected["code"], rejected["detail"]) == ("dataset.delete", "forbidden", "No.")
    [signed_in] = (await headrace("audit", "--house")).lines
    assert (signed_in["action"], signed_in["code"], signed_in["address"]) == ("door.signed_in", "link", "192.0.2.7")
    assert (await headrace("audit", "--tenant", "acme")).lines == []


async def test_a_period_is_chosen(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    headrace = Cli(capsys)
    lines = (await headrace("audit")).lines
    third = lines[2]["created_at"]
    assert (await headrace("audit", "--since", third)).lines == lines[2:]
    assert (await headrace("audit", "--until", third)).lines == lines[:2]
    days = (datetime.now(UTC) - datetime.fromisoformat(third) + timedelta(days=1)).days
    assert (await headrace("audit", "--since", f"{days}d")).lines == lines
    assert (await headrace("audit", "--since", "24h")).lines == []
    wrong = await headrace("audit", "--since", "yesterday")
    assert (wrong.code, "neither a time" in wrong.err) == (2, True)


async def test_people_see_the_newest(
    history: History, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "SHOWN", 2)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    shown = (await Cli(capsys)("audit")).out
    assert "dataset.delete" in shown
    assert "forbidden" in shown
    assert "2 rows" in shown
    assert "door.used" not in shown
