"""One trace: its spans as a tree with bars, and details of the selected span."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from adapters.jetstream.client import rejection
from adapters.web.viewer.backend import Backend, Row, Stored
from adapters.web.viewer.changes import seen
from adapters.web.viewer.pages import files
from adapters.web.viewer.render import as_json, link, problem, render, tenant, wants_json
from adapters.web.viewer.sender import client
from adapters.web.viewer.sources import shown
from adapters.web.viewer.waterfall import waterfall
from handlers.ports.log import Unavailable
from projections.document_segments import TEXTS
from projections.values.prices import Call, Prices

CHAIN = 24
"""Maximum number of commits that are read for one page."""

SPANS = 50_000
"""Maximum number of spans of a trace that are read, from the first on."""

RAW = 30_000
"""Maximum length of a commit's JSON on the page, in characters; the whole has a page of its own."""

_TRACE = """
SELECT t.*, apps.name AS app, documents.name AS document
FROM headrace.traces t
LEFT JOIN headrace.apps ON (apps.tenant_id, apps.id) = (t.tenant_id, t.app_id)
LEFT JOIN headrace.documents ON (documents.tenant_id, documents.id) = (t.tenant_id, t.document_id)
WHERE t.tenant_id = %(tenant)s AND t.id = %(id)s
"""
_SPANS = """
SELECT id, parent_id, kind, name, status, started_at, ended_at, duration_ms, first_token_ms, attempt, noun, noun_id,
    model_call_id, tool_call_id, retrieval_id, provider, model, prompt_tokens, completion_tokens, cost, error_code,
    causation_id, sequence, ended_sequence
FROM headrace.spans WHERE tenant_id = %(tenant)s AND trace_id = %(id)s ORDER BY started_at, sequence, id LIMIT {limit}
"""
_SPAN = """
SELECT error, fingerprint, attributes, traceparent FROM headrace.spans
WHERE tenant_id = %(tenant)s AND trace_id = %(trace)s AND id = %(id)s
"""
_ELSEWHERE = """
SELECT trace_id, id AS span FROM headrace.spans WHERE tenant_id = %(tenant)s AND id = %(id)s
UNION ALL
SELECT correlation_id, id FROM headrace.model_calls WHERE tenant_id = %(tenant)s AND id = %(id)s
UNION ALL
SELECT trace_id, '' FROM headrace.messages WHERE tenant_id = %(tenant)s AND id = %(id)s
UNION ALL
SELECT trace_id, '' FROM headrace.documents WHERE tenant_id = %(tenant)s AND id = %(id)s
LIMIT 1
"""
MISSING = "A text is missing that this message quotes: headrace verify names it."
_CALL = """
SELECT c.*, sent.request, sent.sources, p.base_url, p.has_key
FROM headrace.model_calls c CROSS JOIN LATERAL headrace.put_together(c.tenant_id, c.request) sent
LEFT JOIN headrace.providers p ON (p.tenant_id, p.id) = (c.tenant_id, c.provider)
WHERE c.tenant_id = %(tenant)s AND c.id = %(id)s AND c.correlation_id = %(trace)s
"""
_TOOL = """
SELECT * FROM headrace.tool_calls WHERE tenant_id = %(tenant)s AND id = %(id)s AND correlation_id = %(trace)s
"""
_ROUNDS = """
SELECT id, tool AS name, position AS round, tool_input AS arguments, tool_meta ->> 'status' AS status,
    tool_meta ->> 'error_code' AS error_code, observation, message_chain_id AS model_call_id, thought
FROM headrace.message_agent_thoughts WHERE tenant_id = %(tenant)s AND message_id = %(id)s
ORDER BY position, created_at, call_position
"""
_RETRIEVAL = "SELECT * FROM headrace.retrievals WHERE tenant_id = %(tenant)s AND id = %(id)s"
_DOCUMENTS = "SELECT id, name FROM headrace.documents WHERE tenant_id = %(tenant)s AND id = ANY(%(ids)s)"
_DATASETS = "SELECT id, name FROM headrace.datasets WHERE tenant_id = %(tenant)s AND id = ANY(%(ids)s)"
_MESSAGES = "SELECT id, trace_id FROM headrace.messages WHERE tenant_id = %(tenant)s AND id = ANY(%(ids)s)"
_MESSAGE = """
SELECT m.*, f.rating, f.content AS said FROM headrace.messages m
LEFT JOIN headrace.message_feedbacks f ON (f.tenant_id, f.message_id) = (m.tenant_id, m.id)
WHERE m.tenant_id = %(tenant)s AND m.id = %(id)s
"""
_CHECKS = """
SELECT * FROM headrace.message_moderations WHERE tenant_id = %(tenant)s AND message_id = %(id)s
ORDER BY attempt, started_at, side, position
"""
_HIT = """
SELECT h.annotation_id, h.score, h.embedding_model, a.question FROM headrace.app_annotation_hit_histories h
LEFT JOIN headrace.message_annotations a ON (a.tenant_id, a.id) = (h.tenant_id, h.annotation_id)
WHERE h.tenant_id = %(tenant)s AND h.message_id = %(id)s
"""
_COMMAND = "SELECT * FROM headrace.commands WHERE tenant_id = %(tenant)s AND id = %(id)s"


