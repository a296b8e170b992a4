"""The list of traces: filters in the address, a chart over time, and rows that stay current."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

from psycopg import sql
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from adapters.web.viewer.backend import STATEMENT_S, Backend, Row
from adapters.web.viewer.format import duration, plural
from adapters.web.viewer.names import apps_called
from adapters.web.viewer.render import as_json, link, render, tenant, wants_json
from projections.values.words import words

PAGE = 50
"""Number of rows per page."""

STATES = ("running", "held", "ok", "error", "unknown", "cancelled")
KINDS = ("message", "document", "replay", "run")
RANGES = {
    "15m": timedelta(minutes=15),
    "1h": timedelta(hours=1),
    "24h": timedelta(days=1),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
    "1y": timedelta(days=366),
}
LONGEST_QUERY = 1000
"""Maximum length of a search, in characters."""


@dataclass(frozen=True)
class Filters:
    """The filters of an address; `said` are the parameters as given, `wrong` the invalid ones."""

    said: dict[str, str]
    tests: list[sql.SQL]
    values: dict[str, Any]
    wrong: dict[str, str]
    since: datetime | None
    until: datetime | None
    app: str = ""
    """The name of the app, or what was given."""

    @property
    def where(self) -> sql.Composed:
        return sql.SQL(" AND ").join(self.tests)


EQUAL = {
    "state": "t.status = %(state)s",
    "kind": "t.kind = %(kind)s",
    "provider": "t.provider = %(provider)s",
    "model": "%(model)s = ANY(t.models)",
    "user": "t.end_user = %(user)s",
    "conversation": "t.conversation_id = %(conversation)s",
    "error": "(t.error_code = %(error)s OR t.fingerprint = %(error)s)",
}
NAMES = ("app", *EQUAL, "latency", "cost", "range", "from", "to", "q")


def read(request: Request, now: datetime) -> Filters:
    """Parse the filters of an address; invalid ones are listed and have no effect."""
    query = request.query_params
    said = {name: query[name].replace("\0", "").strip() for name in NAMES if query.get(name, "").strip("\0 \t\r\n")}
    tests, wrong = [sql.SQL("t.tenant_id = %(tenant)s")], dict[str, str]()
    values: dict[str, Any] = {"tenant": tenant(request)}
    since: datetime | None = None
    until: datetime | None = None
    for name, text in said.items():
        match name:
            case "app":
                pass  # see `filtered`
            case "latency":
                if (least := milliseconds(text)) is None:
                    wrong[name] = "like 500ms, 2s or 1m"
                else:
                    tests.append(sql.SQL("t.duration_ms >= %(latency)s"))
                    values[name] = least
            case "cost":
                try:
                    values[name] = float(text.removeprefix("$"))
                    tests.append(sql.SQL("t.cost >= %(cost)s"))
                except ValueError:
                    wrong[name] = "like 0.01"
            case "range":
                if text in RANGES:
                    since = now - RANGES[text]
                else:
                    wrong[name] = f"one of {', '.join(RANGES)}"
            case "from" | "to":
                if (at := moment(text)) is None:
                    wrong[name] = "like 2026-01-31T03:00"
                elif name == "from":
                    since = at
                else:
                    until = at
            case "q":
                if id := _id(text):
                    tests.append(
                        sql.SQL("%(id)s IN (t.id, t.message_id, t.conversation_id, t.document_id, t.replay_id)")
                    )
                    values["id"] = id
                elif found := list(words(text[:LONGEST_QUERY])):
                    tests.append(sql.SQL("t.words @> %(words)s"))
                    values["words"] = found
                else:
                    wrong[name] = "has only words that are everywhere"
            case _:
                tests.append(sql.SQL(EQUAL[name]))
                values[name] = text
    if since:
        tests.append(sql.SQL("t.started_at >= %(since)s"))
        values["since"] = since
    if until:
        tests.append(sql.SQL("t.started_at <= %(until)s"))
        values["until"] = until
    return Filters(said, tests, values, wrong, since, until)


async def filtered(request: Request, now: datetime) -> Filters:
    """As `read`, with the apps that have the name in the address."""
    filters = read(request, now)
    if "app" not in filters.said:
        return filters
    found = await apps_called(request.app.state.backend, tenant(request), filters.said["app"])
    if found.wrong:
        return replace(filters, app=found.text, wrong={**filters.wrong, "app": found.wrong})
    test = sql.SQL("t.app_id = %(app)s" if len(found.ids) == 1 else "t.app_id = ANY(%(app)s)")
    values = {**filters.values, "app": found.ids[0] if len(found.ids) == 1 else found.ids}
    return replace(filters, tests=[*filters.tests, test], values=values, app=found.text)


def milliseconds(text: str) -> float | None:
    """Parse a duration such as `500`, `500ms`, `2s`, `1.5 m`, in milliseconds."""
    at = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)\s*(ms|s|m|)", text.lower())
    return float(at[1]) * {"ms": 1, "": 1, "s": 1000, "m": 60000}[at[2]] if at else None


def moment(text: str) -> datetime | None:
    """An ISO date or time; without a zone it is UTC."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _id(text: str) -> str | None:
    try:
        return str(UUID(text)) if len(text) == 36 else None
    except ValueError:
        return None


