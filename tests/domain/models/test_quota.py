from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, settings
from hypothesis import given as generated
from hypothesis import strategies as st

from domain.models.quota import (
    MOST,
    TENANT,
    Definition,
    Quota,
    amount,
    bounds,
    every,
    of_side,
    shown,
    span,
    time_zones,
    window,
)
from tests.domain.scenario import NOW, given

DAY = timedelta(days=1)


def definition(**fields: object) -> Definition:
    known = {"scope": "tenant", "subject": "", "unit": "calls", "period": "day", "limit": 1000.0, "hard": True}
    return Definition(**{**known, "time_zone": "UTC", "rolling": 0, **fields})  # type: ignore[typeddict-item]


BUDGET = definition(unit="money", period="month", limit=50.0, hard=False)


def begun() -> Quota:
    quota = Quota.begin(Quota.Begun, TENANT, NOW)
    quota.pending()
    return quota


def put(quota: Quota) -> None:
    quota.set(NOW, "calls", definition())


def remove(quota: Quota) -> None:
    quota.remove(NOW, "calls")


def test_is_set_changed_and_removed() -> None:
    scenario = given(begun()).once(put, Quota.Set, name="calls", **definition())
    scenario.when(lambda it: it.set(NOW, "calls", definition(limit=5.0))).then(Quota.Set, limit=5.0)
    scenario.when(remove).then(Quota.Removed, name="calls")
    scenario.when(remove).rejects("not_found", "quota")
    assert scenario.aggregate.quotas == {}


def test_there_are_not_too_many() -> None:
    quota = begun()
    for number in range(MOST):
        quota.set(NOW, f"q{number}", definition())
    quota.pending()
    given(quota).when(put).rejects("too_many", None)
    given(quota).when(lambda it: it.set(NOW, "q7", BUDGET)).then(Quota.Set, name="q7")


def test_a_budget_is_set_in_place_of_another_budget_only() -> None:
    scenario = given(begun(), put).when(lambda it: it.set_budget(NOW, "calls", BUDGET)).rejects("invalid", "name")
    scenario.when(lambda it: it.remove_budget(NOW, "calls", earlier=False)).rejects("not_found", "budget")
    scenario.when(lambda it: it.set_budget(NOW, "month", BUDGET)).then(Quota.Set, name="month")
    scenario.when(lambda it: it.set_budget(NOW, "month", BUDGET | {"limit": 9.0})).then(Quota.Set, limit=9.0)
    scenario.when(lambda it: it.remove_budget(NOW, "month", earlier=False)).then(Quota.Removed, name="month")


def test_a_budget_of_an_earlier_version_is_removed_once() -> None:
    scenario = (
        given(begun()).when(lambda it: it.remove_budget(NOW, "old", earlier=False)).rejects("not_found", "budget")
    )
    scenario.when(lambda it: it.remove_budget(NOW, "old", earlier=True)).then(Quota.Removed, name="old")
    scenario.when(lambda it: it.remove_budget(NOW, "old", earlier=True)).rejects("not_found", "budget")
    scenario.when(lambda it: it.set_budget(NOW, "old", BUDGET)).then(Quota.Set)
    scenario.when(lambda it: it.remove_budget(NOW, "old", earlier=True)).then(Quota.Removed)


