"""Errors: failures, grouped by fingerprint; rejected commands; dead letters."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from adapters.web.viewer.backend import Backend, Row
from adapters.web.viewer.bars import spark
from adapters.web.viewer.pages.traces import RANGES
from adapters.web.viewer.render import as_json, render, tenant, wants_json

PERIODS = {name: length for name, length in RANGES.items() if name != "15m"}
USUAL = "7d"

GROUPS = 100
"""Maximum number of shown groups, the most recent first."""

BUCKETS = 30

_FAILURES = """
WITH failures AS (
    SELECT fingerprint, id AS trace_id, kind, started_at AS at, app_id, model, error_code, error, false AS recovered,
        true AS whole
    FROM headrace.traces
    WHERE tenant_id = %(tenant)s AND fingerprint IS NOT NULL AND status IN ('error', 'unknown')
        AND started_at >= %(since)s
    UNION ALL
    SELECT s.fingerprint, s.trace_id, s.kind, s.started_at, t.app_id, s.model, s.error_code, s.error, t.status = 'ok',
        false
    FROM headrace.spans s JOIN headrace.traces t ON (t.tenant_id, t.id) = (s.tenant_id, s.trace_id)
    WHERE s.tenant_id = %(tenant)s AND s.fingerprint IS NOT NULL AND s.status IN ('error', 'unknown')
        AND s.started_at >= %(since)s AND t.status NOT IN ('error', 'unknown')
)
"""
"""Every failed trace counts once; a failed call in a trace that has not failed counts by itself."""

_GROUPS = f"""
{_FAILURES}
SELECT fingerprint, count(*) AS count, count(DISTINCT trace_id) AS traces,
    count(*) FILTER (WHERE recovered) AS recovered, count(*) FILTER (WHERE whole) AS failed,
    min(at) AS first_seen, max(at) AS last_seen, (array_agg(trace_id ORDER BY at DESC))[1] AS trace_id,
    (array_agg(error_code ORDER BY at DESC))[1] AS error_code, (array_agg(error ORDER BY at DESC))[1] AS error,
    array_agg(DISTINCT kind) AS kinds, array_remove(array_agg(DISTINCT model), NULL) AS models,
    ARRAY(SELECT name FROM headrace.apps WHERE tenant_id = %(tenant)s AND id = ANY(array_agg(app_id))
          ORDER BY 1 LIMIT {GROUPS}) AS apps
FROM failures GROUP BY fingerprint ORDER BY last_seen DESC LIMIT {GROUPS}
"""

_TIMES = f"""
{_FAILURES}
SELECT fingerprint, count(*) AS count,
    width_bucket(extract(epoch FROM at)::float8, %(low)s, %(high)s, {BUCKETS}) AS bucket
FROM failures GROUP BY 1, 3
"""

_TOTAL = """
SELECT count(*) AS traces, count(*) FILTER (WHERE status = 'error') AS failed,
    count(*) FILTER (WHERE status = 'unknown') AS unknown
FROM headrace.traces WHERE tenant_id = %(tenant)s AND started_at >= %(since)s
"""

_REJECTED = f"""
SELECT name, code, field, count(*) AS count, min(created_at) AS first_seen, max(created_at) AS last_seen,
    (array_agg(id ORDER BY created_at DESC))[1] AS id, (array_agg(message ORDER BY created_at DESC))[1] AS message,
    (array_agg(excerpt ORDER BY created_at DESC))[1] AS excerpt, array_agg(DISTINCT actor) AS actors
FROM headrace.commands WHERE tenant_id = %(tenant)s AND status = 'rejected' AND created_at >= %(since)s
GROUP BY 1, 2, 3 ORDER BY last_seen DESC LIMIT {GROUPS}
"""

_LETTERS = f"""
SELECT id, status, consumer, stream, sequence, subject, reason, place, failures, deaths, retries, decided_by,
    correlation_id, created_at, updated_at,
    EXISTS (SELECT FROM headrace.traces t WHERE (t.tenant_id, t.id) = (l.tenant_id, l.correlation_id)) AS traced
FROM headrace.dead_letters l
WHERE tenant_id = %(tenant)s AND (status IN ('buried', 'returned') OR updated_at >= %(since)s)
ORDER BY status NOT IN ('buried', 'returned'), updated_at DESC LIMIT {GROUPS}
"""


@dataclass(frozen=True)
class Errors:
    """Errors since a time; every group has its `counts` from the first failure on, in `BUCKETS` equal parts."""

    period: str
    since: datetime
    first: datetime
    total: Row
    groups: list[Row]
    rejected: list[Row]
    letters: list[Row]


async def errors(backend: Backend, of: str, period: str, now: datetime) -> Errors:
    since = now - PERIODS[period]
    values = {"tenant": of, "since": since}
    total, groups, rejected, letters = await asyncio.gather(
        backend.row(_TOTAL, values),
        backend.rows(_GROUPS, values),
        backend.rows(_REJECTED, values),
        backend.rows(_LETTERS, values),
    )
    first = min((group["first_seen"] for group in groups), default=since)
    times = await backend.rows(_TIMES, values | {"low": first.timestamp(), "high": now.timestamp()})
    counts: dict[str, list[int]] = defaultdict(lambda: [0] * BUCKETS)
    for row in times:
        counts[row["fingerprint"]][min(max(row["bucket"], 1), BUCKETS) - 1] += row["count"]
    for group in groups:
        group["counts"] = counts[group["fingerprint"]]
    return Errors(period, since, first, total or {}, groups, rejected, letters)


async def show(request: Request) -> Response:
    period = request.query_params.get("period", USUAL)
    period = period if period in PERIODS else USUAL
    now = datetime.now(UTC)
    found = await errors(request.app.state.backend, tenant(request), period, now)
    if wants_json(request):
        return as_json(vars(found))
    given: dict[str, Any] = {
        **vars(found),
        "periods": PERIODS,
        "now": now,
        "spark": spark,
        "most": GROUPS,
        "day": RANGES["24h"],
    }
    return render(request, "errors.html", given)


routes = [Route("/errors", show)]
