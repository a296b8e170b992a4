"""Conversations: messages and their events; now, and as they were after any event."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from adapters.jetstream.client import rejection
from adapters.web.viewer.backend import Backend, Row
from adapters.web.viewer.changes import fields, seen, text
from adapters.web.viewer.names import page_of
from adapters.web.viewer.render import as_json, link, render, tenant, wants_json
from adapters.web.viewer.sender import client
from adapters.web.viewer.sources import shown
from domain.chat.conversation import Conversation
from domain.log import Commit, Subject
from projections.apps import apps
from projections.catalog import KNOWN
from projections.conversations import conversations
from projections.dataset_retriever_resources import dataset_retriever_resources
from projections.engine.fold import Fold
from projections.message_feedbacks import message_feedbacks
from projections.messages import messages

PAGE = 50
"""Number of conversations per page."""

MESSAGES = 20
"""Number of questions per page."""

EVENTS = 100
"""Number of questions up to which the events of a conversation are read without request."""

COMMITS = 10_000
"""Maximum number of commits of a conversation that are read, from the first on."""

_LIST = """
WITH page AS (
    SELECT c.*, u.session_id AS end_user FROM headrace.conversations c
    LEFT JOIN headrace.end_users u ON (u.tenant_id, u.id) = (c.tenant_id, c.from_end_user_id)
    WHERE c.tenant_id = %(tenant)s
        AND (%(apps)s::text[] IS NULL OR c.app_id = ANY(%(apps)s)) AND (%(user)s = '' OR u.session_id = %(user)s)
        AND (%(q)s = '' OR c.id = %(q)s OR strpos(lower(c.name), lower(%(q)s)) > 0)
        AND (%(before)s::timestamptz IS NULL OR (c.updated_at, c.id) < (%(before)s, %(row)s))
    ORDER BY c.updated_at DESC, c.id DESC LIMIT {limit}
)
SELECT page.id, page.name, page.app_id, page.end_user, page.dialogue_count, page.created_at, page.updated_at,
    page.forked_from_conversation_id, page.forked_from_message_id, apps.name AS app, sums.*, ratings.*
FROM page LEFT JOIN headrace.apps ON (apps.tenant_id, apps.id) = (page.tenant_id, page.app_id)
LEFT JOIN LATERAL (
    SELECT sum(cost) AS cost, coalesce(sum(unpriced_calls), 0)::bigint AS unpriced,
        count(*) FILTER (WHERE status = 'error') AS errors, count(*) FILTER (WHERE status = 'running') AS running
    FROM headrace.traces t WHERE t.tenant_id = page.tenant_id AND t.conversation_id = page.id
) AS sums ON true
LEFT JOIN LATERAL (
    SELECT count(*) FILTER (WHERE rating = 'like') AS likes, count(*) FILTER (WHERE rating = 'dislike') AS dislikes
    FROM headrace.message_feedbacks f WHERE f.tenant_id = page.tenant_id AND f.conversation_id = page.id
) AS ratings ON true
ORDER BY page.updated_at DESC, page.id DESC
"""

_ONE = """
SELECT c.*, u.session_id AS end_user FROM headrace.conversations c
LEFT JOIN headrace.end_users u ON (u.tenant_id, u.id) = (c.tenant_id, c.from_end_user_id)
WHERE c.tenant_id = %(tenant)s AND c.id = %(id)s
"""

_APP = "SELECT * FROM headrace.apps WHERE tenant_id = %(tenant)s AND id = %(app)s"

_FIRST = """
WITH first AS (SELECT created_at, id FROM headrace.messages
    WHERE tenant_id = %(tenant)s AND conversation_id = %(id)s AND id = %(message)s)
"""
_OLDER = f"""
{_FIRST} SELECT * FROM headrace.messages WHERE tenant_id = %(tenant)s AND conversation_id = %(id)s
    AND (NOT EXISTS (SELECT FROM first) OR (created_at, id) <= (SELECT created_at, id FROM first))
