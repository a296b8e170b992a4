"""Costs of models over time, by several groupings; and quotas, which are set and removed by commands."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from adapters.jetstream.client import rejection
from adapters.postgres.quotas import ALERTS, CURRENT, spending
from adapters.web.viewer.backend import Backend, Row
from adapters.web.viewer.bars import stacked
from adapters.web.viewer.changes import fields, seen, text
from adapters.web.viewer.format import dollars
from adapters.web.viewer.quota import TREND, Standing, month_begin, standing
from adapters.web.viewer.render import as_json, link, render, tenant, wants_json
from adapters.web.viewer.sender import client
from adapters.web.viewer.sheet import line
from adapters.web.viewer.visitor import visitor
from domain.models.quota import UTC_ZONE, every
from domain.models.quota import span as window_span

BY: Mapping[str, tuple[str, str]] = {
    "model": ("c.provider || '/' || c.model", "model"),
    "app": ("t.app_id", "app"),
    "user": ("nullif(t.end_user, '')", "user"),
    "kind": ("c.cause_noun", "kind"),
    "tenant": ("c.tenant_id", "tenant"),
}
"""Groupings of costs: the expression on a call, and the corresponding filter of the list of traces."""

PERIODS = ("month", "last-month", "7d", "30d", "90d", "1y")
SERIES = 6
"""Number of colours of bars; the last is for all other groups."""

FEW, GROUPS = 10, 200
"""Groups, and models without a price, that are shown: at first, and on request. `GROUPS` limits quotas, too."""

LEAST_DAYS = 7
"""Minimum length of the chart, in days."""

_CALLS = """
FROM headrace.model_calls c LEFT JOIN headrace.traces t ON (t.tenant_id, t.id) = (c.tenant_id, c.correlation_id)
WHERE {tenant} AND c.created_at >= %(since)s AND c.created_at < %(until)s
"""

_GROUPS = """
SELECT {by} AS name, count(*) AS calls, sum(c.cost) AS cost,
    count(*) FILTER (WHERE c.cost IS NULL AND c.prompt_tokens IS NOT NULL) AS unpriced,
    sum(c.prompt_tokens)::bigint AS prompt_tokens, sum(c.completion_tokens)::bigint AS completion_tokens,
    sum(c.cached_tokens)::bigint AS cached_tokens, count(DISTINCT c.correlation_id) AS traces
{calls} GROUP BY 1 ORDER BY cost DESC NULLS LAST, calls DESC, 1
"""

_DAYS = """
SELECT {by} AS name, (c.created_at AT TIME ZONE 'UTC')::date AS day, sum(c.cost) AS cost, count(*) AS calls
{calls} GROUP BY 1, 2
"""

_UNPRICED = """
SELECT c.provider, c.model, count(*) AS calls, sum(c.prompt_tokens)::bigint AS prompt_tokens,
    sum(c.completion_tokens)::bigint AS completion_tokens
{calls} AND c.cost IS NULL AND c.prompt_tokens IS NOT NULL GROUP BY 1, 2 ORDER BY calls DESC
"""

_QUOTAS = """
SELECT q.id, q.set_by, q.name, q.scope, q.subject, q.unit, q.period, q.time_zone, q.rolling, q.most, q.hard,
    coalesce((
        SELECT jsonb_agg(DISTINCT alerted.percent)
        FROM headrace.quota_windows w, LATERAL (SELECT alert -> 'percent' AS percent {alerts}) alerted
        WHERE w.tenant_id = q.tenant_id AND w.quota_id = q.id AND {current}
    ), '[]') AS alerts
