"""The spent part of a quota, and a forecast for the month."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

TREND = timedelta(days=7)
"""Period of the past that the forecast extrapolates."""

State = Literal["within", "likely over", "over"]


@dataclass(frozen=True, slots=True)
class Standing:
    """A quota in its unit: spent amount and forecast, which is what is spent for windows other than months.

    `unpriced` calls have no known price and are not included in money, so the actual amount may be higher. `subject`
    is the one that has spent most, of a quota for each.
    """

    amount: float
    spent: float
    forecast: float
    unpriced: int
    over_at: datetime | None
    """Forecast of the time when it is spent; None when it lasts."""
    subject: str = ""

    @property
    def share(self) -> float:
        return self.spent / self.amount if self.amount else 1.0

    @property
    def state(self) -> State:
        if self.spent >= self.amount:
            return "over"
        return "likely over" if self.forecast > self.amount else "within"


def standing(
    amount: float, spent: float, lately: float, now: datetime, ends: datetime, unpriced: int = 0, subject: str = ""
) -> Standing:
    """`spent` since the start of the month that `ends` then, and `lately`: in the last `TREND`, which may include the
    previous month. Without the latter, there is no forecast."""
    rate = lately / TREND.total_seconds()
    left = (ends - now).total_seconds()
    over_at = None
    if spent < amount < spent + rate * left:
        over_at = now + timedelta(seconds=(amount - spent) / rate)
    return Standing(amount, spent, spent + rate * left, unpriced, over_at, subject)


def month_begin(at: datetime) -> datetime:
    return at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