ORDER BY created_at DESC, id DESC LIMIT {MESSAGES + 1}
"""
"""The message and those before it; without such a message, the newest."""

_NEWER = f"""
{_FIRST} SELECT id FROM headrace.messages WHERE tenant_id = %(tenant)s AND conversation_id = %(id)s
    AND (created_at, id) > (SELECT created_at, id FROM first)
ORDER BY created_at, id LIMIT {MESSAGES + 1}
"""
_COUNT = f"""
{_FIRST} SELECT count(*) AS count,
    count(*) FILTER (WHERE (created_at, id) > (SELECT created_at, id FROM first)) AS newer
FROM headrace.messages WHERE tenant_id = %(tenant)s AND conversation_id = %(id)s
"""

_CITATIONS = """
SELECT * FROM headrace.dataset_retriever_resources
WHERE tenant_id = %(tenant)s AND message_id = ANY(%(messages)s) ORDER BY position
"""

_RATINGS = "SELECT * FROM headrace.message_feedbacks WHERE tenant_id = %(tenant)s AND message_id = ANY(%(messages)s)"

_CALLS = """
SELECT id, kind, provider, model, status, cause_id, attempt, prompt_tokens, completion_tokens, cost, first_token_ms,
    duration_ms, error_code, error, correlation_id, created_at
