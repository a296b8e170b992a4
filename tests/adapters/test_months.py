"""Months of the audit that are over for long enough."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from adapters.postgres.months import over
from domain.access.door import Door, month
from domain.access.end_user import EndUser
from domain.aggregate import new_id
from tests.adapters.test_postgres import caught_up, following
from tests.projections.history import NOON, History

AGE = datetime.now(UTC) - NOON.replace(month=4, day=1, hour=0)
"""Age of the end of the history's month."""


async def test_months_that_are_over_have_their_persons_until_they_are_erased(database_url: str) -> None:
    history = History()
    for tenant, person in (
        ("acme", "the-month"),
        ("acme", "an-account"),
        ("other", "another-month"),
        ("empty", "the-month"),
    ):
        history.person = person
        address = "" if tenant == "empty" else "192.0.2.7"
        door = Door.begin(Door.Used, new_id(), history.now, actor="anon", address=address, browser="")
        history.record(door, tenant)
    async with following(database_url, history):
        await caught_up(database_url, history)
        march = month(NOON)
        due = [("acme", march, "an-account"), ("acme", march, "the-month"), ("other", march, "another-month")]
        assert await over(database_url, AGE - timedelta(days=1)) == due
        assert await over(database_url, AGE + timedelta(days=1)) == []
        history.person = None
        erased = EndUser.begin(EndUser.Erased, "the-month", history.now, known=True)
        history.record(erased, "acme")
        await caught_up(database_url, history)
    assert await over(database_url, AGE - timedelta(days=1)) == [due[0], due[2]]
