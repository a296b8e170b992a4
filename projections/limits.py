"""Limits of tenants: the table `limits`."""

from __future__ import annotations

from sqlalchemy import BigInteger, Text

from domain.access.limits import Counted, Limits, name
from domain.log import Recorded
from projections.engine.columns import Time, key, required
from projections.engine.read_model import ReadModel, Row

limits = ReadModel(
    "limits",
    "Limits of what a tenant sends, spends and has waiting. A removed limit has no row; the default limits are a "
    "setting.",
    key("id", "Side that set it, and name: operator/messages/minute/user."),
    required("set_by", Text, "operator or tenant."),
    required("quantity", Text, "Quantity: commands, messages, documents, replays, bytes or tokens."),
    required("period", Text, "Period: minute, day, or waiting for those that have not ended."),
    required("scope", Text, "Scope: tenant, app, user or key."),
    required("subject", Text, "App, user (in end_users) or key; empty for each of them, and for the tenant."),
    required("most", BigInteger, "Maximum."),
    required("created_at", Time, "When it was set."),
    required("updated_at", Time, "Time of the last change."),
)


def _id(event: Limits.Set | Limits.Removed, message: Recorded) -> str:
    return f"{event.originator_id}/{name(Counted(event.quantity, event.period, event.scope), event.subject)}"


limits.clears(Limits.Removed, pick=_id)


@limits.makes(Limits.Set, once=_id)
def created(event: Limits.Set, message: Recorded) -> Row:
    return {
        "id": _id(event, message),
        "set_by": event.originator_id,
        "quantity": event.quantity,
        "period": event.period,
        "scope": event.scope,
        "subject": event.subject,
        "most": event.most,
    }


@limits.changes(Limits.Set, pick=_id)
def changed(row: Row, event: Limits.Set, message: Recorded) -> Row:
    return {"most": event.most}
