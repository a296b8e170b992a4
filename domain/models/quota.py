"""The quotas of a tenant: how many calls of models, tokens or US dollars a window of time may take.

A soft quota is reported. A hard one is never passed: workers take grants of its windows before they call a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, NamedTuple, TypedDict
from uuid import NAMESPACE_OID, uuid5

from domain import aggregate
from domain.aggregate import Aggregate, Rejection

Scope = Literal["tenant", "app", "user", "key", "provider", "model"]
Unit = Literal["calls", "tokens", "money"]
Period = Literal["minute", "hour", "day", "month"]

OPERATOR, TENANT = "operator", "tenant"
"""The ids of the two aggregates of a tenant: the quotas that the operator set, and the tenant's own."""

MOST = 100
"""Maximum number of quotas of one side."""

NANO = 1_000_000_000
"""Amounts of money are counted in billionths of a US dollar."""


class Definition(TypedDict):
    """The terms of a quota; an empty `subject` stands for each app, user, key, provider or model."""

    scope: str
    subject: str
    unit: str
    period: str
    limit: float
    hard: bool


class Window(NamedTuple):
    """The time in which a quota counts, for one subject; `quota` is its side and name."""

    quota: str
    scope: str
    subject: str
    unit: str
    period: str
    begins: datetime
    ends: datetime

    @property
    def id(self) -> str:
        """The same whatever the limit is, so that a quota that is set again goes on counting."""
        of = f"{self.quota}/{self.scope}/{self.unit}/{self.period}/{self.begins:%Y-%m-%dT%H:%M}/{self.subject}"
        return str(uuid5(NAMESPACE_OID, of))


class Bound(NamedTuple):
    """A quota that holds for a call, and its window."""

    window: Window
    limit: int
    """Calls, tokens, or billionths of a US dollar."""


def amount(limit: float, unit: str) -> int:
    """A limit as windows count it."""
    return round(limit * NANO) if unit == "money" else int(limit)


def shown(amount: int, unit: str) -> str:
    """An amount of a window, for people."""
    if unit == "money":
        return f"${amount / NANO:,.6g}"
    return f"{amount:,} {unit.removesuffix('s') if amount == 1 else unit}"


def span(period: str, at: datetime) -> tuple[datetime, datetime]:
    """The begin and the end of the window at this time, in UTC."""
    minute = at.astimezone(UTC).replace(second=0, microsecond=0)
    if period == "minute":
        return minute, minute + timedelta(minutes=1)
    if period == "hour":
        hour = minute.replace(minute=0)
        return hour, hour + timedelta(hours=1)
    day = minute.replace(hour=0, minute=0)
    if period == "day":
        return day, day + timedelta(days=1)
    month = day.replace(day=1)
    return month, (month + timedelta(days=31)).replace(day=1)


def window(quota: str, definition: Definition, subject: str, at: datetime) -> Window:
    """The window of a quota for a subject at this time."""
    begins, ends = span(definition["period"], at)
    return Window(quota, definition["scope"], subject, definition["unit"], definition["period"], begins, ends)


def bounds(
    quotas: Mapping[str, Definition], subjects: Mapping[str, str | None], at: datetime, *, hard: bool = True
) -> Iterator[Bound]:
    """The hard quotas (or with `hard` false, the soft ones), by side and name, that hold for a call of these subjects,
    by scope; a scope without a subject has none."""
    for quota, definition in quotas.items():
        subject = subjects.get(definition["scope"])
        if definition["hard"] == hard and subject is not None and definition["subject"] in ("", subject):
            limit = amount(definition["limit"], definition["unit"])
            yield Bound(window(quota, definition, subject, at), limit)


def is_budget(definition: Definition) -> bool:
    """True for a quota as `budget.set` makes them: soft, of money, in a month."""
    return (definition["unit"], definition["period"], definition["hard"]) == ("money", "month", False)


ScopeField = Annotated[str, "`tenant`, `app`, `user`, `key`, `provider` or `model`."]
SubjectField = Annotated[
    str, "Id of the app, person or key, or name of the provider or model; empty for each of them, and for the tenant."
]
UnitField = Annotated[str, "`calls`, `tokens`, or `money`, in US dollars."]
PeriodField = Annotated[str, "`minute`, `hour`, `day` or `month`, in UTC."]


class Quota(Aggregate):
    """The quotas of one side, by name."""

    TOPIC = "quota"
    quotas: dict[str, Definition] = field(default_factory=dict, init=False)
    removed: list[str] = field(default_factory=list, init=False)
    """Names of removed budgets that are in no event of this aggregate: earlier versions had a noun for budgets."""

    class Event(aggregate.Event):
        pass

    class Begun(Event, aggregate.Created):
        """The first quota of this side, the operator's or the tenant's, is about to be set."""

        TOPIC = "quota.begun.v1"

    class Set(Event):
        """A quota was set or changed."""

        TOPIC = "quota.set.v1"
        name: Annotated[str, "Name of the quota."]
        scope: ScopeField
        subject: SubjectField
        unit: UnitField
        period: PeriodField
        limit: Annotated[float, "Limit in a window of the period."]
        hard: Annotated[bool, "True if calls beyond it are refused, false if it is only reported."]

        def apply(self, quota: Quota) -> None:
            quota.quotas[self.name] = Definition(
                scope=self.scope,
                subject=self.subject,
                unit=self.unit,
                period=self.period,
                limit=self.limit,
                hard=self.hard,
            )

    class Removed(Event):
        """A quota was removed."""

        TOPIC = "quota.removed.v1"
        name: Annotated[str, "Name of the quota."]

        def apply(self, quota: Quota) -> None:
            if quota.quotas.pop(self.name, None) is None:
                quota.removed.append(self.name)

    def set(self, at: datetime, name: str, definition: Definition) -> None:
        known = self.quotas.get(name)
        if known is None and len(self.quotas) >= MOST:
            raise Rejection("too_many", f"There are at most {MOST:,} quotas; remove one first.")
        if known != definition:
            self.record(self.Set, at, name=name, **definition)

    def set_budget(self, at: datetime, name: str, definition: Definition) -> None:
        """As `set`, but only in place of another budget."""
        if name in self.quotas and not is_budget(self.quotas[name]):
            raise Rejection("invalid", "A quota that is no budget has this name; choose another one.", "name")
        self.set(at, name, definition)

    def remove(self, at: datetime, name: str) -> None:
        if name not in self.quotas:
            raise Rejection("not_found", f"There is no quota {name}.", "quota")
        self.record(self.Removed, at, name=name)

    def remove_budget(self, at: datetime, name: str, *, earlier: bool) -> None:
        """`earlier`: an earlier version has recorded a budget of this name."""
        known = self.quotas.get(name)
        if not (is_budget(known) if known else earlier and name not in self.removed):
            raise Rejection("not_found", f"There is no budget {name}.", "budget")
        self.record(self.Removed, at, name=name)


def of_side(side: str, quota: Quota | None) -> dict[str, Definition]:
    """The quotas of one side by side and name, the operator's or the tenant's."""
    return {f"{side}/{name}": definition for name, definition in (quota.quotas if quota else {}).items()}
