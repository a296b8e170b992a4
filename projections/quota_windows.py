"""Windows of quotas: the table `quota_windows`."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Integer, Text
from sqlalchemy.dialects.postgresql import JSONB

from domain.log import Recorded
from domain.models.quota_window import QuotaWindow, with_part
from projections.engine.columns import Id, Time, key, optional, required
from projections.engine.read_model import ReadModel, Row, originator

quota_windows = ReadModel(
    "quota_windows",
    "Windows in which hard quotas have counted, or quotas have given alerts. Amounts are calls, tokens, or billionths "
    "of a US dollar.",
    key("id", "Window."),
    required("quota_id", Id, "Quota, in quotas; it may have been removed since."),
    required("scope", Text, "Scope: tenant, app, user, key, provider or model."),
    required("subject", Text, "App, person, key, provider or model; empty for the tenant."),
    required("unit", Text, "Unit: calls, tokens or money."),
    required("period", Text, "Period: minute, hour, day or month."),
    required("time_zone", Text, "IANA name of the time zone in which a calendar window begins."),
    required("rolling", Integer, "Number of periods that a rolling window covers; 0 for a calendar window."),
    required("begins_at", Time, "Begin of the window; of a rolling one, when it began to count."),
    optional("ends_at", Time, "End of the window; null for a rolling one."),
    optional("most", BigInteger, "Limit at the last grant or alert; null before."),
    required("granted", BigInteger, "Amount in leases that workers hold."),
    required("used", BigInteger, "Amount that calls of all settled leases have used; 0 for a soft quota."),
    required("parts", JSONB, "Of a rolling window, amounts of settled leases by the time when they are free again."),
    required("leases", JSONB, "Leases that workers hold, by id: amount, since, until."),
    optional("leased_until", Time, "End of the lease that ends first; null without leases."),
    required(
        "alerts",
        JSONB,
        "Parts of the limit that were reached, soft or hard: percent (50, 80, 100), used, and the last time.",
    ),
    optional("exhausted_at", Time, "When a reservation did not fit; null while they fit."),
    required("created_at", Time, "When it began to count."),
    required("updated_at", Time, "Time of the last change."),
)
quota_windows.looked_up("quota_id")
quota_windows.sorted_by("leased", "leased_until", within=())
quota_windows.derives("granted", lambda row: sum(lease["amount"] for lease in row["leases"].values()))
quota_windows.derives(
    "leased_until",
    lambda row: min((datetime.fromisoformat(lease["until"]) for lease in row["leases"].values()), default=None),
)


@quota_windows.makes(QuotaWindow.Opened, new=originator)
def opened(event: QuotaWindow.Opened, message: Recorded) -> Row:
    return {
        "id": event.originator_id,
        "quota_id": event.quota,
        "scope": event.scope,
        "subject": event.subject,
        "unit": event.unit,
        "period": event.period,
        "time_zone": event.time_zone,
        "rolling": event.rolling,
        "begins_at": datetime.fromisoformat(event.begins),
        "ends_at": datetime.fromisoformat(event.ends) if event.ends else None,
        "used": 0,
        "parts": {},
        "leases": {},
        "alerts": [],
    }


@quota_windows.changes(QuotaWindow.Granted)
def granted(row: Row, event: QuotaWindow.Granted, message: Recorded) -> Row:
    lease = {"amount": event.amount, "since": event.timestamp.isoformat(), "until": event.until}
    return {"most": event.limit, "exhausted_at": None, "leases": {**row["leases"], event.lease: lease}}


@quota_windows.changes(QuotaWindow.Renewed)
def renewed(row: Row, event: QuotaWindow.Renewed, message: Recorded) -> Row:
    lease = {**row["leases"][event.lease], "until": event.until}
    return {"leases": {**row["leases"], event.lease: lease}}


@quota_windows.changes(QuotaWindow.Settled)
def settled(row: Row, event: QuotaWindow.Settled, message: Recorded) -> Row:
    leases = {id: lease for id, lease in row["leases"].items() if id != event.lease}
    returned = row["leases"][event.lease]["amount"] > event.used
    return {
        "used": row["used"] + event.used,
        "parts": with_part(row["parts"], event) if event.free_at else {},
        "leases": leases,
        "exhausted_at": None if returned else row["exhausted_at"],
    }


@quota_windows.changes(QuotaWindow.Exhausted)
def exhausted(row: Row, event: QuotaWindow.Exhausted, message: Recorded) -> Row:
    return {"most": event.limit, "exhausted_at": event.timestamp}


@quota_windows.changes(QuotaWindow.Alerted)
def alerted(row: Row, event: QuotaWindow.Alerted, message: Recorded) -> Row:
    alert = {"percent": event.percent, "used": event.used, "at": event.timestamp.isoformat()}
    others = [each for each in row["alerts"] if each["percent"] != event.percent]
    return {"most": event.limit, "alerts": [*others, alert]}
