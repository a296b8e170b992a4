"""API keys of the tenant: made here and shown once, replaced with an overlap, revoked."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from adapters.jetstream.client import rejection
from adapters.privacy import api_keys
from adapters.web.viewer.backend import Backend, Row
from adapters.web.viewer.changes import fields, seen, text
from adapters.web.viewer.render import as_json, link, render, tenant, wants_json
from adapters.web.viewer.sender import client
from domain.access.api_key import kind
from domain.access.permissions import OF_KEYS, PERMISSIONS

PAGE = 100
"""Number of keys per page."""

CHOICES = 500
"""Maximum number of apps, and of knowledge bases, that are offered."""

OVERLAPS = {"0": "at once", "3600": "in an hour", "86400": "in a day", "604800": "in a week", "2592000": "in 30 days"}
"""Ends of the former key, by the overlap in seconds."""

_KEYS = """
SELECT id, type, name, hint, permissions, apps, datasets, expires_at, account_id, status, former_hint, former_ends_at,
    created_by, created_at
FROM headrace.api_tokens
WHERE tenant_id = %(tenant)s AND (status = 'active' OR updated_at > now() - interval '7 days')
    AND (%(before)s = '' OR id < %(before)s)
ORDER BY id DESC LIMIT {limit}
"""
"""Ids of keys are in the order of time."""

_APPS = "SELECT id, name FROM headrace.apps WHERE tenant_id = %(tenant)s ORDER BY name, id LIMIT {limit}"
_DATASETS = "SELECT id, name FROM headrace.datasets WHERE tenant_id = %(tenant)s ORDER BY name, id LIMIT {limit}"


async def show(request: Request, wrong: str = "", made: str = "", said: Mapping[str, Any] | None = None) -> Response:
    backend: Backend = request.app.state.backend
    values = {"tenant": tenant(request), "before": request.query_params.get("before", "").replace("\0", "")}
    found = await backend.rows(_KEYS.format(limit=PAGE + 1), values)
    used = await backend.uses.last(values["tenant"], [row["id"] for row in found[:PAGE]])
    keys: list[Row] = [{**row, "last_used_at": used.get(row["id"])} for row in found[:PAGE]]
    before = keys[-1]["id"] if len(found) > PAGE else None
    apps = await backend.rows(_APPS.format(limit=CHOICES), values)
    datasets = await backend.rows(_DATASETS.format(limit=CHOICES), values)
    if wants_json(request):
        return as_json({"keys": keys, "before": before, "error": wrong or None}, 400 if wrong else 200)
    given: dict[str, Any] = {
        "keys": keys,
        "before": before,
        "apps": apps,
        "datasets": datasets,
        "names": {row["id"]: row["name"] for row in (*apps, *datasets)},
        "permissions": [(name, means) for name, means in PERMISSIONS.items() if name in OF_KEYS],
        "overlaps": OVERLAPS,
        "made": made,
        "wrong": wrong,
        "said": said or {"permissions": ["chat"]},
        "now": datetime.now(UTC),
    }
    return render(request, "keys.html", given, 400 if wrong else 200)


async def make(request: Request) -> Response:
    """Make a key here: only its SHA-256 is sent, and the key is shown once."""
    form = await fields(request)
    chosen = {name: [str(each) for each in form.getlist(name)] for name in ("permissions", "apps", "datasets")}
    said = {"name": text(form, "name"), **chosen, "expires_at": text(form, "expires_at")}
    try:
        expires_at = _moment(form)
    except (ValueError, OverflowError):
        return await show(request, "expires_at: must be a date like 2027-01-31.", said=said)
    key = api_keys.new(kind(chosen["apps"], chosen["datasets"]))
    payload = {**said, "expires_at": expires_at, **api_keys.fields(key)}
    outcome = await (await client(request)).send("api_key.create", payload)
    if outcome["status"] == "rejected":
        return await show(request, rejection(outcome), said=said)
    return await _shown_once(request, key, outcome)


async def replace(request: Request) -> Response:
    form = await fields(request)
    overlap = text(form, "overlap")
    backend: Backend = request.app.state.backend
    values = {"tenant": tenant(request), "id": request.path_params["id"]}
    row = await backend.row("SELECT type FROM headrace.api_tokens WHERE tenant_id = %(tenant)s AND id = %(id)s", values)
    key = api_keys.new(row["type"] if row else "tenant")
    payload = {
        "api_key": request.path_params["id"],
        **api_keys.fields(key),
        "overlap_s": int(overlap) if overlap in OVERLAPS else 86_400,
    }
    outcome = await (await client(request)).send("api_key.replace", payload)
    if outcome["status"] == "rejected":
        return await show(request, rejection(outcome))
    return await _shown_once(request, key, outcome)


async def revoke(request: Request) -> Response:
    outcome = await (await client(request)).send("api_key.revoke", {"api_key": request.path_params["id"]})
    if outcome["status"] == "rejected":
        return await show(request, rejection(outcome))
    await seen(request.app.state.backend, [outcome])
    return RedirectResponse(link(request, "/keys"), 303)


async def _shown_once(request: Request, key: str, outcome: Mapping[str, Any]) -> Response:
    await seen(request.app.state.backend, [dict(outcome)])
    if wants_json(request):
        return as_json({"api_key": outcome["ids"]["api_key"], "key": key})
    return await show(request, made=key)


def _moment(form: FormData) -> str | None:
    """The end of the day in a field, in UTC; None without one. Raises: ValueError, OverflowError."""
    if not (given := text(form, "expires_at")):
        return None
    return (datetime.fromisoformat(given).replace(tzinfo=UTC) + timedelta(days=1)).isoformat()


routes = [
    Route("/keys", show),
    Route("/keys/new", make, methods=["POST"]),
    Route("/keys/{id}/replace", replace, methods=["POST"]),
    Route("/keys/{id}/revoke", revoke, methods=["POST"]),
]
