from __future__ import annotations

from datetime import timedelta
from typing import Any

from domain.models.budget import Budget
from domain.models.quota import Definition, Quota, window
from domain.models.quota_window import QuotaWindow
from projections.quota_windows import quota_windows
from projections.quotas import quotas
from tests.projections.history import History

CALLS = Definition(
    scope="tenant", subject="", unit="calls", period="day", limit=1000.0, hard=True, time_zone="UTC", rolling=0
)
BUDGET = Definition(
    scope="model", subject="small", unit="money", period="month", limit=9.5, hard=False, time_zone="UTC", rolling=0
)


def rows(history: History) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in history.rows(quotas)}


def test_a_quota_changes_goes_and_comes_back() -> None:
    history = History()
    quota = Quota.begin(Quota.Begun, "operator", history.now)
    history.record(quota)
    quota.set(history.now, "calls", CALLS)
    began = history.record(quota)
    quota.set(history.now, "calls", BUDGET)
    at = history.record(quota)
    assert rows(history) == {
        "operator/calls": {
            "tenant_id": "default",
            "id": "operator/calls",
            "set_by": "operator",
            "name": "calls",
            "scope": "model",
            "subject": "small",
            "unit": "money",
            "period": "month",
            "time_zone": "UTC",
            "rolling": 0,
            "most": 9.5,
            "hard": False,
            "created_at": began,
            "updated_at": at,
            "log_position": 3,
        }
    }
    quota.remove(history.now, "calls")
    history.record(quota)
    assert rows(history) == {}
    quota.set(history.now, "calls", CALLS)
    at = history.record(quota)
    assert rows(history)["operator/calls"]["created_at"] == at


def test_a_budget_of_an_earlier_version_is_a_soft_quota() -> None:
    history = History()
    budget = Budget.begin(Budget.Set, "lab", history.now, scope="tenant", subject="", amount_usd=250.0)
    history.record(budget)
    budget.record(Budget.Changed, history.now, scope="model", subject="small", amount_usd=9.5)
    history.record(budget)
    row = rows(history)["tenant/lab"]
    assert (row["set_by"], row["name"]) == ("tenant", "lab")
    assert {name: row[name] for name in BUDGET if name != "limit"} | {"limit": row["most"]} == BUDGET
    quota = Quota.begin(Quota.Begun, "tenant", history.now)
    quota.set_budget(history.now, "lab", {**BUDGET, "limit": 12.0})
    history.record(quota)
    assert rows(history)["tenant/lab"]["most"] == 12.0
    quota.remove_budget(history.now, "lab", earlier=True)
    history.record(quota)
    assert rows(history) == {}


def test_a_budget_of_an_earlier_version_is_removed_by_either() -> None:
    history = History()
    budgets = [
        Budget.begin(Budget.Set, name, history.now, scope="tenant", subject="", amount_usd=1.0) for name in ("a", "b")
    ]
    for budget in budgets:
        history.record(budget)
    budgets[0].record(Budget.Removed, history.now)
    history.record(budgets[0])
    assert list(rows(history)) == ["tenant/b"]
    quota = Quota.begin(Quota.Begun, "tenant", history.now)
    quota.remove_budget(history.now, "b", earlier=True)
    history.record(quota)
    assert rows(history) == {}


def test_a_window_has_its_leases_and_what_was_used() -> None:
    history = History()
    at = history.now
    until = at + timedelta(minutes=1)
    opened = QuotaWindow.open(at, window("tenant/calls", CALLS, "", at))
    opened.grant(at, "a", 1, 1, 1000, until)
    history.record(opened)
    [row] = history.rows(quota_windows)
    known = ("quota_id", "scope", "subject", "unit", "period", "most", "granted", "used", "leased_until", "alerts")
    assert [row[name] for name in known] == ["tenant/calls", "tenant", "", "calls", "day", 1000, 20, 0, until, []]
    assert (row["begins_at"], row["ends_at"]) == (
        at.replace(hour=0, minute=0, second=0, microsecond=0),
        at.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1),
    )
    assert row["leases"] == {"a": {"amount": 20, "since": at.isoformat(), "until": until.isoformat()}}
    later = until + timedelta(minutes=1)
    opened.grant(at, "b", 980, 980, 1000, later)
    opened.renew(at, "a", later + timedelta(minutes=1))
    opened.exhaust(at, 1, 1000)
    history.record(opened)
    [row] = history.rows(quota_windows)
    assert (row["granted"], row["leased_until"], row["exhausted_at"]) == (1000, later, at)
    opened.settle(at, "a", 20)
    opened.settle(at, "b", 480)
    opened.alert(at, 500, 1000)
    history.record(opened)
    [row] = history.rows(quota_windows)
    assert (row["granted"], row["used"], row["leases"], row["leased_until"], row["exhausted_at"]) == (
        *(0, 500, {}, None, None),
    )
    assert row["alerts"] == [{"percent": 50, "used": 500, "at": at.isoformat()}]
    assert (row["time_zone"], row["rolling"], row["parts"]) == ("UTC", 0, {})


def test_a_rolling_window_has_its_parts_and_its_last_alerts() -> None:
    history = History()
    at = history.now
    rolling: Definition = {**CALLS, "period": "hour", "rolling": 2}
    opened = QuotaWindow.open(at, window("tenant/calls", rolling, "", at))
    for minutes in (0, 5, 130):
        now = at + timedelta(minutes=minutes)
        opened.grant(now, f"{minutes}", 500, 500, 1000, now)
        opened.settle(now, f"{minutes}", 400)
        opened.alert(now, 500, 1000)
    history.record(opened)
    [row] = history.rows(quota_windows)
    assert (row["begins_at"], row["ends_at"], row["rolling"], row["used"]) == (at, None, 2, 1200)
    assert row["parts"] == opened.parts
    assert row["alerts"] == [{"percent": 50, "used": 500, "at": (at + timedelta(minutes=130)).isoformat()}]
    assert len(row["parts"]) == 1
