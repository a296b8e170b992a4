from __future__ import annotations

from dataclasses import replace

from domain.log import EVENTS, Position
from projections.commands import commands
from tests.projections.history import History, outcome


def test_given_nothing_when_commands_are_decided_then_each_has_a_row_that_says_how() -> None:
    history = History()
    accepted = outcome(history, name="app.create", position=Position(EVENTS, 12), version=1, ids={"app": "the-app"})
    rejected = outcome(
        history,
        name="app.create",
        status="rejected",
        code="missing",
        message="Give it a name.",
        field="name",
        excerpt="{}",
    )
    accepted = replace(accepted, metadata=replace(accepted.metadata, door="viewer"))
    for one in (accepted, rejected):
        history.decide(one)
    rows = {row["id"]: row for row in history.rows(commands)}
    common = {"tenant_id": "default", "name": "app.create", "correlation_id": "the-correlation", "actor": "ada"}
    assert rows[accepted.command] == commands.blank | common | {
        "id": accepted.command,
        "door": "viewer",
        "status": "accepted",
        "stream": EVENTS,
        "sequence": 12,
        "version": 1,
        "ids": {"app": "the-app"},
        "created_at": accepted.at,
        "log_position": 1,
    }
    assert rows[rejected.command] == commands.blank | common | {
        "id": rejected.command,
        "status": "rejected",
        "code": "missing",
        "message": "Give it a name.",
        "field": "name",
        "excerpt": "{}",
        "ids": {},
        "created_at": rejected.at,
        "log_position": 2,
    }