async def show(request: Request) -> Response:
    backend: Backend = request.app.state.backend
    of = {"tenant": tenant(request), "id": request.path_params["id"]}
    trace, spans = await asyncio.gather(backend.row(_TRACE, of), backend.rows(_SPANS.format(limit=SPANS), of))
    if trace is None:
        return await _elsewhere(request, of)
    if wants_json(request):
        return as_json({"trace": trace, "spans": spans})
    now = datetime.now(UTC)
    by_id = {span["id"]: span for span in spans}
    asked = request.query_params.get("span")
    selected = by_id.get(asked or "", {}) if asked is not None else _telling(spans)
    part = request.query_params.get("part")
    given: dict[str, Any] = {
        "trace": trace,
        "selected": selected.get("id", ""),
        "span": selected or None,
        "live": trace["status"] in ("running", "held") or bool(trace["open_calls"]),
        "now": now,
        "base": f"/traces/{trace['id']}",
        "cut": len(spans) == SPANS,
    }
    if part != "panel":
        given["fall"] = waterfall(trace, spans, now, selected=given["selected"], unfold=_unfolded(request))
    if part != "tree":
        given |= await _panel(backend, trace, by_id, selected)
    template = {"panel": "trace_panel.html", "tree": "trace_live.html"}.get(part or "", "trace.html")
    return render(request, template, given)


async def _elsewhere(request: Request, of: Mapping[str, str]) -> Response:
    """Redirect from the id of a span, a call, a message or a document to its trace."""
    found = await request.app.state.backend.row(_ELSEWHERE, of)
    if found is None or not found["trace_id"] or found["trace_id"] == of["id"]:
        raise HTTPException(404, f"There is no trace {of['id'][:100]}")
    return RedirectResponse(link(request, f"/traces/{found['trace_id']}", span=found["span"]), 303)


def _telling(spans: Sequence[Row]) -> Row:
    """The initially selected span: a call that waits for a person, a failed call, else the last call of a chat model;
    {}: the trace itself."""
    if held := [span for span in spans if span["tool_call_id"] and span["status"] == "held"]:
        return held[0]
    calls = [span for span in spans if span["model_call_id"]]
    wrong = [span for span in calls if span["status"] in ("error", "unknown")]
    chats = [span for span in calls if span["kind"] == "chat"]
    return (chats or wrong or [{}])[-1] if not wrong or (chats and chats[-1]["status"] == "ok") else wrong[-1]


def _unfolded(request: Request) -> dict[str, int]:
    """The values of `?unfold=<span>:<number>`, which may be repeated."""
    found = {}
    for text in request.query_params.getlist("unfold")[:20]:
        span, _, number = text.rpartition(":")
        if number.isascii() and number.isdigit():
            found[span] = int(number[:9])
    return found


