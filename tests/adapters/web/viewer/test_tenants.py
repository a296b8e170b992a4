"""Pages of one tenant use no row of another: under the policies of doors they are the same, byte for byte.

Our own readers see all rows, so that PostgreSQL uses the indexes of words: their statements name the tenant. Another
tenant has the same ids here.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from difflib import unified_diff
from itertools import pairwise
from random import Random
from typing import Any, cast
from uuid import uuid4

import httpx2
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL
from sqlalchemy import DateTime, Text
from starlette.routing import Route

from adapters.postgres import tables
from adapters.postgres.policies import GATEWAY, READER
from adapters.web.viewer.access import Access
from adapters.web.viewer.backend import Backend
from adapters.web.viewer.names import _LISTS
from adapters.web.viewer.pages import plugins, proof
from adapters.web.viewer.server import PAGES, create_app
from projections.catalog import READ_MODELS
from projections.values.words import words
from tests.adapters.test_policies import Connection, fill
from tests.adapters.test_postgres import caught_up, following, query
from tests.adapters.web.viewer.site import TOKEN
from tests.projections.wandering import wander

OURS, THEIRS = "two", "one"
"""The tenants of the history. The other one comes first in indexes."""

LEFT_OUT = {
    "/log/{sequence:int}": "reads the log, and checks the tenant in the subject",
    "/sql": "runs the statement of an operator",
    "/account": "shows the account of the visitor, which is in the house",
    "/members": "shows accounts, which are in the house, by the members of the tenant",
    "/invitation": "shows an invitation by its secret, without a tenant's rows",
}
"""Pages that are not compared, and the reason."""


TRIES = 3
"""Times that two pages are compared: the time may have moved a bar of a chart meanwhile."""


class Nowhere:
    """A bus and a store on which there is nothing."""

    def __getattr__(self, _: str) -> Callable[..., Any]:
        return lambda *_, **__: self

    async def load(self, *_: Any, **__: Any) -> list[Any]:
        return []


@asynccontextmanager
async def site(url: str) -> AsyncIterator[httpx2.AsyncClient]:
    """The pages of our tenant, read with this login."""
    backend = Backend(cast(Any, Nowhere()), url, OURS)
    backend.store = cast(Any, Nowhere())
    backend.commits = Nowhere().load  # type: ignore[method-assign]
    backend.shared = Nowhere().load  # type: ignore[method-assign, assignment]
    transport = httpx2.ASGITransport(
        create_app(backend, Access.of("127.0.0.1", TOKEN, "", b"key")), raise_app_exceptions=False
    )
    headers = {"Authorization": f"Bearer {TOKEN}", "Accept": "text/html"}
    async with backend, httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as client:
        yield client


@pytest.fixture(scope="module")
async def urls(module_database_url: str) -> AsyncIterator[tuple[str, str]]:
    """Logins that see all rows, and those of our tenant alone."""
    url, history = module_database_url, wander(Random(3), 1500, few=4)
    async with following(url, history):
        await caught_up(url, history)
    logins = [f"t_{uuid4().hex[:16]}" for _ in range(2)]
    async with tables.connect(url) as owner:
        await fill(owner)
        await make_recent(owner)
        await owner.execute("UPDATE headrace.quotas SET scope = 'tenant', subject = '', most = 10")
        await owner.execute("UPDATE headrace.commands SET status = 'rejected', code = 'invalid'")
        await tell_apart(owner)
        await put_first(owner)
        for login, group in zip(logins, (READER, GATEWAY), strict=True):
            for statement in (
                f"CREATE ROLE {login} LOGIN PASSWORD 'x' IN ROLE {group}",
                f"GRANT USAGE ON SCHEMA headrace_projection TO {login}",
                f"GRANT SELECT ON ALL TABLES IN SCHEMA headrace_projection TO {login}",
                f"ALTER ROLE {login} SET headrace.tenant = '{OURS}'",
            ):
                await owner.execute(statement.encode())
        yield cast(Any, tuple(make_conninfo(url, user=login, password="x") for login in logins))
        for login in logins:
            await owner.execute(f"DROP OWNED BY {login}; DROP ROLE {login}".encode())


async def make_recent(owner: Connection) -> None:
    """Move all times, so that the last ones are some hours ago: pages show the last days."""
    [moved] = await query(owner, "SELECT now() - interval '3 hours' - max(started_at) FROM headrace.traces")
    for model in READ_MODELS:
        columns = [sql.Identifier(column.name) for column in model.table.columns if isinstance(column.type, DateTime)]
        later = [SQL("{0} = {0} + {1}").format(column, sql.Literal(moved)) for column in columns]
        await owner.execute(SQL("UPDATE {} SET {}").format(tables.name(model), SQL(", ").join(later)))


ONLY_THEIRS = "00000000-0000-7000-8000-0000000000ff"
"""Id of a row of the other tenant in every table."""

WORDS = ("name", "provider", "model", "session_id", "question", "answer", "query", "error", "response", "content")
FIGURES = ("cost", "prompt_tokens", "completion_tokens", "duration_ms", "model_calls", "errors", "spans")


async def tell_apart(owner: Connection) -> None:
    """Give the other tenant rows of the same ids as ours, and one of its own, with other words and figures."""
    for model in READ_MODELS:
        copied = SQL(
            "INSERT INTO {0} SELECT (jsonb_populate_record(t, {1})).* FROM {0} t WHERE tenant_id = {2} LIMIT {3} "
            "ON CONFLICT DO NOTHING"
        )
        for tenant, changed, most in ((OURS, {}, None), (THEIRS, {model.key: ONLY_THEIRS}, 1)):
            values = sql.Literal(json.dumps({"tenant_id": THEIRS, **changed}))
            await owner.execute(copied.format(tables.name(model), values, sql.Literal(tenant), sql.Literal(most)))
        columns = {column.name: column.type for column in model.table.columns if not column.primary_key}
        texts = [each for each in WORDS if isinstance(columns.get(each), Text)]
        changes = [SQL("{0} = {0} || ' of others'").format(sql.Identifier(each)) for each in texts]
        changes += [SQL("{0} = {0} + 1000").format(sql.Identifier(each)) for each in FIGURES if each in columns]
        if changes:
            statement = SQL("UPDATE {} SET {} WHERE tenant_id = {}")
            both = SQL(", ").join(changes)
            await owner.execute(statement.format(tables.name(model), both, sql.Literal(THEIRS)))


async def put_first(owner: Connection) -> None:
    """Put the rows of the other tenant first in the tables, as they are in indexes."""
    for model in READ_MODELS:
        statement = SQL("CREATE TABLE again AS TABLE {0}; TRUNCATE {0}; INSERT INTO {0} TABLE again ORDER BY tenant_id")
        await owner.execute(statement.format(tables.name(model)))
        await owner.execute("DROP TABLE again")


async def addresses(url: str) -> list[str]:
    """Addresses of every page, for traces, conversations and calls of ours, and for what only the other tenant has."""
    async with tables.connect(url) as owner:
        ours = f"WHERE tenant_id = '{OURS}'"
        traces = await query(owner, f"SELECT id FROM headrace.traces {ours} ORDER BY started_at LIMIT 60")
        talks = await query(owner, f"SELECT id FROM headrace.conversations {ours} ORDER BY 1")
        calls = await query(
            owner,
            f"SELECT trace_id, model_call_id FROM headrace.spans {ours} AND model_call_id IS NOT NULL ORDER BY 1, 2",
        )
        texts = await query(
            owner, f"SELECT question FROM headrace.traces {ours} AND question <> '' ORDER BY id LIMIT 3"
        )
        spans = await query(
            owner,
            "SELECT trace_id, id FROM (SELECT *, row_number() OVER (PARTITION BY kind ORDER BY id) AS number "
            f"FROM headrace.spans {ours}) spans WHERE number <= 6 ORDER BY kind, id",
        )
        files = await query(
            owner,
            "SELECT m.trace_id, f.id FROM headrace.upload_files f JOIN headrace.messages m ON (m.tenant_id, m.id) = "
            f"(f.tenant_id, f.used_by) WHERE f.tenant_id = '{OURS}' ORDER BY 1, 2 LIMIT 4",
        )
        tools = await query(owner, f"SELECT correlation_id, id FROM headrace.tool_calls {ours} ORDER BY 1, 2 LIMIT 4")
        replays = await query(owner, f"SELECT id FROM headrace.replays {ours} ORDER BY 1 LIMIT 10")
        runs = await query(owner, f"SELECT id FROM headrace.workflow_runs {ours} ORDER BY 1 LIMIT 8")
        steps = await query(
            owner,
            "SELECT workflow_run_id, step FROM headrace.workflow_node_executions "
            f"{ours} ORDER BY node_type, id LIMIT 30",
        )
        flows = await query(owner, f"SELECT DISTINCT app_id FROM headrace.workflows {ours} ORDER BY 1 LIMIT 4")
        users = await query(owner, f"SELECT DISTINCT session_id FROM headrace.end_users {ours} ORDER BY 1 LIMIT 3")
    found = {
        "/traces": [
            "/traces",
            *(f"/traces?q={word}" for text in texts for word in words(text)),
            *(f"/traces?q={id}" for id in [*traces[:10], *talks, ONLY_THEIRS]),
            *(f"/traces?user={user}" for user in users),
            *(f"/traces?app={app}" for app in ("Help", "e", ONLY_THEIRS)),
            *("/traces?state=error", "/traces?kind=document", "/traces?range=1y", "/traces?cost=0"),
        ],
        "/traces/{id}": [
            *(f"/traces/{id}" for id in [*traces, ONLY_THEIRS]),
            *(f"/traces/{trace}?span={span}" for trace, span in spans),
        ],
        "/traces/{id}/calls/{call}/{which}": [
            f"/traces/{trace}/calls/{call}/{which}" for trace, call in calls[:40] for which in ("0", "answer")
        ],
        "/traces/{id}/files/{file}": [
            *(f"/traces/{trace}/files/{file}" for trace, file in files),
            f"/traces/{traces[0]}/files/{ONLY_THEIRS}",
        ],
        "/compare": [f"/compare?a={a}&b={b}" for a, b in [*pairwise(traces), (traces[0], ONLY_THEIRS)]],
        "/conversations": [
            "/conversations",
            *(f"/conversations?user={user}" for user in users),
            f"/conversations?app={ONLY_THEIRS}",
        ],
        "/conversations/{id}": [f"/conversations/{id}" for id in [*talks, ONLY_THEIRS]],
        "/annotations": ["/annotations", "/annotations?q=e", f"/annotations?id={ONLY_THEIRS}"],
        "/costs": ["/costs", *(f"/costs?by={by}" for by in ("model", "app", "user", "provider"))],
        "/errors": [f"/errors?period={period}" for period in ("1h", "7d", "1y")],
        "/proof": ["/proof"],
        "/audit": ["/audit", *(f"/audit?outcome={outcome}" for outcome in ("accepted", "rejected", "signed_in"))],
        "/replays": ["/replays", *(f"/replays?id={id}" for id in [*replays, ONLY_THEIRS])],
        "/replays/new": [f"/replays/new?call={call}" for call in [*(call for _, call in calls[:10]), ONLY_THEIRS]],
        "/keys": ["/keys"],
        "/models": ["/models"],
        "/tools": ["/tools"],
        "/plugins": ["/plugins"],
        "/workflows": [
            *("/workflows", "/workflows?part=runs", "/workflows?state=failed", "/workflows?app=e"),
            f"/workflows?app={ONLY_THEIRS}",
        ],
        "/workflows/{app}": [f"/workflows/{app}" for app in [*flows, ONLY_THEIRS]],
        "/workflows/runs/{run}": [
            *(f"/workflows/runs/{run}" for run in [*runs, ONLY_THEIRS]),
            *(f"/workflows/runs/{run}?step={step}" for run, step in steps),
        ],
        "/workflows/runs/{run}/value": [
            *(f"/workflows/runs/{run}/value?of=inputs&name=place" for run in [*runs, ONLY_THEIRS]),
            *(f"/workflows/runs/{run}/value?step={step}&of=outputs&name=text" for run, step in steps),
        ],
        "/workflows/compare": [f"/workflows/compare?a={a}&b={b}" for a, b in [*pairwise(runs), (runs[0], ONLY_THEIRS)]],
        "/traces/{id}/tools/{tool}/{number:int}": [f"/traces/{trace}/tools/{tool}/0" for trace, tool in tools],
        "/names/{kind}": [f"/names/{kind}?{kind}={text}" for kind in _LISTS if kind != "tenant" for text in ("", "e")],
    }
    assert {*found} == {*_routes()}.difference(LEFT_OUT)
    return [address for each in found.values() for address in each]


def _routes() -> list[str]:
    """The paths of all pages that are read."""
    from importlib import import_module

    from adapters.web.viewer import names

    routes: list[Route] = [*names.routes]
    for page in PAGES:
        routes += import_module(f"adapters.web.viewer.pages.{page}").routes
    return [route.path for route in routes if route.methods and "GET" in route.methods]


async def test_pages_use_no_row_of_another_tenant(
    module_database_url: str, urls: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("_streams", "_exports"):  # they ask the bus, about all tenants
        monkeypatch.setattr(proof, part, Nowhere().load)
    monkeypatch.setattr(proof, "COUNTED", -1)
    monkeypatch.setattr(plugins, "HOUSE", OURS)  # whose installed packages each tenant may see
    pages = await addresses(module_database_url)
    answered = 0
    async with site(urls[0]) as all_rows, site(urls[1]) as own_rows:
        for address in pages:
            for _ in range(TRIES):
                mine, bound = [_steady(await client.get(address)) for client in (all_rows, own_rows)]
                if not (differing := difference(mine, bound)):
                    break
            assert not differing, "\n".join([address, *differing])
            answered += mine[0] == "200"
    assert answered > 0.7 * len(pages)


def _steady(answer: httpx2.Response) -> list[str]:
    """Status and lines, without what each request has of its own."""
    text = re.sub(r'name="token" value="[^"]+"|to=[-\dT]+%3A\d\d%3A\d\d\.\d+', "", answer.text)
    return [str(answer.status_code), *text.splitlines()]


def difference(mine: list[str], bound: list[str]) -> list[str]:
    """The lines in which two answers differ."""
    return [line for line in unified_diff(mine, bound, lineterm="", n=0) if line[:1] in "+-"]


async def test_the_other_tenant_has_pages_of_its_own(urls: tuple[str, str]) -> None:
    async with site(urls[0]) as all_rows, site(urls[1]) as own_rows:
        theirs = [
            (await client.get("/traces.json", params={"tenant": THEIRS})).json() for client in (all_rows, own_rows)
        ]
    assert theirs[0] != theirs[1]
