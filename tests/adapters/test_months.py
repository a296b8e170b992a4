"""Months of the audit that are over for long enough."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from adapters.postgres.months import over
from domain.access.door import Door, month
from domain.access.end_user import EndUser, person_id
from domain.aggregate import new_id
from tests.adapters.test_postgres import caught_up, following
from tests.projections.history import NOON, History

AGE = datetime.now(UTC) - NOON.replace(month=4, day=1, hour=0)
"""Age of the end of the history's month."""


async def test_months_of_accounts_and_erased_ones_are_not_due(database_url: str) -> None:
    history = History()
    for tenant, person in (
        ("acme", person_id(month(NOON))),
        ("other", person_id(month(NOON), 2)),
        ("accounts", "an-account"),
        ("empty", person_id(month(NOON))),
    ):
        history.person = person
        address = "" if tenant == "empty" else "192.0.2.7"
        door = Door.begin(Door.Used, new_id(), history.now, actor="anon", address=address, browser="")
        history.record(door, tenant)
    async with following(database_url, history):
        await caught_up(database_url, history)
        due = [("acme", "door/2026-03"), ("other", "door/2026-03")]
        assert await over(database_url, AGE - timedelta(days=1)) == due
        assert await over(database_url, AGE + timedelta(days=1)) == []
        history.person = None
        erased = EndUser.begin(EndUser.Erased, person_id(month(NOON)), history.now, known=True)
        history.record(erased, "acme")
        await caught_up(database_url, history)
    assert await over(database_url, AGE - timedelta(days=1)) == due[1:]