# --- the panel ------------------------------------------------------------------------------------------------


async def _panel(backend: Backend, trace: Row, by_id: Mapping[str, Row], span: Row) -> dict[str, Any]:
    """Details of a span, or of the trace itself."""
    of = trace["tenant_id"]
    more, call, tool, retrieval, message, chain = await asyncio.gather(
        _more(backend, trace, span),
        _call(backend, trace, span),
        _tool(backend, trace, span),
        _retrieval(backend, of, span),
        _message(backend, trace, span),
        _chain(backend, trace, by_id, span),
    )
    if span:
        span |= more
    return {"call": call, "tool": tool, "retrieval": retrieval, "message": message, "chain": chain}


async def _more(backend: Backend, trace: Row, span: Row) -> Row:
    if not span:
        return {}
    of = {"tenant": trace["tenant_id"], "trace": trace["id"], "id": span["id"]}
    return await backend.row(_SPAN, of) or {"error": None, "fingerprint": None, "attributes": {}, "traceparent": None}


async def _call(backend: Backend, trace: Row, span: Row) -> Row | None:
    if not span or not span["model_call_id"]:
        return None
    of = {"tenant": trace["tenant_id"], "trace": trace["id"], "id": span["model_call_id"]}
    call = await backend.row(_CALL, of)
    if call is None:
        return None
    request = call["request"] or {}
    messages = request.get("messages") or []
    sources = await _named(backend, call)
    call["messages"] = [
        {
            "role": message["role"],
            "text": shown(text := MISSING if message["content"] is None else message["content"], mine),
            "full": len(text),
            "sources": mine,
            "files": await files.of_prompt(backend, call["tenant_id"], message.get("files") or []),
            "tool_calls": message.get("tool_calls") or [],
            "tool_call_id": message.get("tool_call_id"),
        }
        for index, message in enumerate(messages)
        for mine in [[source for source in sources if source["message"] == index]]
    ]
    call["answer"] = shown(call["response"] or "")
    call["reasoned"] = shown(call["reasoning"] or "")
    texts = request.get("texts") or []
    call["texts"] = list(texts.values()) if isinstance(texts, dict) else texts
    call["scored"] = await _scored(backend, call) if call["kind"] == "rerank" else []
    said = ("messages", "texts", "query", "segments")
    call["parameters"] = {name: value for name, value in request.items() if name not in said and value is not None}
    call["sum"] = arithmetic(call, backend.prices)
    is_text = bool(messages) and not any(message.get("files") for message in messages)
    call["curl"] = curl(call) if call["kind"] == "chat" and call["base_url"] and is_text else None
    return call


async def _tool(backend: Backend, trace: Row, span: Row) -> Row | None:
    """The call of a tool, with the files that it made."""
    if not span or not span["tool_call_id"]:
        return None
    call = await backend.row(_TOOL, {"tenant": trace["tenant_id"], "trace": trace["id"], "id": span["tool_call_id"]})
    if call is None:
        return None
    call["asked"], call["observed"] = shown(call["arguments"]), shown(call["result"])
    made = [(number, part) for number, part in enumerate(call["parts"]) if part["type"] in ("file", "image")]
    call["files"] = [files.made(trace["id"], call["id"], number, part) for number, part in made]
    return call


async def _rounds(backend: Backend, of: Mapping[str, Any]) -> list[Row]:
    """The rounds of an agent: the thought of each, and its calls of tools."""
    rounds: dict[str, Row] = {}
    for row in await backend.rows(_ROUNDS, of):
        first = {"number": row["round"], "call": row["model_call_id"], "thought": row["thought"], "tools": []}
        rounds.setdefault(row["model_call_id"], first)["tools"].append(row)
    return list(rounds.values())


