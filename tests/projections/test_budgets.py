from __future__ import annotations

from domain.models.budget import Budget
from projections.budgets import budgets
from tests.projections.history import History


def test_a_budget_changes_goes_and_comes_back() -> None:
    history = History()
    budget = Budget.begin(Budget.Set, "lab", history.now, scope="tenant", subject="", amount_usd=250.0)
    began = history.record(budget)
    budget.change(history.now, scope="model", subject="small", amount_usd=100.0)
    at = history.record(budget)
    assert history.rows(budgets) == [
        {
            "tenant_id": "default",
            "id": "lab",
            "scope": "model",
            "subject": "small",
            "amount_usd": 100.0,
            "created_at": began,
            "updated_at": at,
            "log_position": 2,
        }
    ]
    budget.remove(history.now)
    history.record(budget)
    assert history.rows(budgets) == []
    budget.change(history.now, scope="tenant", subject="", amount_usd=1.0)
    at = history.record(budget)
    (row,) = history.rows(budgets)
    assert (row["amount_usd"], row["created_at"], row["log_position"]) == (1.0, at, 4)