# --- rows -----------------------------------------------------------------------------------------------------

_ROWS = """
WITH page AS (
    SELECT t.* FROM headrace.traces t WHERE {where} AND {keyset}
    ORDER BY t.started_at {order}, t.id {order} LIMIT {limit}
)
SELECT page.id, page.kind, page.name, page.status, page.started_at, page.ended_at, page.duration_ms,
    page.first_token_ms, page.app_id, page.conversation_id, page.message_id, page.document_id, page.replay_id,
    page.end_user, page.question, page.answer, page.spans, page.model_calls, page.open_calls, page.unknown_calls,
    page.errors, page.provider, page.model, page.prompt_tokens, page.completion_tokens, page.cost, page.unpriced_calls,
    page.error_code, page.error, page.fingerprint, apps.name AS app, documents.name AS document
FROM page
LEFT JOIN headrace.apps ON (apps.tenant_id, apps.id) = (page.tenant_id, page.app_id)
LEFT JOIN headrace.documents ON (documents.tenant_id, documents.id) = (page.tenant_id, page.document_id)
ORDER BY page.started_at DESC, page.id DESC
"""


@dataclass(frozen=True)
class Page:
    rows: list[Row]
    newer: str | None
    older: str | None


def cursor(row: Row) -> str:
    return f"{row['started_at'].astimezone(UTC).isoformat()}~{row['id']}"


async def page(backend: Backend, filters: Filters, before: str = "", after: str = "") -> Page:
    """The rows older than the cursor `before`, or newer than `after`, or the newest."""
    at = moment((before or after).partition("~")[0])
    backwards = bool(after and at)
    keyset = (
        sql.SQL("true")
        if at is None
        else sql.SQL("(t.started_at, t.id) {} (%(at)s, %(row)s)").format(sql.SQL(">" if backwards else "<"))
    )
    statement = sql.SQL(_ROWS).format(
        where=filters.where,
        keyset=keyset,
        order=sql.SQL("ASC" if backwards else "DESC"),
        limit=sql.Literal(PAGE + 1),
    )
    values = {**filters.values, "at": at, "row": (before or after).partition("~")[2]}
    rows = await backend.rows(statement, values)
    more = len(rows) > PAGE
    if backwards:
        rows = rows[1:] if more else rows
        return Page(rows, cursor(rows[0]) if more and rows else None, cursor(rows[-1]) if rows else None)
    rows = rows[:PAGE]
    newer = cursor(rows[0]) if at is not None and rows else None
    return Page(rows, newer, cursor(rows[-1]) if more else None)


# --- the strip ------------------------------------------------------------------------------------------------

BARS = 60
"""Maximum number of bars of a chart."""

MINUTE, HOUR, DAY, WEEK = 60, 3600, 86400, 604800
STEPS = (
    *(1, 2, 5, 10, 15, 30),
    *(count * MINUTE for count in (1, 2, 5, 10, 15, 30)),
    *(count * HOUR for count in (1, 2, 3, 6, 12)),
    *(DAY, 2 * DAY, WEEK),
)
"""Lengths of time that a bar may stand for, in seconds."""

_EXTENT = """
SELECT min(t.started_at) AS oldest, max(t.started_at) AS newest FROM headrace.traces t
WHERE {where} AND t.started_at >= %(first)s AND t.started_at <= %(last)s
"""