FROM headrace.model_calls WHERE tenant_id = %(tenant)s AND cause_id = ANY(%(messages)s) AND cause_noun = 'message'
ORDER BY created_at, id
"""

_TOOLS = """
SELECT id, name, arguments, status, questions, cause_id, duration_ms, error_code, correlation_id, created_at
FROM headrace.tool_calls WHERE tenant_id = %(tenant)s AND cause_id = ANY(%(messages)s) AND cause_noun = 'message'
ORDER BY round, position, created_at, id
"""

_FORKS = """
SELECT id, name, forked_from_message_id, created_at FROM headrace.conversations
WHERE tenant_id = %(tenant)s AND forked_from_conversation_id = %(id)s AND forked_from_message_id = ANY(%(messages)s)
ORDER BY created_at
"""


@dataclass(frozen=True)
class Step:
    """An event of the conversation; `number` counts from 1."""

    number: int
    sequence: int
    at: datetime
    type: str
    message: str | None

    @property
    def says(self) -> str:
        """Short name of the event: `answered` for `message.answered.v1`."""
        noun, _, verb = self.type.rpartition(".v")[0].partition(".")
        return (verb if noun == "message" else f"{noun} {verb}").replace("_", " ")


@dataclass(frozen=True)
class Moment:
    """The shown moment of a conversation: after step `now`, by default the last one."""

    steps: list[Step]
    now: int

    @property
    def step(self) -> Step | None:
        return self.steps[self.now - 1] if self.now else None

    @property
    def back(self) -> bool:
        """True for a moment in the past."""
        return self.now < len(self.steps)

    def around(self, by: int) -> Step | None:
        place = self.now + by
        return self.steps[place - 1] if 1 <= place <= len(self.steps) else None


def steps_of(commits: Sequence[Commit]) -> list[Step]:
    steps: list[Step] = []
    for commit in commits:
        for event in commit.events:
            message = getattr(event, "message", None)
            kind = type(event).TOPIC
            steps.append(Step(len(steps) + 1, commit.position.sequence, event.timestamp, kind, message))
    return steps


def as_of(commits: Sequence[Commit], app: Row, sequence: int) -> tuple[Row | None, list[Row], list[Row], list[Row]]:
    """Rows of the conversation, its messages, citations and ratings, as they were at this sequence of the log."""
    models = (apps, conversations, messages, dataset_retriever_resources, message_feedbacks)
    known = [commit for commit in commits if commit.position.sequence <= sequence]
    _, talks, *rest = (list(rows.rows.values()) for rows in Fold(models, KNOWN)(known, {apps: [app]}, {}))
    return (talks[0] if talks else None, *rest)  # type: ignore[return-value]


async def show_all(request: Request) -> Response:
    backend: Backend = request.app.state.backend
    asked = await page_of(request, "app", "user", "q")
    values = asked.values
    found = await backend.rows(_LIST.format(limit=PAGE + 1), values)
    rows, more = found[:PAGE], len(found) > PAGE
    older = f"{rows[-1]['updated_at'].isoformat()}~{rows[-1]['id']}" if more else None
    if wants_json(request):
        return as_json({"conversations": rows, "older": older})
    given = {"rows": rows, "older": older, "said": asked.said, "first": values["before"] is None, "app": asked.apps}
    return render(request, "conversations.html", given)


@dataclass(frozen=True)
class Page:
    """Some questions of a conversation, newest first; `number` is that of the first, `newer` and `older` begin the
    pages before and after it: an empty `newer` is the newest page."""

    messages: list[Row]
    number: int
    count: int
    newer: str | None
    older: str | None


def cut(said: Sequence[Row], message: str) -> Page:
    """The page that begins with a message, or else with the newest, of all messages in order."""
    ids = [row["id"] for row in said]
    end = ids.index(message) + 1 if message in ids else len(ids)
    begin, after = max(0, end - MESSAGES), end + MESSAGES
    newer = None if end == len(ids) else ids[after - 1] if after < len(ids) else ""
    return Page(list(said[begin:end])[::-1], end, len(ids), newer, ids[begin - 1] if begin else None)


def branches(message: Row, newest_first: Sequence[Row]) -> bool:
    """Return whether a message continues after another one than that before it, as far as the page shows."""
    before = next((row["id"] for row in newest_first[newest_first.index(message) + 1 :]), message["parent_message_id"])
    return bool(before != message["parent_message_id"])


async def page(backend: Backend, of: str, id: str, message: str) -> Page:
    """The page that begins with a message, or else with the newest."""
    values = {"tenant": of, "id": id, "message": message}
    older, newer, counts = await asyncio.gather(
        backend.rows(_OLDER, values), backend.rows(_NEWER, values), backend.rows(_COUNT, values)
    )
    count, above = counts[0]["count"], counts[0]["newer"]
    before = newer[MESSAGES - 1]["id"] if len(newer) > MESSAGES else "" if newer else None
    after = older[MESSAGES]["id"] if len(older) > MESSAGES else None
    return Page(older[:MESSAGES], count - above, count, before, after)


async def show(request: Request, wrong: str = "") -> Response:
    backend: Backend = request.app.state.backend
    id, of, query = request.path_params["id"], tenant(request), request.query_params
    values = {"tenant": of, "id": id}
    talk = await backend.row(_ONE, values)
    if talk is None:
        raise HTTPException(404, "There is no such conversation, or it was deleted.")
    timed = talk["dialogue_count"] <= EVENTS or any(query.get(name) for name in ("events", "event", "at"))
    limit = COMMITS if timed else 1
    commits = await backend.store.load(Subject(of, Conversation.TOPIC, id), limit=limit)
    moment = _moment(steps_of(commits) if timed else [], request)
    if moment is None:
        return RedirectResponse(link(request, request.url.path), 303)
    if query.get("event"):
        at = moment.step.sequence if moment.step and moment.back else None
        whole = None if at or talk["dialogue_count"] <= EVENTS else 1
        return RedirectResponse(link(request, request.url.path, at=at, events=whole), 303)
    app = await backend.row(_APP, {"tenant": of, "app": talk["app_id"]})
    if moment.back and moment.step and app:
        was, said, citations, ratings = as_of(commits, app, moment.step.sequence)
        talk = talk | {"name": was["name"] if was else talk["name"]}
        found = cut(said, query.get("message", ""))
        ids = {"tenant": of, "messages": [message["id"] for message in found.messages]}
        calls = [call for call in await backend.rows(_CALLS, ids) if call["created_at"] <= moment.step.at]
    else:
        found = await page(backend, of, id, query.get("message", "").replace("\0", ""))
        ids = {"tenant": of, "messages": [message["id"] for message in found.messages]}
        citations, ratings, calls = await asyncio.gather(
            backend.rows(_CITATIONS, ids), backend.rows(_RATINGS, ids), backend.rows(_CALLS, ids)
        )
    forks, tools = await asyncio.gather(backend.rows(_FORKS, values | ids), backend.rows(_TOOLS, ids))
    if moment.back and moment.step:
        tools = [call for call in tools if call["created_at"] <= moment.step.at]
    taken = next((e.messages for c in commits for e in c.events if isinstance(e, Conversation.Forked)), [])
    for message in found.messages:
        message["citations"] = [row for row in citations if row["message_id"] == message["id"]]
        message["rating"] = next((row for row in ratings if row["message_id"] == message["id"]), None)
        message["calls"] = [row for row in calls if row["cause_id"] == message["id"]]
        message["tools"] = [row for row in tools if row["cause_id"] == message["id"]]
        message["branches"] = branches(message, found.messages)
        message["forks"] = [row for row in forks if row["forked_from_message_id"] == message["id"]]
    copied = [] if found.older else taken[::-1][:MESSAGES]
    if wants_json(request):
        body = {"conversation": talk, "copied": copied, **vars(found), "forks": forks, "error": wrong or None}
        events = [{**vars(step)} for step in moment.steps]
        return as_json(body | {"at": moment.step and moment.step.sequence, "events": events}, 400 if wrong else 200)
    for message in found.messages:
        message["asked"] = shown(message["query"] or "", folded=0)
        message["said"] = shown(message["answer"] or "", folded=0)
    given: dict[str, Any] = {
        "talk": talk,
        "app": app,
        "page": found,
        "copied": copied,
        "taken": len(taken),
        "moment": moment,
        "timed": timed,
        "cut": len(commits) == COMMITS,
        "wrong": wrong,
    }
    return render(request, "conversation.html", given, 400 if wrong else 200)


def _moment(steps: list[Step], request: Request) -> Moment | None:
    """The requested moment: after the commit at sequence `at`, after event number `event`, or the end. None for invalid
    values."""
    given = request.query_params
    try:
        if number := given.get("event"):
            return Moment(steps, max(1, min(int(number), len(steps)))) if steps else Moment(steps, 0)
        if sequence := given.get("at"):
            # A commit is atomic: show the state after its last event.
            return Moment(steps, max(min(1, len(steps)), bisect_right([s.sequence for s in steps], int(sequence))))
    except ValueError:
        return None
    return Moment(steps, len(steps))


async def fork(request: Request) -> Response:
    form = await fields(request)
    backend: Backend = request.app.state.backend
    payload = {
        "conversation": request.path_params["id"],
        "message": text(form, "message"),
        "name": text(form, "name") or None,
    }
    outcome = await (await client(request)).send("conversation.fork", payload)
    if outcome["status"] == "rejected":
        return await show(request, rejection(outcome))
    await seen(backend, [outcome])
    return RedirectResponse(link(request, f"/conversations/{outcome['ids']['conversation']}"), 303)


async def rate(request: Request) -> Response:
    form = await fields(request)
    backend: Backend = request.app.state.backend
    message = text(form, "message")
    if "rating" not in form:  # the form was sent with the enter key
        return await show(request, "Say whether the answer was good: like or dislike.")
    payload = {
        "conversation": request.path_params["id"],
        "message": message,
        "rating": text(form, "rating") or None,
        "content": text(form, "content"),
    }
    outcome = await (await client(request)).send("message.rate", payload)
    if outcome["status"] == "rejected":
        return await show(request, rejection(outcome))
    await seen(backend, [outcome])
    path = f"/conversations/{request.path_params['id']}"
    return RedirectResponse(link(request, path, message=text(form, "page")) + f"#m-{message}", 303)


routes = [
    Route("/conversations", show_all),
    Route("/conversations/{id}", show),
    Route("/conversations/{id}/fork", fork, methods=["POST"]),
    Route("/conversations/{id}/rate", rate, methods=["POST"]),
]
