"""Replays: recorded calls sent again, to other models, with other instructions or parameters; and their results."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from adapters.jetstream.client import Outcome, rejection
from adapters.web.viewer import prompts
from adapters.web.viewer.backend import Backend, Row
from adapters.web.viewer.changes import fields, seen, text
from adapters.web.viewer.prompts import Difference
from adapters.web.viewer.render import as_json, link, render, tenant, wants_json
from adapters.web.viewer.sender import client
from domain.aggregate import new_id
from domain.log import commit_id

MOST = 100
"""Maximum number of replays per request: calls times targets."""

AT_ONCE = 10
CONFIGURATIONS = 200
"""Maximum number of configurations that are offered."""

LATEST = 50

_CHOSEN = """
SELECT DISTINCT ON (c.id) c.*, sent.request, sent.sources, t.question, t.id AS trace_id
FROM headrace.model_calls c CROSS JOIN LATERAL headrace.put_together(c.tenant_id, c.request) sent
LEFT JOIN headrace.traces t ON (t.tenant_id, t.id) = (c.tenant_id, c.correlation_id)
WHERE c.tenant_id = %(tenant)s AND c.kind = 'chat' AND (c.id = ANY(%(calls)s) OR c.id IN (
    SELECT DISTINCT ON (correlation_id) id FROM headrace.model_calls
    WHERE tenant_id = %(tenant)s AND correlation_id = ANY(%(traces)s) AND kind = 'chat'
    ORDER BY correlation_id, created_at DESC, id DESC
))
ORDER BY c.id LIMIT {limit}
"""
"""The named calls, and the last call of every named trace, which gave its answer."""

_CONFIGURATIONS = """
SELECT c.app_id, c.number, c.pre_prompt, c.provider, c.model_id, a.name AS app
FROM headrace.app_model_configs c JOIN headrace.apps a ON (a.tenant_id, a.id) = (c.tenant_id, c.app_id)
WHERE c.tenant_id = %(tenant)s AND c.app_id = ANY(%(apps)s) ORDER BY c.app_id, c.number DESC LIMIT {limit}
"""

_REPLAYS = """
SELECT r.*, t.question FROM headrace.replays r
LEFT JOIN headrace.model_calls c ON (c.tenant_id, c.id) = (r.tenant_id, r.model_call_id)
LEFT JOIN headrace.traces t ON (t.tenant_id, t.id) = (c.tenant_id, c.correlation_id)
WHERE r.tenant_id = %(tenant)s AND {test} ORDER BY r.created_at DESC, r.id DESC LIMIT {limit}
"""

_CALLS = """
SELECT c.*, sent.request, sent.sources
FROM headrace.model_calls c CROSS JOIN LATERAL headrace.put_together(c.tenant_id, c.request) sent
WHERE c.tenant_id = %(tenant)s AND c.id = ANY(%(calls)s)
"""


@dataclass(frozen=True)
class Target:
    """A target of replays, as typed; empty fields stay as recorded."""

    model: str = ""
    configuration: str = ""
    max_tokens: str = ""
    parameters: str = ""

    def payload(self, call: str) -> dict[str, Any]:
        """The payload of the command. Raises: ValueError, with the fault."""
        fields: dict[str, Any] = {"call": call}
        if self.model:
            provider, slash, name = self.model.partition("/")
            if not slash:
                raise ValueError(f"Model {self.model!r} must be like provider/name.")
            fields["model"] = {"provider": provider.strip(), "name": name.strip()}
        for field in ("configuration", "max_tokens"):
            if said := getattr(self, field):
                if not said.isdecimal():
                    raise ValueError(f"{field.replace('_', ' ').capitalize()} must be a number, not {said[:40]!r}.")
                fields[field] = int(said)
        if self.parameters:
            try:
                fields["parameters"] = orjson.loads(self.parameters)
            except ValueError:
                fields["parameters"] = None
            if not isinstance(fields["parameters"], dict):
                raise ValueError('Parameters must be a JSON object, like {"temperature": 0.2}.')
        return fields


@dataclass(frozen=True)
class Made:
    """A replay, its call, and the difference of its answer from the recorded one; None if missing."""

    replay: Row
    call: Row | None
    difference: Difference | None


@dataclass(frozen=True)
class Comparison:
    """A recorded call, and its replays."""

    call: Row
    question: str | None
    made: list[Made]


def targets_of(form: FormData) -> list[Target]:
    """Every `<field>-<number>` of the form."""
    numbers = sorted({int(name.rpartition("-")[2]) for name in form if name.rpartition("-")[2].isdecimal()})[:MOST]
    names = Target.__dataclass_fields__
    return [Target(**{name: text(form, f"{name}-{number}") for name in names}) for number in numbers]


async def chosen(backend: Backend, of: str, calls: Sequence[str], traces: Sequence[str]) -> list[Row]:
    values = {"tenant": of, "calls": _ids(calls), "traces": _ids(traces)}
    return await backend.rows(_CHOSEN.format(limit=MOST), values)


def _ids(given: Sequence[str]) -> list[str]:
    found = []
    for id in given[: 10 * MOST]:
        try:
            found.append(str(UUID(id)))
        except ValueError:
            continue
    return found


async def ask(request: Request) -> Response:
    query = request.query_params
    calls = await chosen(request.app.state.backend, tenant(request), query.getlist("call"), query.getlist("trace"))
    return await _form(request, calls, [Target()], new_id())


async def _form(
    request: Request, calls: list[Row], targets: list[Target], token: str, wrong: Sequence[str] = ()
) -> Response:
    backend: Backend = request.app.state.backend
    of = tenant(request)
    status = 400 if wrong else 200
    named = list({app for call in calls if (app := prompts.app(call))})
    configurations = await backend.rows(_CONFIGURATIONS.format(limit=CONFIGURATIONS), {"tenant": of, "apps": named})
    if wants_json(request):
        return as_json({"calls": calls, "configurations": configurations, "errors": wrong}, status)
    given: dict[str, Any] = {
        "calls": calls,
        "sent": {call["id"]: prompts.configuration(call) for call in calls},
        "targets": targets,
        "token": token,
        "configurations": configurations,
        "all_configurations": len(configurations) < CONFIGURATIONS,
        "wrong": wrong,
        "most": MOST,
    }
    return render(request, "replay.html", given, status)


async def send(request: Request) -> Response:
    """Send a command per call and target. Their ids derive from the form's token: a repeated form has no effect."""
    backend: Backend = request.app.state.backend
    form = await fields(request)
    of, token = tenant(request), text(form, "token") or new_id()
    calls = await chosen(backend, of, [str(call) for call in form.getlist("call")], [])
    targets = targets_of(form) or [Target()]
    if form.get("do") == "more":
        return await _form(request, calls, [*targets, Target()], token)
    if not calls:
        return await _form(request, calls, targets, token, ["Choose a call of a chat model."])
    if len(calls) * len(targets) > MOST:
        return await _form(request, calls, targets, token, [f"At most {MOST} replays at once."])
    try:
        payloads = [target.payload(call["id"]) for call in calls for target in targets]
    except ValueError as error:
        return await _form(request, calls, targets, token, [str(error)])
    sending, turn = await client(request), asyncio.Semaphore(AT_ONCE)

    async def one(number: int, payload: dict[str, Any]) -> Outcome:
        async with turn:
            return await sending.send("replay.request", payload, commit_id(token, str(number)))

    outcomes = await asyncio.gather(*(one(number, payload) for number, payload in enumerate(payloads)))
    accepted = [outcome["ids"]["replay"] for outcome in outcomes if outcome["status"] == "accepted"]
    if wants_json(request):
        return as_json(outcomes)
    rejected = list(dict.fromkeys(rejection(outcome) for outcome in outcomes if outcome["status"] == "rejected"))
    if rejected and not accepted:
        return await _form(request, calls, targets, new_id(), rejected)
    await seen(backend, outcomes)
    return RedirectResponse(link(request, "/replays", id=accepted, rejected=rejected[:5]), 303)


