"""Times of schedules: expressions, the visual editor, time zones and their changes."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import pytest

from domain.aggregate import Rejection
from domain.workflows.schedule import Schedule, of_node

BERLIN, NEW_YORK, HOWE, CAIRO = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo"

TIMES = [
    # expression, zone, after, the next times
    ("0 9 * * *", "UTC", "2026-11-30T09:00:00Z", ["2026-12-01T09:00Z", "2026-12-02T09:00Z"]),
    ("*/20 * * * *", "UTC", "2026-11-30T09:19:59.9Z", ["2026-11-30T09:20Z", "2026-11-30T09:40Z", "2026-11-30T10:00Z"]),
    ("5-10/5,59 23 31 12 *", "UTC", "2026-01-01T00:00Z", ["2026-12-31T23:05Z", "2026-12-31T23:10Z"]),
    ("0 0 29 2 *", "UTC", "2026-01-01T00:00Z", ["2028-02-29T00:00Z", "2032-02-29T00:00Z"]),
    ("0 0 29 2 *", "UTC", "2096-03-01T00:00Z", ["2104-02-29T00:00Z"]),
    ("0 0 31 * *", "UTC", "2026-01-31T00:00Z", ["2026-03-31T00:00Z", "2026-05-31T00:00Z"]),
    ("0 0 L * *", "UTC", "2028-01-31T00:00Z", ["2028-02-29T00:00Z", "2028-03-31T00:00Z"]),
    ("0 0 15,L * ?", "UTC", "2026-02-01T00:00Z", ["2026-02-15T00:00Z", "2026-02-28T00:00Z"]),
    ("0 0 13 * FRI", "UTC", "2026-11-12T00:00Z", ["2026-11-13T00:00Z", "2026-11-20T00:00Z"]),
    ("0 0 ? * 7", "UTC", "2026-11-30T00:00Z", ["2026-12-06T00:00Z", "2026-12-13T00:00Z"]),
    ("0 0 1 * sat-mon", "UTC", "2026-11-30T00:00Z", ["2026-12-01T00:00Z", "2026-12-05T00:00Z", "2026-12-06T00:00Z"]),
    ("0 0 * * mon#2", "UTC", "2026-11-30T00:00Z", ["2026-12-14T00:00Z", "2027-01-11T00:00Z"]),
    ("0 0 * * L5", "UTC", "2026-11-30T00:00Z", ["2026-12-25T00:00Z", "2027-01-29T00:00Z"]),
    ("0 0 1 nov-feb/3 *", "UTC", "2026-11-30T00:00Z", ["2027-02-01T00:00Z", "2027-11-01T00:00Z"]),
    ("@daily", BERLIN, "2026-11-30T00:00Z", ["2026-11-30T23:00Z"]),
    ("@HOURLY", "Asia/Kathmandu", "2026-11-30T00:00Z", ["2026-11-30T00:15Z", "2026-11-30T01:15Z"]),
    ("@yearly", "Pacific/Auckland", "2026-11-30T00:00Z", ["2026-12-31T11:00Z"]),
    # summer time: nine o'clock stays nine o'clock
    ("0 9 * * *", BERLIN, "2026-03-28T07:00Z", ["2026-03-28T08:00Z", "2026-03-29T07:00Z"]),
    ("0 9 * * *", BERLIN, "2026-10-24T06:00Z", ["2026-10-24T07:00Z", "2026-10-25T08:00Z"]),
    # a time that clocks skip: at the moment they change, once
    ("30 2 * * *", NEW_YORK, "2026-03-08T06:00Z", ["2026-03-08T07:00Z", "2026-03-09T06:30Z"]),
    ("*/30 2 * * *", NEW_YORK, "2026-03-08T06:00Z", ["2026-03-08T07:00Z", "2026-03-09T06:00Z"]),
    ("*/30 * * * *", NEW_YORK, "2026-03-08T06:00Z", ["2026-03-08T06:30Z", "2026-03-08T07:00Z", "2026-03-08T07:30Z"]),
    ("15 2 * * *", HOWE, "2026-10-03T00:00Z", ["2026-10-03T15:30Z", "2026-10-04T15:15Z"]),
    ("0 0 * * *", CAIRO, "2026-04-23T00:00Z", ["2026-04-23T22:00Z", "2026-04-24T21:00Z"]),
    # a time that comes twice: the first time; both where every hour is meant
    ("30 1 * * *", NEW_YORK, "2026-11-01T04:00Z", ["2026-11-01T05:30Z", "2026-11-02T06:30Z"]),
    ("30 * * * *", NEW_YORK, "2026-11-01T05:00Z", ["2026-11-01T05:30Z", "2026-11-01T06:30Z", "2026-11-01T07:30Z"]),
    ("45 1 * * *", HOWE, "2026-04-04T00:00Z", ["2026-04-04T14:45Z", "2026-04-05T15:15Z"]),
]


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(("cron", "zone", "after", "times"), TIMES)
def test_the_next_times(cron: str, zone: str, after: str, times: list[str]) -> None:
    schedule, at = Schedule(cron, zone), moment(after)
    for expected in times:
        found = schedule.after(at)
        assert found == moment(expected)
        at = found


@pytest.mark.parametrize("zone", [BERLIN, NEW_YORK, HOWE, CAIRO, "America/Havana", "Asia/Beirut"])
def test_times_only_go_on_where_clocks_change(zone: str) -> None:
    schedule, one = Schedule("*/30 * * * *", zone), timedelta(days=1)
    days = [moment("2026-01-01T12:00Z") + number * one for number in range(365)]
    offsets = [day.astimezone(schedule.zone).utcoffset() for day in days]
    changes = [day for day, before, after in zip(days, offsets, offsets[1:], strict=False) if before != after]
    assert len(changes) == 2
    for day in changes:
        at = day
        while at < day + one:
            found = schedule.after(at)
            assert found
            assert timedelta(0) < found - at <= timedelta(minutes=30)
            at = found


VISUAL = [
    ({}, "0 0 * * *"),
    ({"frequency": "hourly", "visual_config": {"on_minute": 45}}, "45 * * * *"),
    ({"frequency": "daily", "visual_config": {"time": "12:30 PM"}}, "30 12 * * *"),
    ({"frequency": "weekly", "visual_config": {"time": "2:05 am", "weekdays": ["mon", "FRI"]}}, "5 2 * * mon,fri"),
    (
        {"frequency": "monthly", "visual_config": {"time": "11:59 PM", "monthly_days": [1, 31, "last"]}},
        "59 23 1,31,L * *",
    ),
    ({"mode": "cron", "cron_expression": "0 6 * * 1-5"}, "0 6 * * 1-5"),
]


@pytest.mark.parametrize(("data", "cron"), VISUAL)
def test_what_the_visual_editor_stores_is_an_expression(data: dict[str, Any], cron: str) -> None:
    assert of_node({"mode": "visual", "timezone": BERLIN, **data}) == Schedule(cron, BERLIN)


WRONG = [
    ({"mode": "cron"}, "cron_expression", "five fields"),
    ({"mode": "cron", "cron_expression": "0 0 * *"}, "cron_expression", "@daily"),
    ({"mode": "cron", "cron_expression": "0 0 0 * * *"}, "cron_expression", "five fields"),
    ({"mode": "cron", "cron_expression": "60 0 * * *"}, "cron_expression", "'60' is no minute"),
    ({"mode": "cron", "cron_expression": "? 0 * * *"}, "cron_expression", "'?' is no minute"),
    ({"mode": "cron", "cron_expression": "*/0 0 * * *"}, "cron_expression", "'*/0' is no minute"),
    ({"mode": "cron", "cron_expression": "0 0 1,, * *"}, "cron_expression", "'' is no day of the month"),
    ({"mode": "cron", "cron_expression": "0 0 * * noday"}, "cron_expression", "day of the week"),
    ({"mode": "cron", "cron_expression": "0 0 30 2 *"}, "cron_expression", "ever comes"),
    ({"timezone": "Mars/Olympus"}, "timezone", "Europe/Berlin"),
    ({"timezone": "../etc/passwd"}, "timezone", "no time zone"),
    ({"frequency": "fortnightly"}, "frequency", "weekly"),
    ({"frequency": "hourly", "visual_config": {"on_minute": 60}}, "visual_config.on_minute", "59"),
    ({"frequency": "daily", "visual_config": {"time": "13:00 PM"}}, "visual_config.time", "2:30 PM"),
    ({"frequency": "weekly", "visual_config": {"weekdays": []}}, "visual_config.weekdays", "sun"),
    ({"frequency": "monthly", "visual_config": {}}, "visual_config.monthly_days", "last"),
    ({"frequency": "monthly", "visual_config": {"monthly_days": [32]}}, "visual_config.monthly_days", "31"),
]


@pytest.mark.parametrize(("data", "field", "words"), WRONG)
def test_what_is_no_schedule_is_refused(data: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(Rejection, match=re.escape(words)) as caught:
        of_node(data)
    assert caught.value.field == field


def test_missed_times_are_not_made_up() -> None:
    schedule, grace = Schedule("*/10 * * * *", "UTC"), timedelta(minutes=1)
    next_at = moment("2026-01-01T00:10Z")

    def due(now: str) -> datetime | None:
        return schedule.due(moment(now), next_at=next_at, grace=grace)

    assert due("2026-01-01T00:09:59Z") is None
    assert due("2026-01-01T00:10:00Z") == next_at
    assert due("2026-01-01T00:10:59Z") == next_at
    assert due("2026-01-01T00:11:01Z") is None
    assert due("2026-07-01T00:05Z") is None
    assert due("2026-07-01T00:10:30Z") == moment("2026-07-01T00:10Z")
    assert Schedule("* * * * *", "UTC").due(next_at, next_at=next_at, grace=timedelta(0)) == next_at
