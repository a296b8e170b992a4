"""One run of a workflow: its graph with states and times, what each step worked with and put out, and its forms."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from adapters.jetstream.client import rejection
from adapters.web.viewer.backend import Backend, Row
from adapters.web.viewer.changes import fields, seen, text
from adapters.web.viewer.drawn_runs import picture, states
from adapters.web.viewer.format import pretty
from adapters.web.viewer.render import as_json, link, render, tenant, wants_json
from adapters.web.viewer.sender import client
from adapters.web.viewer.sources import shown
from handlers.ports.log import Unavailable

EXECUTIONS, ITEMS = 300, 100
"""Maximum numbers of executions, and of items, in a list."""

ENDED = ("succeeded", "partial-succeeded", "failed", "stopped")

_RUN = """
SELECT r.*, a.name AS app, t.cost, t.unpriced_calls, t.status AS trace_status
FROM headrace.workflow_runs r
LEFT JOIN headrace.apps a ON (a.tenant_id, a.id) = (r.tenant_id, r.app_id)
LEFT JOIN headrace.traces t ON (t.tenant_id, t.id) = (r.tenant_id, r.correlation_id)
WHERE r.tenant_id = %(tenant)s AND r.id = %(id)s
"""

_LISTED = """
SELECT id, step, index, node_id, node_type, title, parent_id, item_index, status, tries, kept, error_type,
    total_tokens, started_at, finished_at, elapsed_time
FROM headrace.workflow_node_executions
WHERE tenant_id = %(tenant)s AND workflow_run_id = %(id)s AND parent_id IS NOT DISTINCT FROM %(parent)s
    AND (%(item)s::integer IS NULL OR item_index = %(item)s)
ORDER BY index LIMIT {limit}
"""

_STEP = """
SELECT * FROM headrace.workflow_node_executions
WHERE tenant_id = %(tenant)s AND workflow_run_id = %(id)s AND step = %(step)s
"""

_TELLING = """
SELECT step FROM headrace.workflow_node_executions
WHERE tenant_id = %(tenant)s AND workflow_run_id = %(id)s AND status IN ('waiting', 'failed')
ORDER BY status = 'waiting' DESC, index DESC LIMIT 1
"""

_ITEMS = """
SELECT item_index, count(*) FILTER (WHERE status <> 'skipped') AS steps, min(started_at) AS began,
    extract(epoch FROM max(finished_at) - min(started_at)) * 1000 AS took_ms,
    CASE WHEN bool_or(status = 'failed') THEN 'failed' WHEN bool_or(status = 'waiting') THEN 'waiting'
        WHEN bool_or(status IN ('running', 'retried')) THEN 'running' WHEN bool_or(status = 'stopped') THEN 'stopped'
        WHEN bool_or(status = 'exception') THEN 'exception' ELSE 'succeeded' END AS status
