"""Alerts of quotas on a log in memory."""

from __future__ import annotations

from datetime import UTC, datetime

from domain.models.quota import Definition, window
from domain.models.quota_window import QuotaWindow
from handlers.models.alert import Alert
from handlers.ports.quotas import Spent
from tests.handlers.desk import Desk
from tests.memory import Memory, MemoryQuotas

SOFT = Definition(
    scope="app", subject="", unit="money", period="month", limit=5.0, hard=False, time_zone="UTC", rolling=0
)


async def test_each_step_is_recorded_once_with_the_amount_that_reached_it(memory: Memory, tenant: str) -> None:
    desk, quotas = Desk(memory, tenant), MemoryQuotas(memory)
    alert = Alert(desk.repository, quotas)
    assert await alert() == []
    of = window("tenant/monthly", SOFT, "the-app", datetime.now(UTC))
    for used in (2_600_000_000, 2_700_000_000, 5_100_000_000, 5_200_000_000):
        quotas.reached = [Spent(tenant, of, used, 5_000_000_000)]
        await alert()
    opened, *alerted = await desk.events("quota_window", of.id)
    assert isinstance(opened, QuotaWindow.Opened)
    assert (opened.quota, opened.subject, opened.unit) == ("tenant/monthly", "the-app", "money")
    steps = [(event.percent, event.used) for event in alerted if isinstance(event, QuotaWindow.Alerted)]
    assert steps == [(50, 2_600_000_000), (80, 5_100_000_000), (100, 5_100_000_000)]
