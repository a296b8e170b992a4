"""Quotas of model calls: the table `quotas`."""

from __future__ import annotations

from sqlalchemy import Boolean, Double, Integer, Text

from domain.log import Recorded
from domain.models.budget import Budget
from domain.models.quota import TENANT, UTC_ZONE, Quota
from projections.engine.columns import Time, key, required
from projections.engine.read_model import ReadModel, Row

quotas = ReadModel(
    "quotas",
    "Quotas of calls of models. A removed quota has no row. Budgets are the soft quotas of money in a month.",
    key("id", "Side that set it, and name: tenant/monthly."),
    required("set_by", Text, "operator or tenant."),
    required("name", Text, "Name of the quota."),
    required("scope", Text, "Scope: tenant, app, user, key, provider or model."),
    required(
        "subject",
        Text,
        "App, person, key, provider or model; empty for each of them, and for the tenant. A budget that an earlier "
        "version set names a user, not the person.",
    ),
    required("unit", Text, "Unit: calls, tokens, or money in US dollars."),
    required("period", Text, "Period: minute, hour, day or month."),
    required("time_zone", Text, "IANA name of the time zone in which calendar windows begin."),
    required("rolling", Integer, "Number of periods that a rolling window covers; 0 for calendar windows."),
    required("most", Double, "Limit in a window."),
    required("hard", Boolean, "Calls beyond the limit are refused; false: they are reported."),
    required("created_at", Time, "When it was set."),
    required("updated_at", Time, "Time of the last change."),
)


def _id(event: Quota.Set | Quota.Removed, message: Recorded) -> str:
    return f"{event.originator_id}/{event.name}"


def _budget(event: Budget.Event, message: Recorded) -> str:
    return f"{TENANT}/{event.originator_id}"


quotas.clears(Quota.Removed, pick=_id)
quotas.clears(Budget.Removed, pick=_budget)


def _limits(event: Quota.Set) -> Row:
    return {
        "scope": event.scope,
        "subject": event.subject,
        "unit": event.unit,
        "period": event.period,
        "time_zone": event.time_zone,
        "rolling": event.rolling,
        "most": event.limit,
        "hard": event.hard,
    }


@quotas.makes(Quota.Set, once=_id)
def created(event: Quota.Set, message: Recorded) -> Row:
    return {"id": _id(event, message), "set_by": event.originator_id, "name": event.name, **_limits(event)}


@quotas.changes(Quota.Set, pick=_id)
def changed(row: Row, event: Quota.Set, message: Recorded) -> Row:
    return _limits(event)


def _budgeted(event: Budget.Set | Budget.Changed) -> Row:
    return {
        "scope": event.scope,
        "subject": event.subject,
        "unit": "money",
        "period": "month",
        "time_zone": UTC_ZONE,
        "rolling": 0,
        "most": event.amount_usd,
        "hard": False,
    }


@quotas.makes(Budget.Set, Budget.Changed, once=_budget)
def budget_set(event: Budget.Set | Budget.Changed, message: Recorded) -> Row:
    return {"id": _budget(event, message), "set_by": TENANT, "name": event.originator_id, **_budgeted(event)}


@quotas.changes(Budget.Changed, pick=_budget)
def budget_changed(row: Row, event: Budget.Changed, message: Recorded) -> Row:
    return _budgeted(event)
