from __future__ import annotations

from datetime import UTC, datetime

import pytest

from adapters.web.viewer.quota import month_begin, standing

NOON, MARCH = datetime(2026, 2, 15, 12, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)


def test_knows_where_a_month_begins() -> None:
    assert month_begin(NOON) == datetime(2026, 2, 1, tzinfo=UTC)


def test_goes_on_as_the_last_days_went() -> None:
    stand = standing(100.0, 30.0, 14.0, NOON, MARCH)
    assert stand.share == 0.3
    assert stand.forecast == pytest.approx(30 + 2 * 13.5)
    assert (stand.state, stand.over_at) == ("within", None)


def test_says_when_it_will_be_spent() -> None:
    stand = standing(40.0, 30.0, 14.0, NOON, MARCH)
    assert stand.state == "likely over"
    assert stand.over_at == datetime(2026, 2, 20, 12, tzinfo=UTC)


def test_is_over_when_all_is_spent() -> None:
    stand = standing(30.0, 30.0, 0.0, NOON, MARCH, unpriced=2)
    assert (stand.state, stand.over_at, stand.forecast, stand.unpriced) == ("over", None, 30.0, 2)


def test_a_month_that_was_quiet_stays_quiet() -> None:
    assert standing(10.0, 0.0, 0.0, NOON, MARCH).forecast == 0.0