async def show(request: Request) -> Response:
    backend: Backend = request.app.state.backend
    of = tenant(request)
    ids, calls = _ids(request.query_params.getlist("id"))[:MOST], _ids(request.query_params.getlist("call"))[:MOST]
    if not ids and not calls:
        rows = await backend.rows(_REPLAYS.format(test="true", limit=LATEST), {"tenant": of})
        return (
            as_json({"replays": rows})
            if wants_json(request)
            else render(request, "replays.html", {"rows": rows, "latest": LATEST})
        )
    test = "(r.id = ANY(%(ids)s) OR r.model_call_id = ANY(%(calls)s))"
    replays = await backend.rows(_REPLAYS.format(test=test, limit=MOST), {"tenant": of, "ids": ids, "calls": calls})
    comparisons = await compared(backend, of, replays[::-1])
    missing = len(set(ids) - {row["id"] for row in replays})
    waiting = missing + sum(replay["status"] == "requested" for replay in replays)
    if wants_json(request):
        return as_json({"waiting": waiting, "comparisons": comparisons})
    given: dict[str, Any] = {
        "comparisons": comparisons,
        "waiting": waiting,
        "rejected": request.query_params.getlist("rejected"),
        "again": [comparison.call["id"] for comparison in comparisons],
        "configuration": prompts.configuration,
        "ids": ids,
        "of_calls": calls,
    }
    return render(request, "replay_results.html", given)


async def compared(backend: Backend, of: str, replays: Sequence[Row]) -> list[Comparison]:
    """The replays by original call, with both calls and the difference of their answers."""
    wanted = {replay[name] for replay in replays for name in ("model_call_id", "replayed_call_id") if replay[name]}
    calls = {row["id"]: row for row in await backend.rows(_CALLS, {"tenant": of, "calls": list(wanted)})}
    found: dict[str, Comparison] = {}
    for replay in replays:
        source = calls.get(replay["model_call_id"])
        if source is None:
            continue
        call = calls.get(replay["replayed_call_id"])
        ended = call is not None and replay["status"] == "completed"
        difference = await prompts.difference(source["response"], call["response"]) if call and ended else None
        comparison = found.setdefault(source["id"], Comparison(source, replay["question"], []))
        comparison.made.append(Made(replay, call, difference))
    return list(found.values())


routes = [
    Route("/replays/new", ask),
    Route("/replays/new", send, methods=["POST"]),
    Route("/replays", show),
]