FROM headrace.workflow_node_executions WHERE tenant_id = %(tenant)s AND parent_id = %(parent)s
GROUP BY item_index HAVING item_index >= %(first)s ORDER BY item_index LIMIT {limit}
"""

_FORMS = """
SELECT * FROM headrace.human_input_forms WHERE tenant_id = %(tenant)s AND workflow_run_id = %(id)s
ORDER BY status = 'waiting' DESC, created_at, id LIMIT 100
"""

_FORKS = """
SELECT id, source_kind, source_step, status, created_at FROM headrace.workflow_runs
WHERE tenant_id = %(tenant)s AND source_id = %(id)s ORDER BY created_at DESC, id LIMIT 20
"""


async def show(request: Request, wrong: str = "") -> Response:
    backend: Backend = request.app.state.backend
    of = {"tenant": tenant(request), "id": request.path_params["run"]}
    run = await backend.row(_RUN, of)
    if run is None:
        raise HTTPException(404, f"There is no run {of['id'][:100]}.")
    part = request.query_params.get("part")
    step = await _chosen(backend, of, request.query_params.get("step"))
    given: dict[str, Any] = {
        "run": run,
        "step": step,
        "now": datetime.now(UTC),
        "live": run["status"] not in ENDED,
        "base": f"/workflows/runs/{run['id']}",
        "wrong": wrong,
        "most": EXECUTIONS,
    }
    if wants_json(request):
        listed = await backend.rows(_LISTED.format(limit=EXECUTIONS), of | {"parent": None, "item": None})
        return as_json({"run": run, "executions": listed, "forms": await backend.rows(_FORMS, of)})
    if part != "panel":
        given |= await _overview(backend, of, run)
    if part != "live":
        given |= await _panel(backend, of, run, step, request)
    template = {"live": "run_live.html", "panel": "run_panel.html"}.get(part or "", "run.html")
    return render(request, template, given, 400 if wrong else 200)


async def _chosen(backend: Backend, of: Mapping[str, str], asked: str | None) -> str:
    """The step that is asked for; else a form that waits, or the step that failed last; empty for the run itself."""
    if asked is not None:
        return "" if asked == "-" else asked.replace("\0", "")
    found = await backend.row(_TELLING, of)
    return found["step"] if found else ""


async def _overview(backend: Backend, of: Mapping[str, str], run: Row) -> dict[str, Any]:
    known, listed, forks = await asyncio.gather(
        states(backend, of["tenant"], of["id"]),
        backend.rows(_LISTED.format(limit=EXECUTIONS), {**of, "parent": None, "item": None}),
        backend.rows(_FORKS, of),
    )
    drawing = await picture(backend, of["tenant"], run["app_id"], run["graph_digest"], known)
    longest = max((row["elapsed_time"] or 0.0 for row in listed), default=0.0)
    return {"picture": drawing, "listed": listed, "longest": longest, "forks": forks}


async def _panel(backend: Backend, of: Mapping[str, str], run: Row, step: str, request: Request) -> dict[str, Any]:
    """Details of a step, of an item of a container, or of the run itself."""
    found: dict[str, Any] = {"execution": None, "item": None, "items": [], "form": None, "values": [], "within": []}
    if not step:
        return found | {"values": _parts(run, ("inputs", "outputs", "conversation_variables"), "-")}
    if (execution := await backend.row(_STEP, {**of, "step": step})) is None:
        container, _, number = step.rpartition("/")
        around = await backend.row(_STEP, {**of, "step": container}) if number.isascii() and number.isdigit() else None
        if around is None:
            raise HTTPException(404, f"The run has no step {step[:100]}.")
        item = int(number[:9])
        inner = await backend.rows(_LISTED.format(limit=EXECUTIONS), {**of, "parent": around["id"], "item": item})
        return found | {"item": item, "execution": None, "container": around, "within": inner}
    forms = await backend.rows(_FORMS, of)
    return found | {
        "execution": execution,
        "form": next((_form(form) for form in forms if form["step"] == step), None),
        "items": await _items(backend, of, execution, request),
        "values": _parts(execution, ("inputs", "outputs"), step),
        "written": [(".".join(each["selector"]), _value(each["value"], "")) for each in execution["writes"]],
    }


def _form(row: Row) -> Row:
    """A form with its fields and buttons as far as they can be shown: graphs may describe strange ones."""
    asked = [_field(each, row["submitted_data"]) for each in row["inputs"] if isinstance(each, Mapping)]
    content = row["rendered_content"]
    for field in asked:
        content = content.replace("{{#$output." + field["name"] + "#}}", f"‹{field['name']}›")
    return row | {
        "content": content,
        "fields": asked,
        "buttons": [_button(each) for each in row["user_actions"] if isinstance(each, Mapping)],
    }


def _field(asked: Mapping[str, Any], given: Mapping[str, Any]) -> Row:
    name, source = str(asked.get("output_variable_name")), asked.get("option_source")
    options = source.get("value") if isinstance(source, Mapping) and asked.get("type") == "select" else None
    value = given.get(name, asked.get("default"))
    return {
        "name": name,
        "value": "" if value is None else value if isinstance(value, str) else pretty(value),
        "options": [str(each) for each in options] if isinstance(options, list) else [],
    }


def _button(action: Mapping[str, Any]) -> Row:
    id = str(action.get("id"))
    return {"id": id, "title": str(action.get("title") or id), "primary": action.get("button_style") == "primary"}


async def _items(backend: Backend, of: Mapping[str, str], execution: Row, request: Request) -> list[Row]:
    if execution["node_type"] not in ("iteration", "loop"):
        return []
    first = request.query_params.get("from", "")
    at = int(first[:9]) if first.isascii() and first.isdigit() else 0
    named = {**of, "parent": execution["id"], "first": at}
    return await backend.rows(_ITEMS.format(limit=ITEMS + 1), named)


def _parts(row: Row, names: tuple[str, ...], step: str) -> list[tuple[str, list[tuple[str, dict[str, Any]]]]]:
    """The values of columns, by name, as they are shown."""
    parts = []
    for name in names:
        at = {"step": step, "of": name}
        parts.append((name, [(key, _value(value, urlencode(at | {"name": key}))) for key, value in row[name].items()]))
    return parts


def _value(value: Mapping[str, Any], at: str) -> dict[str, Any]:
    """A recorded value; a large one is a blob, which has a page of its own."""
    if "blob" in value:
        return {"type": value["type"], "bytes": value["bytes"], "at": at, "shown": None}
    data = value.get("data")
    written = data if isinstance(data, str) else pretty(data)
    return {"type": value.get("type", ""), "bytes": 0, "at": at, "shown": shown(written), "text": isinstance(data, str)}


async def value(request: Request) -> Response:
    """A value as a whole, as plain text of any length."""
    backend: Backend = request.app.state.backend
    of = {"tenant": tenant(request), "id": request.path_params["run"]}
    query = request.query_params
    step, name, column = query.get("step", "-"), query.get("name", ""), query.get("of", "")
    row = await backend.row(_RUN, of) if step == "-" else await backend.row(_STEP, of | {"step": step})
    if row is None or column not in ("inputs", "outputs", "conversation_variables") or name not in row.get(column, {}):
        raise HTTPException(404, "There is no such value.")
    found = await _whole(backend, of["tenant"], row["person_id"], row[column][name])
    return PlainTextResponse(found.encode("utf-8", "replace"), headers={"Content-Disposition": "inline"})


async def _whole(backend: Backend, of: str, person: str | None, value: Mapping[str, Any]) -> str:
    data = value.get("data")
    if "blob" in value:
        if backend.files is None:
            raise HTTPException(404, "There is no such value.")
        try:
            data = json.loads(await backend.files.get(of, person, "value", value["blob"]))
        except (KeyError, ValueError):
            raise HTTPException(404, "The value is gone: the person whose words it held was erased.") from None
        except Unavailable as error:
            raise HTTPException(503, f"The value cannot be read now: {error}") from error
    return data if isinstance(data, str) else pretty(data)


# --- what is done with it --------------------------------------------------------------------------------------


async def stop(request: Request) -> Response:
    return await _sent(request, "run.stop", {"run": request.path_params["run"]}, "")


async def answer(request: Request) -> Response:
    """Answer a form that waits."""
    form, run = await fields(request), request.path_params["run"]
    given = {name.removeprefix("field."): text(form, name) for name in form if name.startswith("field.")}
    step = text(form, "step")
    payload = {"run": run, "step": step, "action": text(form, "action"), "fields": given}
    return await _sent(request, "run.answer", payload, step)


async def retry(request: Request) -> Response:
    """Go on from the steps that failed, in a new run."""
    return await _sent(request, "run.retry", {"source": request.path_params["run"]}, "")


async def fork(request: Request) -> Response:
    """Run again from a node on, in a new run; it may take the graph of the draft."""
    form, run = await fields(request), request.path_params["run"]
    payload = {"source": run, "step": text(form, "step"), "draft": text(form, "graph") == "draft"}
    return await _sent(request, "run.fork", payload, "")


async def _sent(request: Request, command: str, payload: Mapping[str, Any], step: str) -> Response:
    outcome = await (await client(request)).send(command, dict(payload))
    if outcome["status"] == "rejected":
        if outcome.get("code") == "not_found" and outcome.get("field") in ("run", "source"):
            raise HTTPException(404, rejection(outcome))
        return await show(request, rejection(outcome))
    await seen(request.app.state.backend, [outcome])
    run = outcome["ids"].get("run", request.path_params["run"])
    return RedirectResponse(link(request, f"/workflows/runs/{run}", step=step), 303)


routes = [
    Route("/workflows/runs/{run}", show),
    Route("/workflows/runs/{run}/value", value),
    Route("/workflows/runs/{run}/stop", stop, methods=["POST"]),
    Route("/workflows/runs/{run}/answer", answer, methods=["POST"]),
    Route("/workflows/runs/{run}/retry", retry, methods=["POST"]),
    Route("/workflows/runs/{run}/fork", fork, methods=["POST"]),
]
