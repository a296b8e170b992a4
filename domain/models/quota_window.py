"""A window of a quota: its leases, and what was used of them.

A worker takes a lease with an amount, which its calls use. What the calls have used is charged when the lease is
settled, and the rest can be granted again. What is used and what is leased never exceed the limit together.

In a rolling window, what a lease has used is free again a length of the window after it was settled, at the next step.
A call begins before its lease is settled, and after it is granted. So whatever length of time one looks at, all calls
that began in it were counted together when the last of their leases was granted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypedDict

from domain import aggregate
from domain.aggregate import Aggregate
from domain.models.quota import LENGTHS, RollingField, Window, ZoneField, with_zone

SLICE = 50
"""A lease takes a 50th of the limit at most, unless more is wanted at once,"""

OF_THE_REST = 20
"""and a 20th of what is left, so that little lies idle in leases when a window comes to its end."""

STEPS = (50, 80, 100)
"""Percentages of the limit that are alerted, once in a window; in a rolling one, again after its length."""

PARTS = 60
"""Number of steps of a rolling window."""

SKEW = timedelta(minutes=1)
"""Time for which a part is kept that is free again, for processes whose clocks are late."""

NEVER = ""
"""When the use of a calendar window is free again: not in this window."""

Parts = Mapping[str, int]
"""Amounts by the time when they are free again, as ISO 8601."""


def length(period: str, rolling: int) -> timedelta:
    """The length of a rolling window."""
    return rolling * LENGTHS[period]


def used(parts: Parts, at: datetime) -> int:
    """The amount that is not free again at this time."""
    return sum(amount for free, amount in parts.items() if free == NEVER or datetime.fromisoformat(free) > at)


def free_again(window: Window, parts: Parts, at: datetime) -> datetime:
    """The end of a calendar window; the time when the next part of a rolling one is free again."""
    if not window.rolling:
        return window.ends
    later = [free for free in map(datetime.fromisoformat, parts) if free > at]
    return min(later, default=at + length(window.period, window.rolling))


def with_part(parts: Parts, settled: QuotaWindow.Settled) -> dict[str, int]:
    """The parts after a lease was settled, without those that are free again for long."""
    at = settled.timestamp - SKEW
    kept = {free: amount for free, amount in parts.items() if used({free: amount}, at)}
    return {**kept, settled.free_at: kept.get(settled.free_at, 0) + settled.used}


class Lease(TypedDict):
    amount: int
    since: str
    until: str


LeaseField = Annotated[str, "Id of the lease."]
UntilField = Annotated[str, "Time until which calls may begin that use the lease, as ISO 8601."]
Used = Annotated[int, "Calls, tokens, or billionths of a US dollar."]


class QuotaWindow(Aggregate):
    """Amounts are calls, tokens, or billionths of a US dollar."""

    TOPIC = "quota_window"
    CONTENDED = True
    class_version = 2
    quota: str
    scope: str
    subject: str
    unit: str
    period: str
    begins: str
    ends: str
    time_zone: str
    rolling: int
    used: int = field(default=0, init=False)
    """Of all leases that are settled."""
    parts: dict[str, int] = field(default_factory=dict, init=False)
    """Amounts of settled leases by the time when they are free again, but for those that are free for long."""
    leases: dict[str, Lease] = field(default_factory=dict, init=False)
    """Those that are not settled, by id."""
    exhausted: int | None = field(default=None, init=False)
    """The limit at which a reservation did not fit into what is left of the window; None while they fit."""
    exhausted_left: int = field(default=0, init=False)
    """The amount that was left then."""
    alerts: dict[str, str] = field(default_factory=dict, init=False)
    """Times of the last alerts, by percentage."""

    class Event(aggregate.Event):
        pass

    class Opened(Event, aggregate.Created):
        """A quota begins to count in a window."""

        TOPIC = "quota_window.opened.v2"
        class_version = 2
        quota: Annotated[str, "Quota, by its side and name: `tenant/monthly`."]
        scope: Annotated[str, "`tenant`, `app`, `user`, `key`, `provider` or `model`."]
        subject: Annotated[str, "Id of the app, person or key, or name of the provider or model; empty for the tenant."]
        unit: Annotated[str, "`calls`, `tokens` or `money`."]
        period: Annotated[str, "`minute`, `hour`, `day` or `month`."]
        begins: Annotated[str, "Begin of the window, as ISO 8601; of a rolling one, when it was opened."]
        ends: Annotated[str, "End of the window; empty for a rolling one."]
        time_zone: ZoneField
        rolling: RollingField

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            with_zone(state)

    class Granted(Event):
        """A worker took a lease."""

        TOPIC = "quota_window.granted.v1"
        lease: LeaseField
        amount: Annotated[int, "Amount that calls may use: calls, tokens, or billionths of a US dollar."]
        until: UntilField
        limit: Annotated[int, "Limit of the quota, as it was then."]

        def apply(self, window: QuotaWindow) -> None:
            since = self.timestamp.isoformat()
            window.leases[self.lease] = Lease(amount=self.amount, since=since, until=self.until)
            window.exhausted = None

    class Renewed(Event):
        """A lease is held for longer, since calls that use it are in progress."""

        TOPIC = "quota_window.renewed.v1"
        lease: LeaseField
        until: UntilField

        def apply(self, window: QuotaWindow) -> None:
            window.leases[self.lease]["until"] = self.until

    class Settled(Event):
        """A lease ended: what its calls have used is charged, the rest is returned."""

        TOPIC = "quota_window.settled.v2"
        class_version = 2
        lease: LeaseField
        used: Used
        free_at: Annotated[str, "When it is free again in a rolling window, as ISO 8601; empty for a calendar window."]

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            state["free_at"] = NEVER

        def apply(self, window: QuotaWindow) -> None:
            returned = window.leases.pop(self.lease)["amount"] - self.used
            window.used += self.used
            window.parts = with_part(window.parts, self)
            if returned > 0:
                window.exhausted = None

    class Exhausted(Event):
        """A reservation did not fit into what is left, which is less than a lease would take."""

        TOPIC = "quota_window.exhausted.v1"
        needed: Annotated[int, "Amount of the reservation."]
        left: Annotated[int, "Amount that is left."]
        limit: Annotated[int, "Limit of the quota, as it was then."]

        def apply(self, window: QuotaWindow) -> None:
            window.exhausted, window.exhausted_left = self.limit, self.left

    class Alerted(Event):
        """A part of the limit was reached: 50, 80 or 100 percent."""

        TOPIC = "quota_window.alerted.v1"
        percent: Annotated[int, "`50`, `80` or `100`."]
        used: Used
        limit: Annotated[int, "Limit of the quota, as it was then."]

        def apply(self, window: QuotaWindow) -> None:
            window.alerts[str(self.percent)] = self.timestamp.isoformat()

    @staticmethod
    def upcast_v1_v2(state: dict[str, Any]) -> None:
        """Convert a snapshot. That a reservation did not fit is recorded again by the next one."""
        with_zone(state)
        state["parts"] = {NEVER: state["used"]}
        state["exhausted"], state["exhausted_left"] = None, 0
        state["alerts"] = {str(percent): state["begins"] for percent in state["alerts"]}

    @classmethod
    def open(cls, at: datetime, window: Window) -> QuotaWindow:
        """The window, of which nothing is used."""
        return cls.begin(
            cls.Opened,
            window.id,
            at,
            quota=window.quota,
            scope=window.scope,
            subject=window.subject,
            unit=window.unit,
            period=window.period,
            begins=(at.astimezone(UTC) if window.rolling else window.begins).isoformat(),
            ends="" if window.rolling else window.ends.isoformat(),
            time_zone=window.time_zone,
            rolling=window.rolling,
        )

    def left(self, limit: int, at: datetime) -> int:
        """The amount that can be granted."""
        leased = sum(lease["amount"] for lease in self.leases.values())
        return max(0, limit - used(self.parts, at) - leased)

    def is_exhausted(self, limit: int, at: datetime) -> bool:
        return used(self.parts, at) >= limit or (
            self.exhausted is not None
            and self.exhausted >= limit
            and self.left(self.exhausted, at) <= self.exhausted_left
        )

    def grant(self, at: datetime, lease: str, needed: int, wanted: int, limit: int, until: datetime) -> None:
        """Grant at least what is needed, or nothing; `wanted` is what all that wait for the lease need together."""
        left = self.left(limit, at)
        if lease not in self.leases and 0 <= needed <= left:
            amount = max(needed, min(max(limit // SLICE, wanted), left // OF_THE_REST))
            self.record(self.Granted, at, lease=lease, amount=amount, until=until.isoformat(), limit=limit)

    def renew(self, at: datetime, lease: str, until: datetime) -> None:
        if lease in self.leases:
            self.record(self.Renewed, at, lease=lease, until=until.isoformat())

    def settle(self, at: datetime, lease: str, used: int) -> None:
        if lease in self.leases:
            self.record(self.Settled, at, lease=lease, used=used, free_at=self._free_at(at))

    def exhaust(self, at: datetime, needed: int, limit: int) -> None:
        left = self.left(limit, at)
        known = self.exhausted == limit and left <= self.exhausted_left
        if needed > left and left <= limit // SLICE and not known:
            self.record(self.Exhausted, at, needed=needed, left=left, limit=limit)

    def alert(self, at: datetime, used: int, limit: int) -> None:
        for percent in STEPS:
            if used * 100 >= limit * percent and not self._is_alerted(at, percent):
                self.record(self.Alerted, at, percent=percent, used=used, limit=limit)

    def _free_at(self, at: datetime) -> str:
        """The time when what is settled now is free again: a length of the window later, at the next step."""
        if not self.rolling:
            return NEVER
        window = length(self.period, self.rolling)
        step_s = window // PARTS // timedelta(seconds=1)
        return datetime.fromtimestamp(math.ceil((at + window).timestamp() / step_s) * step_s, UTC).isoformat()

    def _is_alerted(self, at: datetime, percent: int) -> bool:
        alerted = self.alerts.get(str(percent))
        return alerted is not None and (
            not self.rolling or datetime.fromisoformat(alerted) + length(self.period, self.rolling) > at
        )
