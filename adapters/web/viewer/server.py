"""The web application of the viewer: its pages, and what they share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path

import psycopg
import structlog
from psycopg import errors
from psycopg_pool import PoolTimeout
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from adapters.jetstream.sessions import Sessions
from adapters.web.viewer import access, assets, names
from adapters.web.viewer.access import Access, Entries, Gate, Headed
from adapters.web.viewer.backend import Backend
from adapters.web.viewer.guesses import LOGGED_S, Guesses
from adapters.web.viewer.reads import Audited
from adapters.web.viewer.render import link, problem
from adapters.web.viewer.sender import NOT_SENT, not_sent

log = structlog.get_logger(__name__)

PAGES = (
    *("traces", "trace", "files", "replays", "compare", "conversations", "annotations", "errors", "costs", "models"),
    *("tools", "plugins", "compare_runs", "runs", "workflows", "proof", "sql", "audit", "account", "members", "keys"),
    "invitation",
)
"""The modules in `pages`; each has `routes`."""


def create_app(
    backend: Backend,
    allowed: Access,
    metrics: ASGIApp | None = None,
    *,
    audit_reads: bool = False,
    logs: Path | None = None,
) -> ASGIApp:
    """The application, which opens and closes `backend`. `metrics` answers `/metrics`.

    With `audit_reads`, a page with recorded words is a command before it is shown. `logs` is the folder with the logs
    of workers on this machine, None where they are elsewhere.
    """

    @asynccontextmanager
    async def opened(app: Starlette) -> AsyncIterator[None]:
        async with backend:
            reporting = asyncio.create_task(_report(entries.guesses))
            try:
                yield
            finally:
                reporting.cancel()

    sessions, entries = Sessions(backend.nc), Entries(Guesses(), backend.reports)
    routes: list[BaseRoute] = [
        Route("/", _home),
        Route("/healthz", _healthz),
        *access.routes(backend, allowed, sessions, entries),
        *assets.routes,
        *names.routes,
    ]
    for page in PAGES:
        routes += import_module(f"adapters.web.viewer.pages.{page}").routes
    if metrics is not None:
        routes.append(Route("/metrics", metrics))
    app = Starlette(
        routes=routes,
        lifespan=opened,
        middleware=[
            Middleware(Gate, backend=backend, access=allowed, sessions=sessions, entries=entries),
            Middleware(GZipMiddleware, minimum_size=1000, compresslevel=5),
            Middleware(Prepared),
            *([Middleware(Audited)] if audit_reads else []),
        ],
        exception_handlers=HANDLERS,
    )
    app.state.backend, app.state.access, app.state.entries, app.state.logs = backend, allowed, entries, logs
    return Headed(app)  # outermost, so that every answer has its headers


async def _report(guesses: Guesses) -> None:
    """Log failed logins, also those after which none follows."""
    while True:
        await asyncio.sleep(LOGGED_S)
        guesses.report()


class Prepared:
    """Notes in a request whether there are other tenants, and whether its path ended in `.json`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            state = scope.setdefault("state", {})
            path = scope["path"]
            if state_json := path.endswith(".json"):
                scope = {**scope, "path": path.removesuffix(".json")}
            state["json"] = state_json
            who = state.get("visitor")
            if who and not who.is_operator:
                state["shared"] = len(who.tenants) > 1
            elif who and not path.startswith("/metrics") and not state_json:
                try:
                    state["shared"] = await scope["app"].state.backend.shared()
                except (psycopg.Error, PoolTimeout):  # the page itself will fail
                    state["shared"] = False
        await self.app(scope, receive, send)


async def _home(request: Request) -> Response:
    return RedirectResponse(link(request, "/traces"), 303)


async def _healthz(request: Request) -> Response:
    """Health check: the tables can be read; open to all, without further information."""
    try:
        await request.app.state.backend.rows("SELECT FROM headrace_projection.checkpoints")
    except (psycopg.Error, PoolTimeout):
        return PlainTextResponse("the tables cannot be read\n", 503)
    return PlainTextResponse("ok\n")


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    match error.status_code:
        case 404:
            detail = error.detail if error.detail != "Not Found" else "There is no such page."
            advice = "It may belong to another tenant, or the address is incomplete."
            return problem(request, 404, detail, advice)
        case status:
            return problem(request, status, error.detail, "")


def _away(request: Request, error: Exception) -> Response:
    log.warning("postgres", reason=" ".join(str(error).split()))
    advice = "It holds the tables. This page retries by itself."
    return problem(request, 503, "PostgreSQL does not answer", advice, retry=True)


def _not_set_up(request: Request, error: Exception) -> Response:
    log.warning("tables", reason=" ".join(str(error).split()))
    advice = "A worker with the role project makes missing tables when it starts; a rebuild replaces outdated ones."
    return problem(request, 503, "The tables are missing or outdated", advice, retry=True)


def _too_long(request: Request, error: Exception) -> Response:
    advice = "Choose a shorter time range, or filter more."
    return problem(request, 503, "The query took too long and was cancelled", advice)


def _bug(request: Request, error: Exception) -> Response:
    advice = "This is a bug in Headrace. The log of the worker with the role view has the details."
    return problem(request, 500, "Unexpected error", advice)


HANDLERS: dict[type[Exception] | int, Callable[[Request, Exception], Response]] = {
    HTTPException: _http,
    psycopg.OperationalError: _away,
    PoolTimeout: _away,
    errors.UndefinedTable: _not_set_up,
    errors.UndefinedColumn: _not_set_up,
    errors.UndefinedFunction: _not_set_up,
    errors.InvalidSchemaName: _not_set_up,
    errors.InsufficientPrivilege: _not_set_up,
    errors.QueryCanceled: _too_long,
    **dict.fromkeys(NOT_SENT, not_sent),
    Exception: _bug,
}
