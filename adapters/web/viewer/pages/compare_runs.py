"""Two runs of workflows side by side: states, times, and outputs that differ, step by step."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from adapters.web.viewer import prompts
from adapters.web.viewer.backend import Backend, Row
from adapters.web.viewer.format import pretty
from adapters.web.viewer.prompts import Difference
from adapters.web.viewer.render import as_json, render, tenant, wants_json

STEPS, TEXTS = 300, 20
"""Maximum numbers of compared steps, and of outputs whose difference is shown."""

_RUN = """
SELECT r.*, a.name AS app FROM headrace.workflow_runs r
LEFT JOIN headrace.apps a ON (a.tenant_id, a.id) = (r.tenant_id, r.app_id)
WHERE r.tenant_id = %(tenant)s AND r.id = %(id)s
"""

_STEPS = """
WITH old AS (
    SELECT * FROM headrace.workflow_node_executions
    WHERE tenant_id = %(tenant)s AND workflow_run_id = %(a)s ORDER BY index LIMIT {limit}
), new AS (
    SELECT * FROM headrace.workflow_node_executions
    WHERE tenant_id = %(tenant)s AND workflow_run_id = %(b)s ORDER BY index LIMIT {limit}
)
SELECT step, coalesce(old.title, new.title) AS title, coalesce(old.node_type, new.node_type) AS node_type,
    old.status AS old_status, new.status AS new_status, old.elapsed_time * 1000 AS old_ms,
    new.elapsed_time * 1000 AS new_ms, new.kept, old.error AS old_error, new.error AS new_error,
    old.outputs IS DISTINCT FROM new.outputs AS differs,
    CASE WHEN old.outputs IS DISTINCT FROM new.outputs THEN old.outputs END AS old_outputs,
    CASE WHEN old.outputs IS DISTINCT FROM new.outputs THEN new.outputs END AS new_outputs
FROM old FULL JOIN new USING (step) ORDER BY coalesce(old.index, new.index), new.index, step
"""


@dataclass(frozen=True)
class Output:
    """An output that differs, or that only one of the runs has; large ones are compared by their digests."""

    name: str
    difference: Difference


async def _outputs(old: Row | None, new: Row | None) -> list[Output]:
    before, after = old or {}, new or {}
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    texts = [(_written(before.get(name)), _written(after.get(name))) for name in names]
    found = await asyncio.gather(*(prompts.difference(*pair) for pair in texts))
    return [Output(name, difference) for name, difference in zip(names, found, strict=True)]


def _written(value: Any) -> str:
    if value is None:
        return ""
    if "blob" in value:
        return f"{value['bytes']} bytes, {value['blob']}"
    data = value.get("data")
    return data if isinstance(data, str) else pretty(data)


async def show(request: Request) -> Response:
    backend: Backend = request.app.state.backend
    of, query = tenant(request), request.query_params
    chosen = dict(zip(("b", "a"), query.getlist("run"), strict=False))  # lists begin with the newest
    ids = [query.get(name, chosen.get(name, "")).strip("\0 ") for name in ("a", "b")]
    if not all(ids):
        return render(request, "compare_runs.html", {"old": None, "new": None, "ids": ids})
    runs = [await backend.row(_RUN, {"tenant": of, "id": id}) for id in ids]
    for run, id in zip(runs, ids, strict=True):
        if run is None:
            raise HTTPException(404, f"There is no run {id[:60]}.")
    old, new = runs
    assert old
    assert new
    steps = await backend.rows(_STEPS.format(limit=STEPS), {"tenant": of, "a": ids[0], "b": ids[1]})
    if wants_json(request):
        return as_json({"a": old, "b": new, "steps": steps})
    differing = [row for row in steps if row["differs"] and row["old_status"] and row["new_status"]]
    for row in steps:
        row["outputs"] = await _outputs(row["old_outputs"], row["new_outputs"]) if row in differing[:TEXTS] else []
    given = {"old": old, "new": new, "ids": ids, "steps": steps, "most": STEPS, "texts": TEXTS}
    return render(request, "compare_runs.html", given | {"cut": len(differing) > TEXTS})


routes = [Route("/workflows/compare", show)]
