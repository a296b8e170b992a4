"""Two traces side by side: spans, requests with the state that produced them, and answers."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from adapters.web.viewer import prompts
from adapters.web.viewer.backend import Backend, Row
from adapters.web.viewer.prompts import Difference, Segment, Setting
from adapters.web.viewer.render import as_json, render, tenant, wants_json

SPANS = 500
"""Maximum number of compared spans, from the first on."""

CALLS = 10
"""Maximum number of compared calls of chat models, up to the last."""

_TRACE = """
SELECT t.*, apps.name AS app FROM headrace.traces t
LEFT JOIN headrace.apps ON (apps.tenant_id, apps.id) = (t.tenant_id, t.app_id)
WHERE t.tenant_id = %(tenant)s AND t.id = %(id)s
"""

_SPANS = """
SELECT id, parent_id, kind, name, status, started_at, duration_ms, first_token_ms, model, prompt_tokens,
    completion_tokens, cost, error_code
FROM headrace.spans WHERE tenant_id = %(tenant)s AND trace_id = %(id)s ORDER BY sequence, started_at, id LIMIT {limit}
"""

_CALLS = """
SELECT call.*, sent.request, sent.sources FROM (
    SELECT * FROM headrace.model_calls WHERE tenant_id = %(tenant)s AND correlation_id = %(id)s AND kind = 'chat'
    ORDER BY created_at DESC, id DESC LIMIT {limit}
) call CROSS JOIN LATERAL headrace.put_together(call.tenant_id, call.request) sent
ORDER BY created_at DESC, id DESC
"""


@dataclass(frozen=True)
class Pair:
    """Matching spans; None where only the other trace has one."""

    depth: int
    old: Row | None
    new: Row | None


@dataclass(frozen=True)
class Calls:
    """Matching calls of chat models; None where only the other trace has one."""

    old: Row | None
    new: Row | None
    settings: list[Setting]
    segments: list[Segment]
    prompt: Difference | None
    answer: Difference | None


def matched(old: list[Row], new: list[Row]) -> list[Pair]:
    """The spans of two traces in order, matched by kind and depth."""
    before, after = _in_order(old), _in_order(new)
    keys, others = ([(depth, span["kind"]) for depth, span in spans] for spans in (before, after))
    pairs: list[Pair] = []
    for tag, i, j, k, m in SequenceMatcher(None, keys, others, autojunk=False).get_opcodes():
        if tag == "equal":
            pairs += [
                Pair(depth, span, other) for (depth, span), (_, other) in zip(before[i:j], after[k:m], strict=True)
            ]
        else:
            pairs += [Pair(depth, span, None) for depth, span in before[i:j]]
            pairs += [Pair(depth, None, span) for depth, span in after[k:m]]
    return pairs


def _in_order(spans: list[Row]) -> list[tuple[int, Row]]:
    """The tree from top to bottom: depth and span."""
    known = {span["id"] for span in spans}
    children = defaultdict(list)
    for span in spans:
        children[span["parent_id"] if span["parent_id"] in known else None].append(span)
    found: list[tuple[int, Row]] = []
    waiting = [(0, span) for span in reversed(children[None])]
    while waiting:
        depth, span = waiting.pop()
        found.append((depth, span))
        waiting += [(depth + 1, child) for child in reversed(children[span["id"]])]
    return found


async def _calls(backend: Backend, of: str, old: Row | None, new: Row | None) -> Calls:
    if old is None or new is None:
        return Calls(old, new, [], [], None, None)
    segments, prompt, answer = await asyncio.gather(
        prompts.segments(backend, of, old, new),
        prompts.difference(prompts.written(old), prompts.written(new)),
        prompts.difference(old["response"], new["response"]),
    )
    return Calls(old, new, prompts.settings(old, new), segments, prompt, answer)


async def show(request: Request) -> Response:
    backend: Backend = request.app.state.backend
    of = tenant(request)
    chosen = dict(zip(("b", "a"), request.query_params.getlist("trace"), strict=False))  # lists begin with the newest
    ids = [request.query_params.get(name, chosen.get(name, "")).strip("\0 ") for name in ("a", "b")]
    if not all(ids):
        return render(request, "compare.html", {"old": None, "new": None, "ids": ids})
    traces, spans, calls = [], [], []
    for id in ids:
        values = {"tenant": of, "id": id}
        trace = await backend.row(_TRACE, values)
        if trace is None:
            raise HTTPException(404, f"There is no trace {id[:60]}.")
        traces.append(trace)
        spans.append(await backend.rows(_SPANS.format(limit=SPANS), values))
        calls.append((await backend.rows(_CALLS.format(limit=CALLS), values))[::-1])
    pairs = matched(*spans)
    # The last call gives the answer, so calls are matched from the end.
    both = list(zip_longest(reversed(calls[0]), reversed(calls[1])))[::-1]
    compared = [await _calls(backend, of, old, new) for old, new in both]
    if wants_json(request):
        return as_json({"a": traces[0], "b": traces[1], "spans": pairs, "calls": compared})
    given: dict[str, Any] = {
        "most": SPANS,
        "most_calls": CALLS,
        "ids": ids,
        "old": traces[0],
        "new": traces[1],
        "pairs": pairs,
        "calls": compared,
    }
    return render(request, "compare.html", given)


routes = [Route("/compare", show)]
