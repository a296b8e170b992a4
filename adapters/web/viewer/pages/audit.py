"""The audit: commands with their outcomes, and reports of doors, the newest first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from psycopg import sql
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from adapters.postgres.operation_logs import PAGE, TESTS
from adapters.web.viewer.backend import Backend, Row
from adapters.web.viewer.pages.traces import RANGES, moment
from adapters.web.viewer.render import as_json, render, tenant, wants_json
from domain.access.actor import BUS, OPERATOR, VIEWER
from domain.access.tenant import HOUSE

ROWS = 100
"""Number of rows per page."""

OUTCOMES = ("accepted", "rejected", "signed_in", "refused", "used")
DOORS = (BUS, OPERATOR, VIEWER)

NAMES = (*TESTS, "range", "from", "to")


@dataclass(frozen=True)
class Filters:
    """The filters of an address; `said` are the parameters as given, `wrong` the invalid ones."""

    said: dict[str, str]
    wrong: dict[str, str]
    where: str
    values: dict[str, Any]


def read(request: Request, now: datetime) -> Filters:
    """Parse the filters of an address; invalid ones are listed and have no effect."""
    query = request.query_params
    said = {name: text for name in NAMES if (text := query.get(name, "").replace("\0", "").strip())}
    tests, wrong = ["tenant_id = %(tenant)s"], dict[str, str]()
    values: dict[str, Any] = {"tenant": tenant(request), **said}
    for name, text in said.items():
        if name in TESTS:
            tests.append(TESTS[name])
        elif name == "range" and text in RANGES:
            tests.append("created_at >= %(since)s")
            values["since"] = now - RANGES[text]
        elif name != "range" and (at := moment(text)):
            tests.append(f"created_at {'>=' if name == 'from' else '<='} %({name})s")
            values[name] = at
        else:
            wrong[name] = f"one of {', '.join(RANGES)}" if name == "range" else "like 2026-01-31T03:00"
    if at := moment(query.get("before", "").partition("~")[0]):
        tests.append("(created_at, id) < (%(before)s, %(row)s)")
        values |= {"before": at, "row": query["before"].replace("\0", "").partition("~")[2]}
    return Filters(said, wrong, " AND ".join(tests), values)


async def found(backend: Backend, filters: Filters) -> tuple[list[Row], str | None]:
    """A page of rows, and the cursor of the older ones."""
    statement = sql.SQL(PAGE).format(where=sql.SQL(filters.where), limit=sql.Literal(ROWS + 1))
    rows = await backend.rows(statement, filters.values)
    more, rows = len(rows) > ROWS, rows[:ROWS]
    return rows, f"{rows[-1]['created_at'].astimezone(UTC).isoformat()}~{rows[-1]['id']}" if more else None


async def show(request: Request) -> Response:
    now = datetime.now(UTC)
    filters = read(request, now)
    rows, older = await found(request.app.state.backend, filters)
    if wants_json(request):
        return as_json({"operations": rows, "older": older, "wrong": filters.wrong})
    given = {
        "rows": rows,
        "older": older,
        "said": filters.said,
        "wrong": filters.wrong,
        "first": "before" not in filters.values,
        "outcomes": OUTCOMES,
        "doors": DOORS,
        "ranges": RANGES,
        "house": HOUSE,
    }
    return render(request, "audit.html", given)


routes = [Route("/audit", show)]