_STRIP = """
WITH found AS (
    SELECT width_bucket(extract(epoch FROM t.started_at)::float8, %(low)s, %(high)s, %(count)s) - 1 AS bucket,
        t.status, t.duration_ms, t.cost, t.unpriced_calls
    FROM headrace.traces t WHERE {where} AND t.started_at >= %(first)s AND t.started_at < %(last)s
)
SELECT bucket, count(*) AS traces, count(*) FILTER (WHERE status = 'error') AS errors,
    count(*) FILTER (WHERE status = 'unknown') AS unknown, count(*) FILTER (WHERE status = 'running') AS running,
    percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY duration_ms) AS latency, sum(cost) AS cost,
    sum(unpriced_calls)::bigint AS unpriced
FROM found GROUP BY GROUPING SETS ((), (bucket))
"""


@dataclass(frozen=True)
class Strip:
    """Results of the traces in a period, in parts of `step` seconds."""

    first: datetime
    step: int
    total: Row
    parts: list[Row]

    @property
    def last(self) -> datetime:
        return self.first + timedelta(seconds=self.step * len(self.parts))

    @property
    def each(self) -> str:
        """Length of a part in words."""
        size, unit = next(pair for pair in _UNITS if self.step % pair[0] == 0)
        return plural(self.step // size, unit)

    @property
    def style(self) -> str:
        """Style of the times below a chart."""
        return "second" if self.step < 30 else "minute" if self.last - self.first < timedelta(days=2) else "day"

    def high(self, name: str) -> float:
        """The highest value of a part; 0 where there is none."""
        return max((float(part[name] or 0) for part in self.parts), default=0.0)

    def series(self, *names: str) -> list[list[float | None]]:
        """Data of a chart: seconds since the epoch, then the values of each name."""
        begin = self.first.timestamp()
        times: list[float | None] = [begin + self.step * number for number in range(len(self.parts))]
        return [times, *([part[name] for part in self.parts] for name in names)]

    def bars(self, name: str, of: str | None = None) -> list[tuple[float, float, float]]:
        """Place, top and height of each part's bar, in a box of height 20; `of` names the series of full height."""
        high = self.high(of or name)
        heights = [20 * float(part[name] or 0) / high if high else 0 for part in self.parts]
        shown = [(place, max(0.6, height)) for place, height in enumerate(heights) if height]
        return [(place + 0.1, round(20 - height, 2), round(height, 2)) for place, height in shown]


_UNITS = ((WEEK, "week"), (DAY, "day"), (HOUR, "hour"), (MINUTE, "minute"), (1, "second"))
_EMPTY = {"traces": 0, "errors": 0, "unknown": 0, "running": 0, "p50": None, "p95": None, "cost": None, "unpriced": 0}


async def strip(backend: Backend, filters: Filters, newest: datetime | None, now: datetime) -> Strip:
    """The results of the requested period, else of the traces of a day, a week, … before the newest of them."""
    first, last = await _extent(backend, filters, newest, now)
    step = next((step for step in STEPS if step * (BARS - 1) >= (last - first).total_seconds()), STEPS[-1])
    low = int(first.timestamp()) // step * step
    count = int(last.timestamp() - low) // step + 1
    first, last = (datetime.fromtimestamp(at, UTC) for at in (low, low + step * count))
    values = {"low": low, "high": low + step * count, "count": count, "first": first, "last": last}
    statement = sql.SQL(_STRIP).format(where=filters.where)
    parts, total = [dict(_EMPTY) for _ in range(count)], dict(_EMPTY)
    for row in await backend.rows(statement, filters.values | values):
        bucket, latency = row.pop("bucket"), row.pop("latency") or [None, None]
        row["p50"], row["p95"] = latency
        if bucket is None:
            total = {name: row[name] if row[name] is not None else _EMPTY[name] for name in _EMPTY}
        elif 0 <= bucket < count:
            parts[bucket] = row
    return Strip(first, step, total, parts)


async def _extent(
    backend: Backend, filters: Filters, newest: datetime | None, now: datetime
) -> tuple[datetime, datetime]:
    """The requested period. Without one, from the first trace of a day, a week, … up to now, or up to the last trace if
    that is long ago."""
    last = filters.until or now
    if filters.since:
        return min(filters.since, last - timedelta(minutes=1)), last
    lengths = (RANGES[name] for name in ("24h", "7d", "30d"))
    first = last - next((each for each in lengths if newest is None or newest > last - each), RANGES["1y"])
    statement = sql.SQL(_EXTENT).format(where=filters.where)
    found = await backend.row(statement, filters.values | {"first": first, "last": last})
    if found is None or found["oldest"] is None:
        return first, last
    first, newest = found["oldest"], found["newest"]
    return first, max(newest, first + timedelta(minutes=1)) if last - newest > newest - first else last


class Counting:
    """Strips of the traces, cached and counted once for concurrent requests."""

    def __init__(self) -> None:
        self._known: dict[object, tuple[float, Strip]] = {}
        self._tasks: dict[object, asyncio.Task[Strip]] = {}

    async def __call__(
        self, backend: Backend, filters: Filters, newest: datetime | None, patience_s: float | None
    ) -> Strip | None:
        """The strip, if counted within `patience_s`, else an older one or None; without a limit always a new one."""
        key = (filters.values["tenant"], *sorted(filters.said.items()))
        until, known = self._known.get(key, (0.0, None))
        if monotonic() < until and patience_s is not None:
            return known
        if key not in self._tasks:
            self._tasks[key] = asyncio.create_task(self._count(key, backend, filters, newest))
        try:
            async with asyncio.timeout(patience_s):
                return await asyncio.shield(self._tasks[key])
        except TimeoutError:
            return known

    async def _count(self, key: object, backend: Backend, filters: Filters, newest: datetime | None) -> Strip:
        began = monotonic()
        try:
            counted = await strip(backend, filters, newest, datetime.now(UTC))
        finally:
            del self._tasks[key]
        if len(self._known) > 200:
            self._known.clear()
        # Slow counts are repeated less often.
        self._known[key] = (monotonic() + max(2.0, 20 * (monotonic() - began)), counted)
        return counted


_countings: WeakKeyDictionary[Backend, Counting] = WeakKeyDictionary()

PATIENCE_S = 0.02
"""Maximum wait of a list for its strip, in seconds; after that the page loads it separately."""


# --- the page -------------------------------------------------------------------------------------------------

_VERSION = "SELECT sum(sequence)::bigint AS version FROM headrace_projection.checkpoints"


async def show(request: Request) -> Response:
    backend: Backend = request.app.state.backend
    now = datetime.now(UTC)
    filters = await filtered(request, now)
    counting = _countings.setdefault(backend, Counting())
    query = request.query_params
    if request.query_params.get("part") == "strip":
        whole = await page(backend, filters)
        newest = whole.rows[0]["started_at"] if whole.rows else None
        counted = await counting(backend, filters, newest, STATEMENT_S)
        return render(request, "traces_strip.html", _given(filters) | {"strip": counted})
    before, after = query.get("before", "").replace("\0", ""), query.get("after", "").replace("\0", "")
    version = str((await backend.row(_VERSION) or {"version": 0})["version"])
    if query.get("part") == "rows" and query.get("version") == version:
        return Response(status_code=204)
    found = await page(backend, filters, before, after)
    if after and len(found.rows) < PAGE and found.newer is None and not wants_json(request):
        return RedirectResponse(link(request, "/traces", filters.said), 303)  # the newest of the period, from its start
    given = _given(filters) | {
        "page": found,
        "version": version,
        "live": not before and not after,
        "slowest": max((row["duration_ms"] or 0 for row in found.rows), default=0),
        "now": now,
    }
    if query.get("part") == "rows":
        return render(request, "traces_rows.html", given)
    newest = found.rows[0]["started_at"] if found.rows else None
    waits = wants_json(request) or "strip" in query
    overview = await counting(backend, filters, newest, None if waits else PATIENCE_S)
    if wants_json(request):
        assert overview is not None
        times = {"since": overview.first, "until": overview.last, "total": overview.total, "parts": overview.parts}
        pages = {"older": found.older, "newer": found.newer}
        return as_json({"traces": found.rows, **pages, "wrong": filters.wrong, "strip": times})
    given |= {"strip": overview}
    return render(request, "traces.html", given)


def _given(filters: Filters) -> dict[str, Any]:
    return {
        "said": filters.said,
        "wrong": filters.wrong,
        "app": filters.app,
        "more": bool((filters.wrong.keys() | filters.said.keys()) - {"q", "range", "state", "app"}),
        "states": STATES,
        "kinds": KINDS,
        "ranges": RANGES,
        "written": duration,
    }


routes = [Route("/traces", show)]