FROM headrace.quotas q WHERE q.tenant_id = %(tenant)s ORDER BY q.name, q.set_by LIMIT {limit}
"""

_MOST = "SELECT * FROM ({spending}) AS spent ORDER BY used DESC, subject LIMIT 1"

_USERS = """
SELECT person_id, min(session_id) AS name FROM headrace.end_users
WHERE tenant_id = %(tenant)s AND person_id = ANY(%(ids)s) GROUP BY 1
"""

_NAMES = "SELECT id, name FROM headrace.apps WHERE tenant_id = %(tenant)s AND id = ANY(%(ids)s)"


@dataclass(frozen=True)
class Costs:
    """Costs of the calls in a period, grouped `by` something; `days` have the costs by position in `groups`."""

    by: str
    period: str
    since: datetime
    until: datetime
    groups: list[Row]
    total: Row
    unpriced: list[Row]
    days: list[tuple[date, dict[int, float]]]


def span(period: str, now: datetime) -> tuple[datetime, datetime]:
    """Start and end of a period."""
    month = month_begin(now)
    if period == "month":
        return month, now
    if period == "last-month":
        return month_begin(month - timedelta(days=1)), month
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight - timedelta(days={"7d": 6, "30d": 29, "90d": 89, "1y": 365}[period]), now


async def costs(backend: Backend, of: str, by: str, period: str, now: datetime) -> Costs:
    since, until = span(period, now)
    every = by == "tenant"
    calls = _CALLS.format(tenant="true" if every else "c.tenant_id = %(tenant)s")
    values = {"tenant": of, "since": since, "until": until}
    statements = [statement.format(by=BY[by][0], calls=calls) for statement in (_GROUPS, _DAYS, _UNPRICED)]
    groups, days, unpriced = await asyncio.gather(*(backend.rows(statement, values) for statement in statements))
    total = {
        "calls": sum(group["calls"] for group in groups),
        "cost": sum(group["cost"] or 0.0 for group in groups) if any(g["cost"] is not None for g in groups) else None,
        **{
            name: sum(group[name] or 0 for group in groups)
            for name in ("unpriced", "prompt_tokens", "completion_tokens", "cached_tokens")
        },
    }
    places = {group["name"]: min(place, SERIES - 1) for place, group in enumerate(groups)}
    by_day: dict[date, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for row in days:
        by_day[row["day"]][places[row["name"]]] += row["cost"] or 0.0
    first = since.date()
    count = (until - timedelta(microseconds=1)).date() - first
    every_day = [first + timedelta(days=number) for number in range(count.days + 1)]
    return Costs(by, period, since, until, groups, total, unpriced, [(day, dict(by_day[day])) for day in every_day])


async def quotas(backend: Backend, of: str, now: datetime) -> list[tuple[Row, Standing]]:
    """Every quota of the tenant, with the amount spent in the window of now."""

    async def spent(quota: Row) -> tuple[Row, Standing]:
        named = quota["scope"] == "tenant" or bool(quota["subject"])
        statement = _MOST.format(spending=spending(quota["scope"], quota["unit"], named=named))
        begins, ends = window_span(quota["period"], now, quota["time_zone"], quota["rolling"])
        values = {"tenant": of, "subject": quota["subject"], "begins": begins}
        row = await backend.row(statement, values) or {"used": 0, "unpriced": 0, "subject": ""}
        lately: Row | None = None
        if quota["period"] == "month":
            whose = {"subject": row["subject"]} if named else {}
            lately = await backend.row(statement, {**values, **whose, "begins": now - TREND})
        unpriced = row["unpriced"] if quota["unit"] == "money" else 0
        recent = float(lately["used"]) if lately and lately["subject"] == row["subject"] else 0.0
        return quota, standing(quota["most"], float(row["used"]), recent, now, ends, unpriced, row["subject"])

    statement = _QUOTAS.format(limit=GROUPS, alerts=ALERTS, current=CURRENT)
    return await asyncio.gather(*map(spent, await backend.rows(statement, {"tenant": of})))


async def show(request: Request, wrong: str = "", said: Mapping[str, str] | None = None) -> Response:
    backend: Backend = request.app.state.backend
    query, of, now = request.query_params, tenant(request), datetime.now(UTC)
    ways = {name: way for name, way in BY.items() if name != "tenant" or visitor(request).is_operator}
    by = query.get("by", "model") if query.get("by") in ways else "model"
    period = query.get("period", "month") if query.get("period") in PERIODS else "month"
    found, set_up = await asyncio.gather(costs(backend, of, by, period, now), quotas(backend, of, now))
    ids = [stand.subject for quota, stand in set_up if quota["scope"] == "app"]
    ids += [group["name"] for group in found.groups] if by == "app" else []
    apps = {row["id"]: row["name"] for row in await backend.rows(_NAMES, {"tenant": of, "ids": ids})}
    persons = [stand.subject for quota, stand in set_up if quota["scope"] == "user"]
    users = {row["person_id"]: row["name"] for row in await backend.rows(_USERS, {"tenant": of, "ids": persons})}
    if by == "app":
        for group in found.groups:
            group["label"] = apps.get(group["name"], group["name"])
    if (form := query.get("format", "")) in ("csv", "jsonl"):
        return table(found, form, raw=query.get("raw") == "1")
    if wants_json(request):
        standings = [{**row, **_written(stand)} for row, stand in set_up]
        return as_json({**vars(found), "quotas": standings, "error": wrong or None}, 400 if wrong else 200)
    used = next((place for place, (_, values) in enumerate(found.days) if any(values.values())), 0)
    days = found.days[min(used, max(0, len(found.days) - LEAST_DAYS)) :]
    given: dict[str, Any] = {
        **vars(found),
        "periods": PERIODS,
        "ways": ways,
        "filter": BY[by][1],
        "shown": found.groups[: GROUPS if query.get("all") else FEW],
        "unpriced_shown": found.unpriced[: GROUPS if query.get("all") else FEW],
        "all": bool(query.get("all")),
        "series": SERIES,
        "most_groups": GROUPS,
        "days": days,
        "chart": stacked([(_title(day, values), values) for day, values in days]),
        "most": max((sum(values.values()) for _, values in found.days), default=0.0),
        "quotas": set_up,
        "every": every,
        "named": {**apps, **users},
        "wrong": wrong,
        "said": said or {},
        "now": now,
    }
    return render(request, "costs.html", given, 400 if wrong else 200)


def _title(day: date, values: Mapping[int, float]) -> str:
    return f"{day:%A} {day.day} {day:%B}: {dollars(sum(values.values()))}"


def _written(stand: Standing) -> Row:
    return {
        "spent": stand.spent,
        "spent_by": stand.subject,
        "forecast": stand.forecast,
        "share": stand.share,
        "state": stand.state,
        "unpriced_calls": stand.unpriced,
        "over_at": stand.over_at,
    }


COLUMNS = (
    "name",
    "label",
    "calls",
    "traces",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "cost",
    "unpriced",
)


def table(found: Costs, form: str, *, raw: bool) -> Response:
    """The groups as a file: CSV or JSON lines."""
    rows = [{name: group.get(name) for name in COLUMNS} for group in found.groups]
    if form == "jsonl":
        body, media = b"".join(orjson.dumps(row) + b"\n" for row in rows), "application/jsonl"
    else:
        lines = [COLUMNS, *(row.values() for row in rows)]
        body, media = b"".join(line(cells, raw=raw) for cells in lines), "text/csv; charset=utf-8"
    name = f"costs-by-{found.by}-{found.since:%Y-%m-%d}.{form}"
    return Response(body, media_type=media, headers={"Content-Disposition": f'attachment; filename="{name}"'})


FIELDS = ("name", "scope", "subject", "unit", "period", "time_zone", "rolling", "limit", "hard")


async def set_quota(request: Request) -> Response:
    form = await fields(request)
    said = {name: text(form, name) for name in FIELDS}
    try:
        limit = float(said["limit"].removeprefix("$").replace(",", ""))
    except ValueError:
        return await show(request, "limit: must be a number.", said)
    if not (said["rolling"] or "0").isdecimal():
        return await show(request, "rolling: must be a whole number.", said)
    subject = "" if said["scope"] == "tenant" else said["subject"]
    payload: Row = {**said, "subject": subject, "limit": limit, "hard": said["hard"] == "hard"}
    payload |= {"time_zone": said["time_zone"] or UTC_ZONE, "rolling": int(said["rolling"] or 0)}
    return await _changed(request, "quota.set", payload, said)


async def remove_quota(request: Request) -> Response:
    return await _changed(request, "quota.remove", {"quota": request.path_params["name"]}, {})


async def _changed(request: Request, command: str, payload: Row, said: Mapping[str, str]) -> Response:
    backend: Backend = request.app.state.backend
    outcome = await (await client(request)).send(command, payload)
    if outcome["status"] == "rejected":
        return await show(request, rejection(outcome), said)
    await seen(backend, [outcome])
    return RedirectResponse(link(request, "/costs") + "#quotas", 303)


routes = [
    Route("/costs", show),
    Route("/costs/quotas", set_quota, methods=["POST"]),
    Route("/costs/quotas/{name}/remove", remove_quota, methods=["POST"]),
]
