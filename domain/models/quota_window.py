"""A window of a quota: its leases, and what was used of them.

A worker takes a lease with an amount, which its calls use. What the calls have used is charged when the lease is
settled, and the rest can be granted again. What is used and what is leased never exceed the limit together.
"""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from typing import Annotated, TypedDict

from domain import aggregate
from domain.aggregate import Aggregate
from domain.models.quota import Window

SLICE = 50
"""A lease takes a 50th of the limit at most, unless more is wanted at once,"""

OF_THE_REST = 20
"""and a 20th of what is left, so that little lies idle in leases when a window comes to its end."""

STEPS = (50, 80, 100)
"""Percentages of the limit that are alerted, once in a window."""


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
    quota: str
    scope: str
    subject: str
    unit: str
    period: str
    begins: str
    ends: str
    used: int = field(default=0, init=False)
    """Of the leases that are settled."""
    leases: dict[str, Lease] = field(default_factory=dict, init=False)
    """Those that are not settled, by id."""
    exhausted: int | None = field(default=None, init=False)
    """The limit at which a reservation did not fit into what is left of the window; None while they fit."""
    alerts: list[int] = field(default_factory=list, init=False)

    class Event(aggregate.Event):
        pass

    class Opened(Event, aggregate.Created):
        """A quota begins to count in a window."""

        TOPIC = "quota_window.opened.v1"
        quota: Annotated[str, "Quota, by its side and name: `tenant/monthly`."]
        scope: Annotated[str, "`tenant`, `app`, `user`, `key`, `provider` or `model`."]
        subject: Annotated[str, "Id of the app, person or key, or name of the provider or model; empty for the tenant."]
        unit: Annotated[str, "`calls`, `tokens` or `money`."]
        period: Annotated[str, "`minute`, `hour`, `day` or `month`."]
        begins: Annotated[str, "Begin of the window, as ISO 8601."]
        ends: Annotated[str, "End of the window."]

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

        TOPIC = "quota_window.settled.v1"
        lease: LeaseField
        used: Used

        def apply(self, window: QuotaWindow) -> None:
            returned = window.leases.pop(self.lease)["amount"] - self.used
            window.used += self.used
            if returned > 0:
                window.exhausted = None

    class Exhausted(Event):
        """A reservation did not fit into what is left, which is less than a lease would take."""

        TOPIC = "quota_window.exhausted.v1"
        needed: Annotated[int, "Amount of the reservation."]
        left: Annotated[int, "Amount that is left."]
        limit: Annotated[int, "Limit of the quota, as it was then."]

        def apply(self, window: QuotaWindow) -> None:
            window.exhausted = self.limit

    class Alerted(Event):
        """A part of the limit was reached: 50, 80 or 100 percent."""

        TOPIC = "quota_window.alerted.v1"
        percent: Annotated[int, "`50`, `80` or `100`."]
        used: Used
        limit: Annotated[int, "Limit of the quota, as it was then."]

        def apply(self, window: QuotaWindow) -> None:
            window.alerts.append(self.percent)

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
            begins=window.begins.isoformat(),
            ends=window.ends.isoformat(),
        )

    def left(self, limit: int) -> int:
        """The amount that can be granted."""
        return max(0, limit - self.used - sum(lease["amount"] for lease in self.leases.values()))

    def is_exhausted(self, limit: int) -> bool:
        return self.used >= limit or (self.exhausted is not None and self.exhausted >= limit)

    def grant(self, at: datetime, lease: str, needed: int, wanted: int, limit: int, until: datetime) -> None:
        """Grant at least what is needed, or nothing; `wanted` is what all that wait for the lease need together."""
        left = self.left(limit)
        if lease not in self.leases and 0 <= needed <= left:
            amount = max(needed, min(max(limit // SLICE, wanted), left // OF_THE_REST))
            self.record(self.Granted, at, lease=lease, amount=amount, until=until.isoformat(), limit=limit)

    def renew(self, at: datetime, lease: str, until: datetime) -> None:
        if lease in self.leases:
            self.record(self.Renewed, at, lease=lease, until=until.isoformat())

    def settle(self, at: datetime, lease: str, used: int) -> None:
        if lease in self.leases:
            self.record(self.Settled, at, lease=lease, used=used)

    def exhaust(self, at: datetime, needed: int, limit: int) -> None:
        left = self.left(limit)
        if needed > left and left <= limit // SLICE and self.exhausted != limit:
            self.record(self.Exhausted, at, needed=needed, left=left, limit=limit)

    def alert(self, at: datetime, used: int, limit: int) -> None:
        for percent in STEPS:
            if percent not in self.alerts and used * 100 >= limit * percent:
                self.record(self.Alerted, at, percent=percent, used=used, limit=limit)