async def _scored(backend: Backend, call: Row) -> list[Row]:
    """The segments of a reranking, ordered by score, which is None before the answer."""
    ids = (call["request"] or {}).get("segments") or []
    scores = orjson.loads(call["response"]) if call["status"] == "completed" and call["response"] else []
    rows = await backend.rows(TEXTS, {"tenant": call["tenant_id"], "ids": ids})
    known = {row["id"]: row for row in rows}
    gone = {"document": None, "page": None, "heading": None, "content": None}
    found = [
        {**known.get(id, gone), "number": number, "score": score}
        for number, (id, score) in enumerate(zip_longest(ids, scores[: len(ids)]), 1)
    ]
    return sorted(found, key=lambda segment: (segment["score"] is None, -(segment["score"] or 0.0)))


_UNSAID = {"score": None, "rank": None, "configuration": None, "name": ""}
"""Optional fields of a source."""

_GONE = {"document": None, "page": None, "heading": None, "trace_id": None}
"""The row of something that is gone."""


async def _named(backend: Backend, call: Row) -> list[dict[str, Any]]:
    """The sources of a call, numbered, with names of apps and documents."""
    sources = [
        {**_UNSAID, **source, "number": number}
        for number, source in enumerate(call["sources"] or [])
        if isinstance(source, dict) and {"message", "start", "end", "from"} <= source.keys()
    ]
    segments = [source["segment"] for source in sources if source.get("segment")]
    earlier = [source["message_id"] for source in sources if source["from"] == "history" and source.get("message_id")]
    of = call["tenant_id"]
    found: dict[str, Row] = {}
    if segments:
        documents = [source.get("document") for source in sources if source.get("document")]
        rows, named = await asyncio.gather(
            backend.rows(TEXTS, {"tenant": of, "ids": segments}),
            backend.rows(_DOCUMENTS, {"tenant": of, "ids": documents}),
        )
        found |= {row["id"]: row for row in [*named, *rows]}
    if earlier:
        found |= {row["id"]: row for row in await backend.rows(_MESSAGES, {"tenant": of, "ids": earlier})}
    for source in sources:
        source["row"] = _GONE | found.get(source.get("segment") or source.get("message_id") or "", {})
        named = found.get(source.get("document") or "", {}).get("name") or (
            source["from"] == "segment" and source["name"]
        )
        source["document_name"] = source["row"]["document"] or named or None
    return sources


def arithmetic(call: Row, prices: Prices) -> dict[str, Any] | None:
    """The parts of a call's cost: tokens, dollars per million, dollars; None without a cost.

    `lines` is empty when they would not add up to the stored cost, which was computed with other prices.
    """
    if call["cost"] is None or call["prompt_tokens"] is None:
        return None
    which = Call(call["provider"], call["server"] or "", call["model"], call["created_at"])
    cached, written = call["cached_tokens"] or 0, call["cache_write_tokens"] or 0
    none = {"prompt_tokens": 0, "completion_tokens": 0, "cached_tokens": None, "cache_write_tokens": None}
    parts = [
        ("Prompt", {"prompt_tokens": call["prompt_tokens"] - cached - written}),
        ("Prompt, from the cache", {"prompt_tokens": cached, "cached_tokens": cached}),
        ("Prompt, into the cache", {"prompt_tokens": written, "cache_write_tokens": written}),
        ("Answer", {"completion_tokens": call["completion_tokens"] or 0}),
    ]
    lines = []
    for name, usage in parts:
        tokens = max(usage.values())
        if tokens > 0:
            amount = prices.cost(which, none | usage, call["entry_prices"]).amount
            if amount is not None:
                lines.append({"name": name, "tokens": tokens, "million": amount / tokens * 1e6, "amount": amount})
    total = sum(line["amount"] for line in lines)
    agrees = abs(total - call["cost"]) <= 1e-9 + 1e-6 * abs(call["cost"])
    return {"lines": lines if agrees else [], "total": call["cost"], "version": call["price_version"]}


