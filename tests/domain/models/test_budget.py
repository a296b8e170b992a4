from __future__ import annotations

from domain.models.budget import Budget
from tests.domain.scenario import NOW, refold


def test_what_earlier_versions_recorded_is_read() -> None:
    budget = Budget.begin(Budget.Set, "all", NOW, scope="tenant", subject="", amount_usd=100.0)
    budget.record(Budget.Removed, NOW)
    budget.record(Budget.Changed, NOW, scope="model", subject="small-8b", amount_usd=50.0)
    read = refold(Budget, budget.pending())
    assert (read.scope, read.subject, read.amount_usd, read.deleted) == ("model", "small-8b", 50.0, False)
