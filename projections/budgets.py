"""Limits of the cost of model calls: the table `budgets`."""

from __future__ import annotations

from sqlalchemy import Double, Text

from domain.log import Recorded
from domain.models.budget import Budget
from projections.engine.columns import Time, key, required
from projections.engine.read_model import ReadModel, Row, originator

budgets = ReadModel(
    "budgets",
    "Maximum cost of model calls in a calendar month, in UTC. A removed budget has no row.",
    key("id", "Budget, as named."),
    required("scope", Text, "Scope: tenant, app, model or user."),
    required("subject", Text, "Id of the app, name of the model or the user; empty when it is for the tenant."),
    required("amount_usd", Double, "US dollars a month."),
    required("created_at", Time, "When it was set."),
    required("updated_at", Time, "Time of the last change."),
)
budgets.clears(Budget.Removed)


def _row(event: Budget.Set | Budget.Changed) -> Row:
    return {
        "id": event.originator_id,
        "scope": event.scope,
        "subject": event.subject,
        "amount_usd": event.amount_usd,
    }


@budgets.makes(Budget.Set, new=originator)
def created(event: Budget.Set, message: Recorded) -> Row:
    return _row(event)


@budgets.makes(Budget.Changed, once=originator)
def again(event: Budget.Changed, message: Recorded) -> Row:
    """The budget was removed before."""
    return _row(event)


@budgets.changes(Budget.Changed)
def changed(row: Row, event: Budget.Changed, message: Recorded) -> Row:
    return _row(event)
