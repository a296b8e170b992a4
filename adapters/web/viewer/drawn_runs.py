"""A graph with the states of its nodes in a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from adapters.web.viewer.backend import Backend, Row
from adapters.web.viewer.graph_layout import Box, Drawing, Place, Way, drawn, places_of
from domain.aggregate import Rejection
from domain.workflows.graph import INNER_STARTS, SOURCE, Graph
from handlers.ports.log import Unavailable

WORST = ("failed", "waiting", "running", "retried", "stopped", "exception", "succeeded", "skipped")
"""States, that of a node first which has several."""

TITLE = 25
"""Maximum length of a title in a drawing, in characters."""

_STATES = """
SELECT node_id, status, count(*) AS times, max(tries) AS tries, min(step) AS step, min(started_at) AS began,
    sum(elapsed_time) * 1000 AS took_ms, bool_and(kept) AS kept,
    array_remove(array_agg(DISTINCT coalesce(handle, '')), NULL) AS handles
FROM headrace.workflow_node_executions WHERE tenant_id = %(tenant)s AND workflow_run_id = %(id)s
GROUP BY node_id, status
"""

_PLACES = """
SELECT graph FROM headrace.workflows WHERE tenant_id = %(tenant)s AND app_id = %(app)s AND graph_digest = %(digest)s
ORDER BY number DESC LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class State:
    """All executions of a node in a run; `step` is that of the first one in the worst state."""

    status: str
    times: int
    tries: int
    took_ms: float | None
    step: str
    kept: bool
    counts: dict[str, int]
    handles: frozenset[str]


@dataclass(frozen=True, slots=True)
class Shown:
    """A node of a drawing; without a state, the run has not come to it."""

    box: Box
    title: str
    state: State | None
    is_begin: bool


@dataclass(frozen=True, slots=True)
class Picture:
    nodes: Sequence[Shown]
    ways: Sequence[tuple[Way, bool]]
    """Each with whether the run took it."""
    width: float
    height: float


async def states(backend: Backend, tenant: str, run: str) -> dict[str, State]:
    """The states of the nodes of a run."""
    rows = defaultdict(list)
    for row in await backend.rows(_STATES, {"tenant": tenant, "id": run}):
        rows[row["node_id"]].append(row)
    return {node: _state(found) for node, found in rows.items()}


def _state(rows: Sequence[Row]) -> State:
    worst = min(rows, key=lambda row: WORST.index(row["status"]))
    times = {row["status"]: row["times"] for row in rows}
    took = [row["took_ms"] for row in rows if row["took_ms"] is not None]
    return State(
        status=worst["status"],
        times=sum(times.values()),
        tries=max(row["tries"] for row in rows),
        took_ms=sum(took) if took else None,
        step=worst["step"],
        kept=all(row["kept"] for row in rows),
        counts=times,
        handles=frozenset(handle for row in rows for handle in row["handles"] if row["status"] != "skipped"),
    )


async def picture(
    backend: Backend, tenant: str, app: str, digest: str, known: dict[str, State] | None = None
) -> Picture | None:
    """The drawing of a graph; None for one that is gone, out of reach or too large."""
    try:
        graph = await backend.graphs.get(tenant, digest)
    except (KeyError, Rejection, Unavailable):  # the lists of the page tell all of it, too
        return None
    row = await backend.row(_PLACES, {"tenant": tenant, "app": app, "digest": digest})
    return _picture(graph, places_of(row["graph"]) if row else {}, known or {})


def _picture(graph: Graph, places: dict[str, Place], known: dict[str, State]) -> Picture | None:
    drawing: Drawing | None = drawn(graph, places)
    if drawing is None:
        return None
    return Picture(
        [_shown(box, known) for box in drawing.boxes],
        [(way, _taken(way, graph, known)) for way in drawing.ways],
        drawing.width,
        drawing.height,
    )


def _shown(box: Box, known: dict[str, State]) -> Shown:
    title = " ".join((box.node.title or box.node.id).split())
    cut = title if len(title) <= TITLE else f"{title[: TITLE - 1]}…"
    return Shown(box, cut, known.get(box.node.id), box.node.type in INNER_STARTS)


def _taken(way: Way, graph: Graph, known: dict[str, State]) -> bool:
    """An execution left its node by this way, and the next one was reached."""
    target = known.get(way.edge.target)
    if target is None or target.status == "skipped":
        return False
    source = known.get(way.edge.source)
    if source is None:  # nodes that begin a container have no executions
        return graph.nodes[way.edge.source].type in INNER_STARTS
    handles: Iterable[str] = source.handles
    return way.edge.handle in handles or ("" in handles and way.edge.handle == SOURCE)
