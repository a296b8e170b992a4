"""The times of a schedule: five fields of cron in a time zone, or what the visual editor of Dify stores.

A day of the month and a day of the week that are both set mean either. A local time that clocks skip counts at the
moment they change. One that comes twice counts the first time, and both times where every hour is meant.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from calendar import monthrange
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from domain.aggregate import Rejection
from domain.workflows.graph import Graph
from domain.workflows.node_type import mapping, sequence, text

_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")

_NICKNAMES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

_FARTHEST: Final = 366 * 9
"""Days after which no time comes any more: 29 February is eight years away at most."""

_PART = re.compile(r"(\*|\?|\w{1,3})(?:-(\w{1,3}))?(?:/(\d{1,2}))?")
_NTH = re.compile(r"(\w{1,3})#([1-5])")
_LAST_WEEKDAY = re.compile(r"l([0-7])|([0-7])l")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2}) ?(am|pm)")


class _Field(NamedTuple):
    name: str
    low: int
    high: int
    names: Mapping[str, int] = {}


_FIELDS: Final = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    _Field("day of the week", 0, 7, {name: number for number, name in enumerate(_DAYS)}),
)


@dataclass(frozen=True)
class Cron:
    """The fields of an expression, as sets of numbers."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    """0 is Sunday."""
    last_day: bool
    nth: frozenset[tuple[int, int]]
    """Weekdays with their place in the month, from 1; 0 for the last."""

    @cached_property
    def every_day(self) -> tuple[bool, bool]:
        """True if the day of the month, and the day of the week, is not set."""
        return len(self.days) == 31, len(self.weekdays) == 7

    def has(self, day: date) -> bool:
        """Return whether times of the schedule are on this day."""
        if day.month not in self.months:
            return False
        last = monthrange(day.year, day.month)[1]
        weekday = day.isoweekday() % 7
        place = (weekday, (day.day - 1) // 7 + 1)
        of_month = day.day in self.days or (self.last_day and day.day == last)
        of_week = weekday in self.weekdays or place in self.nth or (day.day > last - 7 and (weekday, 0) in self.nth)
        any_day, any_weekday = self.every_day
        return of_month and of_week if any_day or any_weekday else of_month or of_week


@dataclass(frozen=True)
class Schedule:
    """Raises: Rejection `invalid`, where it is made of what is no schedule."""

    cron: str
    timezone: str

    def __post_init__(self) -> None:
        if not self.cron.strip():
            raise Rejection("invalid", "Give five fields: minute, hour, day, month, weekday.", "cron_expression")
        _ = self.fields
        _ = self.zone
        if self.after(datetime(2000, 1, 1, tzinfo=UTC)) is None:
            raise Rejection("invalid", f"No day that {self.cron!r} names ever comes.", "cron_expression")

    @cached_property
    def zone(self) -> ZoneInfo:
        try:
            return ZoneInfo(self.timezone)
        except (KeyError, ValueError, OSError):
            rule = f"There is no time zone {self.timezone!r}; give a name such as Europe/Berlin."
            raise Rejection("invalid", rule, "timezone") from None

    @cached_property
    def fields(self) -> Cron:
        return _parse(self.cron)

    def after(self, at: datetime) -> datetime | None:
        """The first time after this one; None where none comes."""
        first = at.astimezone(self.zone).date() - timedelta(days=1)
        days = (first + timedelta(days=number) for number in range(_FARTHEST))
        return next((min(found) for day in days if (found := [t for t in self._times(day) if t > at])), None)

    def due(self, now: datetime, *, next_at: datetime, grace: timedelta) -> datetime | None:
        """The last time that has come, from `next_at` on and not longer ago than `grace`; None for none."""
        due, at = None, self.after(max(next_at, now - grace) - timedelta(microseconds=1))
        while at and at <= now:
            due, at = at, self.after(at)
        return due

    def _times(self, day: date) -> Iterator[datetime]:
        if not self.fields.has(day):
            return
        for hour in self.fields.hours:
            for minute in self.fields.minutes:
                yield from self._moments(datetime.combine(day, time(hour, minute)))

    def _moments(self, local: datetime) -> Iterator[datetime]:
        """The moments at which clocks show this time."""
        first, second = (local.replace(tzinfo=self.zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        if second < first:  # no clock shows it
            shown = second.astimezone(self.zone).utcoffset()
            gap = range(int((first - second) / timedelta(minutes=1)) + 1)
            moved = bisect_left(gap, True, key=lambda n: _offset(second, n, self.zone) != shown)
            yield second + timedelta(minutes=moved)
            return
        yield first
        if second > first and len(self.fields.hours) == 24:
            yield second


def _offset(at: datetime, minutes: int, zone: ZoneInfo) -> timedelta | None:
    return (at + timedelta(minutes=minutes)).astimezone(zone).utcoffset()


def of_graph(graph: Graph) -> tuple[str, Schedule] | None:
    """The first node of a schedule, and its times; None where there is none."""
    for id in graph.scopes[None].nodes:
        if graph.nodes[id].type == "trigger-schedule":
            with suppress(Rejection):
                return id, of_node(graph.nodes[id].data)
    return None


def of_node(data: Mapping[str, Any]) -> Schedule:
    """The schedule of a node `trigger-schedule`. Raises: Rejection `invalid`, with the field of the node."""
    zone = text(data.get("timezone")) or "UTC"
    if data.get("mode") == "cron":
        return Schedule(text(data.get("cron_expression")), zone)
    return Schedule(_visual(text(data.get("frequency")) or "daily", mapping(data.get("visual_config"))), zone)


def _visual(frequency: str, config: Mapping[str, Any]) -> str:
    if frequency == "hourly":
        return f"{_number(config.get('on_minute') or 0, 0, 59, 'on_minute')} * * * *"
    clock = _clock(text(config.get("time")) or "12:00 AM")
    match frequency:
        case "daily":
            return f"{clock} * * *"
        case "weekly":
            days = [text(each).lower() for each in sequence(config.get("weekdays"))]
            if not days or not set(days) <= set(_DAYS):
                rule = f"Give at least one of {', '.join(_DAYS)}."
                raise Rejection("invalid", rule, "visual_config.weekdays")
            return f"{clock} * * {','.join(dict.fromkeys(days))}"
        case "monthly":
            return f"{clock} {','.join(_days(sequence(config.get('monthly_days'))))} * *"
    raise Rejection("invalid", "It is hourly, daily, weekly or monthly.", "frequency")


def _days(given: Any) -> list[str]:
    if not given:
        raise Rejection("invalid", "Give days, from 1 to 31, or last.", "visual_config.monthly_days")
    days = ["L" if each == "last" else str(_number(each, 1, 31, "monthly_days")) for each in given]
    return list(dict.fromkeys(days))


def _clock(given: str) -> str:
    """The fields minute and hour of a time such as `12:00 AM`."""
    found = _CLOCK.fullmatch(given.strip().lower())
    if found is None or not 1 <= int(found[1]) <= 12 or int(found[2]) > 59:
        raise Rejection("invalid", "Give a time such as 2:30 PM.", "visual_config.time")
    return f"{int(found[2])} {int(found[1]) % 12 + 12 * (found[3] == 'pm')}"


def _number(given: Any, low: int, high: int, field: str) -> int:
    try:
        number = int(given)
    except (TypeError, ValueError, OverflowError):
        number = low - 1
    if not low <= number <= high:
        raise Rejection("invalid", f"Give a number from {low} to {high}.", f"visual_config.{field}")
    return number


def _parse(expression: str) -> Cron:
    """Raises: Rejection `invalid`."""
    given = expression.strip().lower()
    parts = _NICKNAMES.get(given, given).split()
    if len(parts) != 5:
        rule = f"Give five fields: minute, hour, day, month, weekday; or one of {', '.join(_NICKNAMES)}."
        raise Rejection("invalid", rule, "cron_expression")
    minute, hour, day, month, weekday = parts
    days, last_day = _without_last(day)
    weekdays, nth = _without_nth(weekday)
    return Cron(
        _set(minute, _FIELDS[0]),
        _set(hour, _FIELDS[1]),
        _set(days, _FIELDS[2]),
        _set(month, _FIELDS[3]),
        frozenset(number % 7 for number in _set(weekdays, _FIELDS[4])),
        last_day,
        nth,
    )


def _without_last(field: str) -> tuple[str, bool]:
    rest = [part for part in field.split(",") if part != "l"]
    return ",".join(rest), len(rest) < len(field.split(","))


def _without_nth(field: str) -> tuple[str, frozenset[tuple[int, int]]]:
    """The rest of a field of weekdays, and those such as `fri#2` (the second) and `L5` (the last Friday)."""
    rest, nth = [], set()
    for part in field.split(","):
        if found := _LAST_WEEKDAY.fullmatch(part):
            nth.add((int(found[1] or found[2]) % 7, 0))
        elif found := _NTH.fullmatch(part):
            nth.add((_value(found[1], _FIELDS[4]) % 7, int(found[2])))
        else:
            rest.append(part)
    return ",".join(rest), frozenset(nth)


def _set(text: str, field: _Field) -> frozenset[int]:
    return frozenset(number for part in text.split(",") if text for number in _range(part, field))


def _range(part: str, field: _Field) -> Iterator[int]:
    found = _PART.fullmatch(part)
    if found is None:
        raise _wrong(part, field)
    first, last, step = found[1], found[2], int(found[3] or 1)
    if first in "*?":
        if last or step < 1 or (first == "?" and not field.name.startswith("day")):
            raise _wrong(part, field)
        yield from range(field.low, field.high + 1, step)
        return
    low = _value(first, field)
    high = _value(last, field) if last else (field.high if found[3] else low)
    if step < 1:
        raise _wrong(part, field)
    if low <= high:
        yield from range(low, high + 1, step)
        return
    span = 7 if field.high == 7 else field.high - field.low + 1  # over the end, as in fri-mon
    for number in range(low, high + span + 1, step):
        yield (number - field.low) % span + field.low


def _value(given: str, field: _Field) -> int:
    number = field.names.get(given, int(given) if given.isdecimal() else -1)
    if not field.low <= number <= field.high:
        raise _wrong(given, field)
    return number


def _wrong(part: str, field: _Field) -> Rejection:
    rule = f"{part!r} is no {field.name}: give numbers from {field.low} to {field.high}, lists, ranges or steps."
    return Rejection("invalid", rule, "cron_expression")