@pytest.mark.parametrize(
    ("period", "begins", "ends"),
    [
        ("minute", datetime(2026, 12, 31, 23, 59, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
        ("hour", datetime(2026, 12, 31, 23, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
        ("day", datetime(2026, 12, 31, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
        ("month", datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_window_begins_and_ends_in_utc(period: str, begins: datetime, ends: datetime) -> None:
    assert span(period, datetime(2027, 1, 1, 0, 59, 59, tzinfo=UTC) - timedelta(hours=1)) == (begins, ends)


def test_months_have_their_own_lengths() -> None:
    assert [span("month", datetime(2027, month, 28, tzinfo=UTC))[1].month for month in (1, 2, 12)] == [2, 3, 1]


def test_a_quota_goes_on_counting_when_its_limit_changes() -> None:
    one, other = (window("tenant/q", definition(limit=limit), "", NOW) for limit in (1.0, 2.0))
    assert one.id == other.id
    for another in (
        definition(unit="tokens"),
        definition(period="month"),
        definition(scope="app"),
        definition(time_zone="Europe/London"),
        definition(rolling=1),
    ):
        assert window("tenant/q", another, "", NOW).id != one.id
    assert window("tenant/q", definition(), "", NOW + timedelta(days=1)).id != one.id
    assert window("tenant/q", definition(), "x", NOW).id != one.id


@pytest.mark.parametrize(
    ("zone", "period", "at", "begins", "hours"),
    [
        ("Europe/Berlin", "day", "2026-03-29T12:00+02:00", "2026-03-29T00:00+01:00", 23),
        ("Europe/Berlin", "day", "2026-10-25T00:00+02:00", "2026-10-25T00:00+02:00", 25),
        ("Europe/Berlin", "day", "2026-10-25T23:59:59+01:00", "2026-10-25T00:00+02:00", 25),
        ("Europe/Berlin", "month", "2026-03-31T23:59+02:00", "2026-03-01T00:00+01:00", 31 * 24 - 1),
        ("Europe/Berlin", "hour", "2026-10-25T02:30+02:00", "2026-10-25T02:00+02:00", 1),
        ("Europe/Berlin", "hour", "2026-10-25T02:30+01:00", "2026-10-25T02:00+01:00", 1),
        ("Asia/Kolkata", "hour", "2026-05-04T12:10+05:30", "2026-05-04T12:00+05:30", 1),
        ("Asia/Kolkata", "minute", "2026-05-04T12:10:59+05:30", "2026-05-04T12:10+05:30", 1 / 60),
        # Clocks are changed by half an hour, in the middle of one, at midnight, shortly after it; or by a day.
        ("Australia/Lord_Howe", "hour", "2026-04-05T01:45+11:00", "2026-04-05T01:00+11:00", 1),
        ("Australia/Lord_Howe", "hour", "2026-04-05T01:45+10:30", "2026-04-05T01:30+10:30", 0.5),
        ("Australia/Lord_Howe", "hour", "2026-10-04T02:40+11:00", "2026-10-04T02:30+11:00", 0.5),
        ("Pacific/Chatham", "hour", "2026-09-27T02:30+12:45", "2026-09-27T02:00+12:45", 0.75),
        ("America/Santiago", "day", "2026-09-06T12:00-03:00", "2026-09-06T01:00-03:00", 23),
        ("America/Santiago", "day", "2026-04-04T23:30-04:00", "2026-04-04T00:00-03:00", 25),
        ("America/Havana", "day", "2026-11-01T00:30-05:00", "2026-11-01T00:00-04:00", 25),
        ("America/St_Johns", "day", "2010-11-06T23:30-03:30", "2010-11-07T00:00-02:30", 25),
        ("Pacific/Apia", "day", "2011-12-31T00:00+14:00", "2011-12-31T00:00+14:00", 24),
        ("Pacific/Apia", "day", "2011-12-29T23:00-10:00", "2011-12-29T00:00-10:00", 24),
        ("Pacific/Apia", "month", "2011-12-31T12:00+14:00", "2011-12-01T00:00-10:00", 30 * 24),
    ],
)
def test_a_window_begins_and_ends_in_its_time_zone(zone: str, period: str, at: str, begins: str, hours: float) -> None:
    found = span(period, datetime.fromisoformat(at), zone)
    assert found == (datetime.fromisoformat(begins), datetime.fromisoformat(begins) + timedelta(hours=hours))
    assert {each.tzinfo for each in found} == {UTC}


LARGEST_CHANGE = timedelta(hours=7)
"""By which clocks of one place changed since 1990: Vostok, in 1994."""


@settings(max_examples=500, deadline=None)
@example("Antarctica/Vostok", "day", datetime(1994, 1, 31, 21, tzinfo=UTC))
@example("Antarctica/Troll", "month", datetime(2005, 10, 1, tzinfo=UTC))
@generated(
    st.sampled_from(sorted(time_zones())),
    st.sampled_from(["minute", "hour", "day", "month"]),
    st.datetimes(datetime(1990, 1, 1), datetime(2060, 1, 1), timezones=st.just(UTC)),
)
def test_every_time_is_in_one_window_of_its_time_zone(zone: str, period: str, at: datetime) -> None:
    begins, ends = span(period, at, zone)
    assert begins <= at < ends
    assert span(period, begins, zone) == span(period, ends - timedelta(microseconds=1), zone) == (begins, ends)
    assert span(period, ends, zone)[0] == ends
    assert span(period, begins - timedelta(microseconds=1), zone)[1] == begins
    lasts = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1)}
    days = {"day": timedelta(days=1) + LARGEST_CHANGE, "month": timedelta(days=31) + LARGEST_CHANGE}
    assert ends - begins <= (lasts | days)[period]
    local = begins.astimezone(ZoneInfo(zone))
    if period == "month":
        assert local.day <= 2
    if period in ("day", "month"):
        assert timedelta(hours=local.hour) <= LARGEST_CHANGE
    if period == "hour":
        assert at.astimezone(ZoneInfo(zone)).hour == local.hour


def test_a_rolling_window_ends_now_and_is_always_the_same() -> None:
    one, other = (window("tenant/q", definition(period="hour", rolling=24), "", NOW + n * DAY) for n in (0, 9))
    assert (one.begins, one.ends) == (NOW - DAY, NOW)
    assert one.id == other.id != window("tenant/q", definition(period="day", rolling=1), "", NOW).id


def test_windows_are_named_for_people() -> None:
    assert [
        every("hour", "UTC", 0),
        every("day", "Europe/Berlin", 0),
        every("hour", "UTC", 24),
        every("day", "UTC", 1),
    ] == ["an hour", "a day in Europe/Berlin", "in any 24 hours", "in any day"]


def test_a_quota_of_an_earlier_version_is_of_the_calendar_in_utc() -> None:
    old = {name: value for name, value in definition().items() if name not in ("time_zone", "rolling")}
    state: dict[str, Any] = {"quotas": {"calls": old}}
    Quota.upcast_v1_v2(state)
    assert state == {"quotas": {"calls": definition()}}


def test_the_quotas_that_hold_are_those_of_each_and_of_this_subject() -> None:
    quota = begun()
    quota.set(NOW, "all", definition())
    quota.set(NOW, "each-app", definition(scope="app"))
    quota.set(NOW, "this-app", definition(scope="app", subject="a"))
    quota.set(NOW, "other-app", definition(scope="app", subject="b"))
    quota.set(NOW, "each-user", definition(scope="user"))
    quota.set(NOW, "soft", definition(hard=False))
    quotas = of_side(TENANT, quota)
    held = bounds(quotas, {"tenant": "", "app": "a", "user": None}, NOW)
    assert [(bound.window.quota, bound.window.subject) for bound in held] == [
        ("tenant/all", ""),
        ("tenant/each-app", "a"),
        ("tenant/this-app", "a"),
    ]
    assert [bound.window.quota for bound in bounds(quotas, {"tenant": ""}, NOW, hard=False)] == ["tenant/soft"]
    assert of_side(TENANT, None) == {}


def test_money_is_counted_in_billionths_of_a_dollar() -> None:
    assert (amount(0.000_000_02, "money"), amount(12.5, "money"), amount(12.0, "calls")) == (20, 12_500_000_000, 12)
    assert (shown(12_500_000_000, "money"), shown(1_200, "tokens")) == ("$12.5", "1,200 tokens")
    assert (shown(1, "calls"), shown(0, "calls")) == ("1 call", "0 calls")
