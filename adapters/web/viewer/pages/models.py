"""Providers and models: servers, keys without their secrets, what was measured, and the last checks."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from adapters.jetstream.client import rejection
from adapters.web.viewer.backend import Backend, Row
from adapters.web.viewer.changes import fields, seen, text
from adapters.web.viewer.render import as_json, link, render, tenant, wants_json
from adapters.web.viewer.sender import client
from domain.models.model import ABILITIES

PROVIDERS, MODELS = 200, 100
"""Maximum number of providers on the page, and of models of one provider."""

_PROVIDERS = """
SELECT id, kind, base_url, status, check_status, check_trace_id, check_code, check_reason, checked_at, checked_model,
    models, latency_ms, limits, created_by, created_at
FROM headrace.providers WHERE tenant_id = %(tenant)s AND status = 'active' ORDER BY id LIMIT {limit}
"""

_CREDENTIALS = """
SELECT provider_id, name, hint, weight, status, created_at FROM headrace.provider_credentials
WHERE tenant_id = %(tenant)s AND provider_id = ANY(%(providers)s) ORDER BY provider_id, name
"""

_MODELS = """
SELECT id, provider_id, model, type, context_window, max_output, abilities, prices, rpm, tpm, sources, checked_at
FROM (
    SELECT *, row_number() OVER (PARTITION BY provider_id ORDER BY checked_at DESC NULLS LAST, entry IS NULL, model)
        AS place
    FROM headrace.provider_models WHERE tenant_id = %(tenant)s AND provider_id = ANY(%(providers)s)
) known WHERE place <= {limit} ORDER BY provider_id, place
"""

_CALLS = """
SELECT id, cause_id, correlation_id, model, status, error_code, error, duration_ms, prompt_tokens, completion_tokens,
    cost, request -> 'tools' AS tools, created_at
FROM headrace.model_calls
WHERE tenant_id = %(tenant)s AND cause_noun = 'provider' AND correlation_id = ANY(%(checks)s) ORDER BY created_at
"""

_DEFAULTS = "SELECT id, provider_id, model FROM headrace.tenant_default_models WHERE tenant_id = %(tenant)s ORDER BY id"


async def show(request: Request, wrong: str = "") -> Response:
    backend: Backend = request.app.state.backend
    values: dict[str, Any] = {"tenant": tenant(request)}
    providers = await backend.rows(_PROVIDERS.format(limit=PROVIDERS), values)
    values["providers"] = [row["id"] for row in providers]
    values["checks"] = [row["check_trace_id"] for row in providers if row["check_trace_id"]]
    parts = {"credentials": _CREDENTIALS, "known": _MODELS.format(limit=MODELS)}
    found = {name: await backend.rows(query, values) for name, query in parts.items()}
    calls = await backend.rows(_CALLS, values)
    for provider in providers:
        provider |= {name: _of(rows, provider["id"], "provider_id") for name, rows in found.items()}
        provider["calls"] = _of(calls, provider["id"], "cause_id")
    defaults = await backend.rows(_DEFAULTS, values)
    if wants_json(request):
        return as_json({"providers": providers, "defaults": defaults, "error": wrong or None}, 400 if wrong else 200)
    given = {"providers": providers, "defaults": defaults, "abilities": ABILITIES, "wrong": wrong}
    return render(request, "models.html", given, 400 if wrong else 200)


async def check(request: Request) -> Response:
    """Begin a check, of the model that the form names, if any."""
    form = await fields(request)
    payload = {"provider": request.path_params["name"], "model": text(form, "model") or None}
    outcome = await (await client(request)).send("provider.check", payload)
    if outcome["status"] == "rejected":
        if outcome.get("code") == "not_found":
            raise HTTPException(404, "There is no such provider.")
        return await show(request, rejection(outcome))
    await seen(request.app.state.backend, [outcome])
    return RedirectResponse(link(request, "/models"), 303)


def _of(rows: list[Row], provider: str, column: str) -> list[Row]:
    return [row for row in rows if row[column] == provider]


routes = [Route("/models", show), Route("/models/{name}/check", check, methods=["POST"])]
