"""Workflows: the graphs of apps, and the runs of all of them, newest first."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from adapters.web.viewer.backend import Backend
from adapters.web.viewer.drawn_runs import picture
from adapters.web.viewer.names import page_of
from adapters.web.viewer.render import as_json, render, tenant, wants_json

RUNS, WORKFLOWS, VERSIONS = 50, 100, 100
"""Maximum numbers of runs, workflows and versions on a page."""

STATES = ("scheduled", "running", "paused", "succeeded", "partial-succeeded", "failed", "stopped")

_WORKFLOWS = """
SELECT a.id, a.name, a.mode, newest.number, newest.created_at AS published_at, draft.created_at AS drafted_at,
    draft.graph_digest IS DISTINCT FROM newest.graph_digest AS changed, last.id AS run, last.status,
    last.created_at AS run_at
FROM headrace.apps a
LEFT JOIN headrace.workflows newest ON (newest.tenant_id, newest.id) = (a.tenant_id, a.workflow_id)
LEFT JOIN LATERAL (SELECT created_at, graph_digest FROM headrace.workflows d
    WHERE (d.tenant_id, d.app_id, d.number) = (a.tenant_id, a.id, 0)) draft ON true
LEFT JOIN LATERAL (SELECT id, status, created_at FROM headrace.workflow_runs r
    WHERE (r.tenant_id, r.app_id) = (a.tenant_id, a.id) ORDER BY created_at DESC, id DESC LIMIT 1) last ON true
WHERE a.tenant_id = %(tenant)s AND a.mode IN ('workflow', 'advanced-chat')
ORDER BY last.created_at DESC NULLS LAST, a.name, a.id LIMIT {limit}
"""

_RUNS = """
SELECT r.id, r.app_id, r.version, r.triggered_from, r.status, r.error_code, r.error, r.elapsed_time, r.total_tokens,
    r.executions, r.end_user, r.created_at, r.finished_at, r.source_id, r.source_kind, a.name AS app,
    t.question, t.answer
FROM headrace.workflow_runs r
LEFT JOIN headrace.apps a ON (a.tenant_id, a.id) = (r.tenant_id, r.app_id)
LEFT JOIN headrace.traces t ON (t.tenant_id, t.id) = (r.tenant_id, r.correlation_id)
WHERE r.tenant_id = %(tenant)s AND (%(apps)s::text[] IS NULL OR r.app_id = ANY(%(apps)s))
    AND (%(state)s = '' OR r.status = %(state)s)
    AND (%(before)s::timestamptz IS NULL OR (r.created_at, r.id) < (%(before)s, %(row)s))
ORDER BY r.created_at DESC, r.id DESC LIMIT {limit}
"""

_APP = "SELECT id, name, mode FROM headrace.apps WHERE tenant_id = %(tenant)s AND id = %(id)s"

_VERSIONS = """
SELECT id, number, version, graph_digest, marked_name, marked_comment, created_by, created_at
FROM headrace.workflows WHERE tenant_id = %(tenant)s AND app_id = %(id)s ORDER BY number = 0 DESC, number DESC
LIMIT {limit}
"""


async def show(request: Request) -> Response:
    backend: Backend = request.app.state.backend
    asked = await page_of(request, "app", "state")
    rows = await backend.rows(_RUNS.format(limit=RUNS + 1), asked.values)
    last = rows[RUNS - 1] if len(rows) > RUNS else None
    given: dict[str, Any] = {
        "runs": rows[:RUNS],
        "older": f"{last['created_at'].isoformat()}~{last['id']}" if last else "",
        "said": {name: value for name, value in asked.said.items() if value},
        "app": asked.apps.text if asked.apps else "",
        "states": STATES,
        "live": asked.values["before"] is None,
    }
    if request.query_params.get("part") == "runs":
        return render(request, "workflows_runs.html", given)
    given["workflows"] = await backend.rows(_WORKFLOWS.format(limit=WORKFLOWS), asked.values)
    if wants_json(request):
        return as_json({"workflows": given["workflows"], "runs": given["runs"], "older": given["older"]})
    return render(request, "workflows.html", given | {"most": WORKFLOWS})


async def graph(request: Request) -> Response:
    """The graph of a version of an app, the newest by default."""
    backend: Backend = request.app.state.backend
    of = {"tenant": tenant(request), "id": request.path_params["app"]}
    app = await backend.row(_APP, of)
    versions = await backend.rows(_VERSIONS.format(limit=VERSIONS), of)
    if app is None or not versions:
        raise HTTPException(404, "There is no such workflow.")
    wanted = request.query_params.get("version", "")
    newest = versions[1] if len(versions) > 1 and not versions[0]["number"] else versions[0]
    chosen = next((each for each in versions if each["version"] == wanted), newest)
    if wants_json(request):
        return as_json({"app": app, "versions": versions})
    drawing = await picture(backend, of["tenant"], app["id"], chosen["graph_digest"])
    given = {"app": app, "versions": versions, "chosen": chosen, "picture": drawing}
    return render(request, "workflow.html", given)


routes = [Route("/workflows", show), Route("/workflows/{app}", graph)]
