"""The quotas of a tenant: how many calls of models, tokens or US dollars a window of time may take.

A window is of the calendar, in a time zone, or it rolls: the last 24 hours at any time. A soft quota is reported. A
hard one is never passed: workers take grants of its windows before they call a model.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, TypedDict
from uuid import NAMESPACE_OID, uuid5
from zoneinfo import ZoneInfo, available_timezones

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

LENGTHS = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)}
"""Lengths of the periods that rolling windows are made of."""

LONGEST = timedelta(days=366)
"""Maximum length of a rolling window."""

UTC_ZONE = "UTC"


class Definition(TypedDict):
    """The terms of a quota; an empty `subject` stands for each app, user, key, provider or model."""

    scope: str
    subject: str
    unit: str
    period: str
    limit: float
    hard: bool
    time_zone: str
    """IANA name of the zone in which calendar windows begin."""
    rolling: int
    """Number of periods that a rolling window covers; 0 for calendar windows."""


class Window(NamedTuple):
    """The time in which a quota counts, for one subject; `quota` is its side and name.

    A rolling window ends now, and is the same one at any time.
    """

    quota: str
    scope: str
    subject: str
    unit: str
    period: str
    begins: datetime
    ends: datetime
    time_zone: str = UTC_ZONE
    rolling: int = 0

    @property
    def id(self) -> str:
        """The same whatever the limit is, so that a quota that is set again goes on counting."""
        if self.rolling:
            when = f"{self.rolling} {self.period}s"
        else:
            zone = "" if self.time_zone == UTC_ZONE else f" {self.time_zone}"
            when = f"{self.period}/{self.begins:%Y-%m-%dT%H:%M}{zone}"
        return str(uuid5(NAMESPACE_OID, f"{self.quota}/{self.scope}/{self.unit}/{when}/{self.subject}"))


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


def every(period: str, time_zone: str, rolling: int) -> str:
    """The windows of a quota, for people, after its limit."""
    if rolling:
        return f"in any {rolling} {period}s" if rolling > 1 else f"in any {period}"
    zone = "" if time_zone == UTC_ZONE else f" in {time_zone}"
    return f"{'an' if period == 'hour' else 'a'} {period}{zone}"


@cache
def time_zones() -> frozenset[str]:
    """The names of all time zones; the one of the machine, whatever it is, is none of them."""
    return frozenset(available_timezones() - {"localtime"})


def span(period: str, at: datetime, time_zone: str = UTC_ZONE, rolling: int = 0) -> tuple[datetime, datetime]:
    """The begin and the end of the window at this time, in UTC.

    A day or month begins at the first midnight of its date, so that a day has 23 hours or 25 when clocks are changed.
    An hour is one of the clock, and ends when that is changed.
    """
    if rolling:
        return at.astimezone(UTC) - rolling * LENGTHS[period], at.astimezone(UTC)
    zone = ZoneInfo(time_zone)
    return _days(period, at, zone) if period in ("day", "month") else _clock(LENGTHS[period], at, zone)


def _clock(length: timedelta, at: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """The minute or hour at this time."""
    offset, minute = _offset(at, zone), LENGTHS["minute"]
    local = (at.astimezone(UTC) + offset).replace(second=0, microsecond=0)
    begins = (local if length == minute else local.replace(minute=0)) - offset
    ends = begins + length
    if _offset(begins, zone) == offset == _offset(ends - minute, zone):
        return begins, ends
    every = (begins + number * minute for number in range(length // minute))
    same = [each for each in every if _offset(each, zone) == offset]
    return same[0], same[-1] + minute


def _offset(at: datetime, zone: ZoneInfo) -> timedelta:
    offset = at.astimezone(zone).utcoffset()
    assert offset is not None
    return offset


def _days(period: str, at: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """The day or month at this time. Where clocks are put back over midnight, the date before comes again, and the
    window goes on."""
    days = [at.astimezone(zone).date() + timedelta(days=days) for days in (-1, 0, 1, 2)]
    if period == "month":
        this = days[1].replace(day=1)
        after = (this + timedelta(days=31)).replace(day=1)
        days = [(this - timedelta(days=1)).replace(day=1), this, after, (after + timedelta(days=31)).replace(day=1)]
    begins = [_midnight(day, zone) for day in days]
    ends = bisect_right(begins, at)
    return begins[ends - 1], begins[ends]


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    """The first midnight of a date; where there is none, the time that clocks are put on to."""
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


def window(quota: str, definition: Definition, subject: str, at: datetime) -> Window:
    """The window of a quota for a subject at this time."""
    period, zone, rolling = definition["period"], definition["time_zone"], definition["rolling"]
    begins, ends = span(period, at, zone, rolling)
    return Window(quota, definition["scope"], subject, definition["unit"], period, begins, ends, zone, rolling)


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
    """True for a quota as `budget.set` makes them: soft, of money, in a month of UTC."""
    given = definition["unit"], definition["period"], definition["hard"], definition["time_zone"]
    return given == ("money", "month", False, UTC_ZONE)


ScopeField = Annotated[str, "`tenant`, `app`, `user`, `key`, `provider` or `model`."]
SubjectField = Annotated[
    str, "Id of the app, person or key, or name of the provider or model; empty for each of them, and for the tenant."
]
UnitField = Annotated[str, "`calls`, `tokens`, or `money`, in US dollars."]
PeriodField = Annotated[str, "`minute`, `hour`, `day` or `month`."]
ZoneField = Annotated[str, "IANA name of the time zone in which calendar windows begin."]
RollingField = Annotated[int, "Number of periods that a rolling window covers; 0 for calendar windows."]


def with_zone(state: dict[str, Any]) -> None:
    """Complete what an earlier version stored: all windows were of the calendar in UTC."""
    state["time_zone"], state["rolling"] = UTC_ZONE, 0


class Quota(Aggregate):
    """The quotas of one side, by name."""

    TOPIC = "quota"
    class_version = 2
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

        TOPIC = "quota.set.v2"
        class_version = 2
        name: Annotated[str, "Name of the quota."]
        scope: ScopeField
        subject: SubjectField
        unit: UnitField
        period: PeriodField
        limit: Annotated[float, "Limit in a window of the period."]
        hard: Annotated[bool, "True if calls beyond it are refused, false if it is only reported."]
        time_zone: ZoneField
        rolling: RollingField

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            with_zone(state)

        def apply(self, quota: Quota) -> None:
            quota.quotas[self.name] = Definition(
                scope=self.scope,
                subject=self.subject,
                unit=self.unit,
                period=self.period,
                limit=self.limit,
                hard=self.hard,
                time_zone=self.time_zone,
                rolling=self.rolling,
            )

    class Removed(Event):
        """A quota was removed."""

        TOPIC = "quota.removed.v1"
        name: Annotated[str, "Name of the quota."]

        def apply(self, quota: Quota) -> None:
            if quota.quotas.pop(self.name, None) is None:
                quota.removed.append(self.name)

    @staticmethod
    def upcast_v1_v2(state: dict[str, Any]) -> None:
        """Convert a snapshot."""
        for definition in state["quotas"].values():
            with_zone(definition)

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
