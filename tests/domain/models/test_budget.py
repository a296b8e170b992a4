from __future__ import annotations

from domain.models.budget import Budget
from tests.domain.scenario import NOW, given, made

TENANT = {"scope": "tenant", "subject": "", "amount_usd": 100.0}
MODEL = {"scope": "model", "subject": "small-8b", "amount_usd": 100.0}


def budget() -> Budget:
    return Budget.begin(Budget.Set, "all", NOW, **TENANT)  # type: ignore[arg-type]


def change(budget: Budget) -> None:
    budget.change(NOW, **MODEL)  # type: ignore[arg-type]


def remove(budget: Budget) -> None:
    budget.remove(NOW)


def test_is_set() -> None:
    made(budget()).then(Budget.Set).whole(**TENANT)


def test_is_changed() -> None:
    given(budget()).once(change, Budget.Changed, **MODEL)


def test_is_removed_and_may_come_back() -> None:
    scenario = given(budget(), change).once(remove, Budget.Removed)
    assert scenario.aggregate.deleted
    assert not scenario.when(change).then(Budget.Changed, **MODEL).aggregate.deleted
