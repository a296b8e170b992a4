"""Tools: calls that wait for a person, and toolsets with their tools and the last refresh."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from adapters.jetstream.client import rejection
from adapters.tools.builtin.toolbox import DEFINITIONS
from adapters.web.viewer.backend import Backend
from adapters.web.viewer.changes import fields, seen, text
from adapters.web.viewer.render import as_json, link, render, tenant, wants_json
from adapters.web.viewer.sender import client
from domain.tools.tool import listed

HELD, TOOLSETS = 100, 200
"""Maximum numbers of calls that wait, and of toolsets, on the page."""

_HELD = """
SELECT t.id, t.toolset, t.name, t.arguments, t.questions, t.destructive, t.held_why, t.held_until, t.created_at,
    t.correlation_id, t.conversation_id, apps.name AS app
FROM headrace.tool_calls t LEFT JOIN headrace.apps ON (apps.tenant_id, apps.id) = (t.tenant_id, t.app_id)
WHERE t.tenant_id = %(tenant)s AND t.status = 'held' ORDER BY t.held_until, t.id LIMIT {limit}
"""

_TOOLSETS = """
SELECT id, kind, description, has_secret, secret_hint, timeout_s, digest, tool_count, tools, warnings, refresh_status,
    error_code, error, refreshed_at, created_by, created_at
FROM headrace.toolsets WHERE tenant_id = %(tenant)s AND status = 'active' ORDER BY id LIMIT {limit}
"""

_CALL = """
SELECT correlation_id, conversation_id, cause_id, questions FROM headrace.tool_calls
WHERE tenant_id = %(tenant)s AND id = %(id)s
"""

DECISIONS: Mapping[str, str] = {"release": "tool_call.release", "refuse": "tool_call.refuse"}


async def show(request: Request, wrong: str = "") -> Response:
    backend: Backend = request.app.state.backend
    of = {"tenant": tenant(request)}
    held = await backend.rows(_HELD.format(limit=HELD), of)
    toolsets = await backend.rows(_TOOLSETS.format(limit=TOOLSETS), of)
    builtin = [listed(tool) for tool in DEFINITIONS]
    status = 400 if wrong else 200
    if wants_json(request):
        return as_json({"held": held, "toolsets": toolsets, "builtin": builtin, "error": wrong or None}, status)
    given = {"held": held, "toolsets": toolsets, "builtin": builtin, "wrong": wrong}
    return render(request, "tools.html", given, status)


async def decide(request: Request) -> Response:
    """Release or refuse a call that waits, and go back to the page that the form is on."""
    form, backend = await fields(request), request.app.state.backend
    id, verb = request.path_params["tool"], request.path_params["verb"]
    call = await backend.row(_CALL, {"tenant": tenant(request), "id": id})
    if call is None or verb not in DECISIONS:
        raise HTTPException(404, "There is no such call of a tool.")
    payload: dict[str, Any] = {"tool_call": id}
    if verb == "refuse":
        payload |= {"reason": text(form, "reason"), "cancel": bool(text(form, "cancel"))}
    elif text(form, "answers"):
        payload["answer"] = _answer(form, next((each for each in call["questions"] if each["action"] is None), {}))
    outcome = await (await client(request)).send(DECISIONS[verb], payload)
    if outcome["status"] == "rejected":
        return await show(request, rejection(outcome))
    await seen(backend, [outcome])
    match text(form, "to"):
        case "trace":
            return RedirectResponse(link(request, f"/traces/{call['correlation_id']}", span=id), 303)
        case "conversation":
            path = link(request, f"/conversations/{call['conversation_id']}")
            return RedirectResponse(f"{path}#m-{call['cause_id']}", 303)
    return RedirectResponse(link(request, "/tools"), 303)


def _answer(form: FormData, question: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that were filled in. What is no number stays a text, so that the command says what is wrong."""
    found: dict[str, Any] = {}
    for name, field in question.get("form", {}).get("properties", {}).items():
        given = [str(each) for each in form.getlist(f"f.{name}") if each]
        match field["type"]:
            case "array":
                found[name] = given
            case "string" if given:
                found[name] = given[0]
            case _ if given:
                found[name] = _read(given[0].strip())
    return found


def _read(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


async def refresh(request: Request) -> Response:
    """List the tools of a toolset again."""
    outcome = await (await client(request)).send("toolset.refresh", {"toolset": request.path_params["name"]})
    if outcome["status"] == "rejected":
        if outcome.get("code") == "not_found":
            raise HTTPException(404, "There is no such toolset.")
        return await show(request, rejection(outcome))
    await seen(request.app.state.backend, [outcome])
    return RedirectResponse(link(request, "/tools"), 303)


routes = [
    Route("/tools", show),
    Route("/tools/{name}/refresh", refresh, methods=["POST"]),
    Route("/tools/calls/{tool}/{verb}", decide, methods=["POST"]),
]
