from __future__ import annotations

from datetime import UTC, datetime

from domain.access.door import Door
from domain.access.end_user import EndUser
from domain.aggregate import new_id
from projections.door_events import door_events
from tests.projections.history import History

CAME = {"address": "192.0.2.7", "browser": "Firefox"}


def reported(history: History) -> list[str]:
    """A sign-in, refusals, a first use and a search, each of this person; gives their ids."""
    doors = [
        Door.begin(Door.SignedIn, new_id(), history.now, account="ada", credential="password", **CAME),
        Door.begin(Door.Refused, new_id(), history.now, credential="key", address="192.0.2.8", count=41),
        Door.begin(Door.Used, new_id(), history.now, actor="k_gate", **CAME),
        Door.begin(Door.TracesSearched, new_id(), history.now, search="/traces?q=tide"),
    ]
    for door in doors:
        history.record(door)
    return [door.id for door in doors]


def test_each_report_has_a_row() -> None:
    history = History()
    history.person = "someone"
    ids = reported(history)
    history.record(Door.begin(Door.TraceOpened, new_id(), history.now, trace="the-trace"))
    rows = {row["id"]: row for row in history.rows(door_events)}
    assert set(rows) == set(ids)
    seen = [{name: value for name, value in rows[id].items() if value is not None} for id in ids]
    for row in seen:
        assert row.pop("person_id") == "someone"
        for name in ("tenant_id", "id", "created_at", "log_position"):
            row.pop(name)
    assert seen == [
        {"event": "signed_in", "account_id": "ada", "actor": "a_ada", "credential": "password", **CAME},
        {"event": "refused", "credential": "key", "address": "192.0.2.8", "count": 41},
        {"event": "used", "actor": "k_gate", **CAME},
        {"event": "searched", "actor": "ada", "search": "/traces?q=tide"},
    ]


def test_an_erased_person_leaves_no_address_browser_or_search() -> None:
    history = History()
    for person in ("the-month", "another"):
        history.person = person
        reported(history)
    history.person = None
    at = datetime.now(UTC)
    history.record(EndUser.begin(EndUser.Erased, "the-month", at, known=True))
    rows = history.rows(door_events)
    erased = [row for row in rows if row["person_id"] == "the-month"]
    assert [(row["address"], row["browser"], row["search"]) for row in erased] == [(None, None, None)] * 4
    assert [row["count"] for row in erased if row["event"] == "refused"] == [41]
    assert sum(bool(row["address"] or row["search"]) for row in rows) == 4


def test_what_was_sealed_for_an_erased_person_is_null() -> None:
    history = History()
    history.record(Door.begin(Door.Used, new_id(), history.now, actor="anon", address="", browser=""))
    history.record(Door.begin(Door.TracesSearched, new_id(), history.now, search=""))
    assert {(row["address"], row["browser"], row["search"]) for row in history.rows(door_events)} == {(None,) * 3}
