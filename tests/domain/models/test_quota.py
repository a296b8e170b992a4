from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from domain.models.quota import MOST, TENANT, Definition, Quota, amount, bounds, of_side, shown, span, window
from tests.domain.scenario import NOW, given


def definition(**fields: object) -> Definition:
    known = {"scope": "tenant", "subject": "", "unit": "calls", "period": "day", "limit": 1000.0, "hard": True}
    return Definition(**{**known, **fields})  # type: ignore[typeddict-item]


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
    for another in (definition(unit="tokens"), definition(period="month"), definition(scope="app")):
        assert window("tenant/q", another, "", NOW).id != one.id
    assert window("tenant/q", definition(), "", NOW + timedelta(days=1)).id != one.id
    assert window("tenant/q", definition(), "x", NOW).id != one.id


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