def curl(call: Row) -> str:
    """The request of a call as a shell command, without the key."""
    request = call["request"]
    body = {
        **(request.get("parameters") or {}),
        "model": call["model"],
        "messages": [_as_openai(message) for message in request["messages"]],
        "max_tokens": request.get("max_tokens"),
    }
    data = orjson.dumps({name: value for name, value in body.items() if value is not None}, option=orjson.OPT_INDENT_2)
    base, mark, query = call["base_url"].partition("?")
    base = base.rstrip("/").removesuffix("/chat/completions")
    lines = [f"curl {shlex.quote(f'{base}/chat/completions{mark}{query}')}"]
    if call["has_key"]:
        lines.append('-H "Authorization: Bearer $API_KEY"')
    lines += ["-H 'Content-Type: application/json'", f"--data-binary {shlex.quote(data.decode())}"]
    return " \\\n  ".join(lines) + "\n"


def _as_openai(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message in the form of OpenAI, without its files."""
    sent = {name: message[name] for name in ("role", "content", "tool_call_id") if name in message}
    if calls := message.get("tool_calls"):
        functions = [{"name": call["name"], "arguments": call["arguments"]} for call in calls]
        ids = [call["id"] for call in calls]
        sent["tool_calls"] = [
            {"id": id, "type": "function", "function": function} for id, function in zip(ids, functions, strict=True)
        ]
    return sent


async def _retrieval(backend: Backend, of: str, span: Row) -> Row | None:
    if not span or not span["retrieval_id"]:
        return None
    found = await backend.row(_RETRIEVAL, {"tenant": of, "id": span["retrieval_id"]})
    if found is None:
        return None
    hits = found["hits"] or []
    segments, documents, datasets = await asyncio.gather(
        backend.rows(TEXTS, {"tenant": of, "ids": [hit["segment"] for hit in hits]}),
        backend.rows(_DOCUMENTS, {"tenant": of, "ids": list({hit["document"] for hit in hits})}),
        backend.rows(_DATASETS, {"tenant": of, "ids": found["datasets"] or []}),
    )
    texts = {row["id"]: row["content"] for row in segments}
    names = {row["id"]: row["name"] for row in documents}
    for hit in hits:
        hit["text"], hit["document_name"] = texts.get(hit["segment"]), names.get(hit["document"])
    found["hits"] = sorted(hits, key=lambda hit: (hit["rank"] is None, hit["rank"] or 0))
    known = {row["id"]: row["name"] for row in datasets}
    found["datasets"] = [{"id": id, "name": known.get(id)} for id in found["datasets"] or []]
    return found


async def _message(backend: Backend, trace: Row, span: Row) -> Row | None:
    """The message that the trace answers, for the trace itself and the spans of its answer."""
    if not trace["message_id"] or (span and span["kind"] not in ("handler", "chat", "moderation")):
        return None
    of = {"tenant": trace["tenant_id"], "id": trace["message_id"]}
    message, checks, hit, rounds = await asyncio.gather(
        backend.row(_MESSAGE, of), backend.rows(_CHECKS, of), backend.row(_HIT, of), _rounds(backend, of)
    )
    if message is not None:
        message["checks"], message["hit"], message["rounds"] = checks, hit, rounds
        message["asked"], message["answered"] = shown(message["query"]), shown(message["answer"])
        message["files"] = await files.of_message(backend, trace["tenant_id"], message["id"])
    return message


# --- what caused it -------------------------------------------------------------------------------------------


async def _chain(backend: Backend, trace: Row, by_id: Mapping[str, Row], span: Row) -> dict[str, Any]:
    """The command, then the commits that led to the span, or to all spans, as stored in the log."""
    way, at = list[Row](), span
    while at and at not in way:
        way.insert(0, at)
        at = by_id.get(at["parent_id"] or "", {})
    places = [trace["sequence"], trace["ended_sequence"]]
    for step in way or by_id.values():
        places += [step["sequence"], step["ended_sequence"]]
    wanted = sorted({place for place in places if place})[:CHAIN]
    command = await backend.row(_COMMAND, {"tenant": trace["tenant_id"], "id": trace["id"]})
    mine = {span.get("sequence"), span.get("ended_sequence")} if span else set[int]()
    try:
        stored = await backend.commits(wanted)
    except Unavailable as error:
        return {"command": command, "commits": [], "mine": mine, "away": str(error)}
    owned = [commit for commit in stored if commit.subject.split(".", 2)[1] == trace["tenant_id"]]
    return {"command": command, "commits": [_written(commit) for commit in owned], "mine": mine, "away": ""}


def _written(commit: Stored) -> dict[str, Any]:
    body = orjson.dumps(commit.events, option=orjson.OPT_INDENT_2).decode()
    return {
        "sequence": commit.sequence,
        "subject": commit.subject,
        "at": datetime.fromisoformat(commit.at),
        "types": [event["type"] for event in commit.events],
        "headers": commit.headers,
        "sealed": any("sealed" in event for event in commit.events),
        "json": body[:RAW],
        "left_out": max(0, len(body) - RAW),
    }


async def stored(request: Request) -> Response:
    """A commit as stored in the log: sequence, headers, events."""
    place, of = request.path_params["sequence"], tenant(request)
    found = await request.app.state.backend.commits([place])
    if not found or found[0].subject.split(".", 2)[1] != of:
        raise HTTPException(404, f"Tenant {of} has nothing at {place} of the log")
    commit = found[0]
    fields = {name: getattr(commit, name) for name in ("sequence", "subject", "at", "headers", "events")}
    return Response(orjson.dumps(fields, option=orjson.OPT_INDENT_2), media_type="application/json")


# --- texts as a whole, and ratings ----------------------------------------------------------------------------


async def text(request: Request) -> Response:
    """A message of a call, its reasoning or its answer, as plain text of any length."""
    of = {"tenant": tenant(request), "trace": request.path_params["id"], "id": request.path_params["call"]}
    call = await request.app.state.backend.row(_CALL, of)
    which = request.path_params["which"]
    found = None
    if call is not None and which in ("answer", "reasoning"):
        found = call["response" if which == "answer" else which]
    elif call is not None and which.isascii() and which.isdigit() and len(which) < 7:
        messages = (call["request"] or {}).get("messages") or []
        found = messages[int(which)]["content"] or "" if int(which) < len(messages) else None
    if found is None:
        raise HTTPException(404, "There is no such text")
    return PlainTextResponse(found.encode("utf-8", "replace"), headers={"Content-Disposition": "inline"})


RATINGS = {"like": "like", "dislike": "dislike", "none": None}


async def rate(request: Request) -> Response:
    """Rate the answer, by a command."""
    backend: Backend = request.app.state.backend
    of = {"tenant": tenant(request), "id": request.path_params["id"]}
    trace = await backend.row(_TRACE, of)
    if trace is None or not trace["message_id"]:
        raise HTTPException(404, "There is no answer to rate")
    form = await request.form(max_files=0, max_fields=8, max_part_size=64 * 1024)
    rating = str(form.get("rating", ""))
    if rating not in RATINGS:
        return problem(request, 400, "A rating is like, dislike or none", "Go back and choose one.")
    payload = {
        "conversation": trace["conversation_id"],
        "message": trace["message_id"],
        "rating": RATINGS[rating],
        "content": str(form.get("content", "")) if rating != "none" else "",
    }
    outcome = await (await client(request)).send("message.rate", payload)
    if outcome["status"] == "rejected":
        return problem(request, 400, "The rating was rejected", rejection(outcome))
    await seen(backend, [outcome])
    return RedirectResponse(link(request, f"/traces/{of['id']}", span="-") + "#rating", 303)


routes = [
    Route("/traces/{id}", show),
    Route("/traces/{id}/rating", rate, methods=["POST"]),
    Route("/traces/{id}/calls/{call}/{which}", text),
    Route("/log/{sequence:int}", stored),
]
