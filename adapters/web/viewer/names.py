"""Names that fields of forms offer while they are typed: of apps, models, providers, users and tenants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from adapters.postgres.tenants import TENANTS
from adapters.web.viewer.backend import Backend, Row
from adapters.web.viewer.render import as_json, render, tenant, wants_json
from adapters.web.viewer.visitor import visitor

OFFERED = 20
"""Maximum number of names that are offered at once."""

MATCHING = 1000
"""Maximum number of apps that a part of a name may mean."""

_LATEST = """
SELECT provider, model, models FROM headrace.traces WHERE tenant_id = %(tenant)s ORDER BY started_at DESC LIMIT 5000
"""
_CONFIGURED = """
SELECT provider, model_id AS model FROM headrace.app_model_configs WHERE tenant_id = %(tenant)s
UNION SELECT 'builtin', 'extractive'
"""
_MODELS = f"{_CONFIGURED} UNION SELECT provider, model FROM ({_LATEST}) AS latest WHERE model IS NOT NULL"
"""Chat models of configurations, and those that the latest traces used."""

_APP_NAMES = "SELECT DISTINCT name AS value, '' AS label FROM headrace.apps WHERE tenant_id = %(tenant)s"
_MODEL_NAMES = f"""
SELECT model AS value, '' AS label FROM ({_CONFIGURED}) AS known
UNION SELECT unnest(models), '' FROM ({_LATEST}) AS latest
"""
_USER_NAMES = "SELECT DISTINCT session_id AS value, '' AS label FROM headrace.end_users WHERE tenant_id = %(tenant)s"

_LISTS: Mapping[str, str] = {
    "app": _APP_NAMES,
    "model": _MODEL_NAMES,
    "user": _USER_NAMES,
    "provider": f"SELECT provider AS value, '' AS label FROM ({_MODELS}) AS known "
    "UNION SELECT id, '' FROM headrace.providers WHERE tenant_id = %(tenant)s",
    "tenant": f"SELECT tenant_id AS value, '' AS label FROM ({TENANTS}) AS known",
    "target": f"SELECT provider || '/' || model AS value, '' AS label FROM ({_MODELS}) AS known",
    "subject": "SELECT id AS value, 'app ' || name AS label FROM headrace.apps WHERE tenant_id = %(tenant)s "
    f"UNION ALL SELECT value, 'model' FROM ({_MODEL_NAMES}) AS models "
    f"UNION ALL SELECT value, 'user' FROM ({_USER_NAMES}) AS users",
}
"""Queries for the names of each kind; `subject` is what a quota is for, `target` what a replay is sent to."""

_OWN_TENANTS = "SELECT unnest(%(own)s::text[]) AS value, '' AS label"
"""The tenants of a visitor who may not read all of them."""

_FOUND = """
SELECT value, label FROM ({names}) AS names WHERE strpos(lower(value || ' ' || label), lower(%(text)s)) > 0
ORDER BY NOT starts_with(lower(value), lower(%(text)s)), lower(value), value LIMIT {limit}
"""

_APPS = """
SELECT id, name, lower(name) = lower(%(text)s) AS same FROM headrace.apps
WHERE tenant_id = %(tenant)s AND (id = %(text)s OR strpos(lower(name), lower(%(text)s)) > 0)
ORDER BY id = %(text)s DESC, same DESC, id LIMIT {limit}
"""


@dataclass(frozen=True)
class Apps:
    """The apps that a text means, by their ids; `text` is their name where they are all that have it."""

    ids: list[str]
    text: str
    wrong: str = ""


async def apps_called(backend: Backend, of: str, text: str) -> Apps:
    """The app with this id, else those of this name, else those with the text in their name.

    An app that was deleted is known by its id alone.
    """
    values = {"tenant": of, "text": text}
    rows = await backend.rows(_APPS.format(limit=MATCHING + 1), values)
    if rows and rows[0]["id"] == text:
        name = rows[0]["name"]
        alike = await backend.rows(_APPS.format(limit=2), {"tenant": of, "text": name})
        return Apps([text], name if sum(row["same"] for row in alike) == 1 else text)
    same = [row["id"] for row in rows if row["same"]]
    if len(rows) > MATCHING and not same:
        return Apps([], text, f"is in the names of more than {MATCHING:,} apps: type more of it")
    return Apps(same or [row["id"] for row in rows] or [text], text)


@dataclass(frozen=True)
class Asked:
    """A page of a list that goes on before a time and a row: what its form `said`, the apps that it means, and the
    values of the query."""

    said: dict[str, str]
    apps: Apps | None
    values: Row


async def page_of(request: Request, *fields: str) -> Asked:
    """The page that these fields of a form ask for, `app` among them."""
    query = request.query_params
    said = {name: query.get(name, "").replace("\0", "").strip() for name in fields}
    before, _, row = query.get("before", "").replace("\0", "").partition("~")
    try:
        at = datetime.fromisoformat(before) if before else None
    except ValueError:
        at = None
    of = tenant(request)
    apps = await apps_called(request.app.state.backend, of, said["app"]) if said["app"] else None
    return Asked(said, apps, {**said, "tenant": of, "apps": apps and apps.ids, "before": at, "row": row})


async def show(request: Request) -> Response:
    """The names that match the field in the address, as options of a list."""
    backend: Backend = request.app.state.backend
    kind, query = request.path_params["kind"], request.query_params
    if kind not in _LISTS:
        raise HTTPException(404)
    field = "tenant" if kind == "tenant" else next((name for name in query if name != "tenant"), "")
    text = query.get(field, "").replace("\0", "").strip()
    who = visitor(request)
    values = {"tenant": who.tenant, "text": text, "own": who.tenants}
    names = _OWN_TENANTS if kind == "tenant" and not who.is_operator else _LISTS[kind]
    rows: list[Row] = await backend.rows(_FOUND.format(names=names, limit=OFFERED + 1), values)
    given = {"names": rows[:OFFERED], "more": len(rows) > OFFERED, "text": text}
    return as_json(given) if wants_json(request) else render(request, "names.html", given)


routes = [Route("/names/{kind}", show)]
