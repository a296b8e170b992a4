"""The parts of traces: the table `spans`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from sqlalchemy import BigInteger, Double, Integer, Text
from sqlalchemy.dialects.postgresql import JSONB

from domain.access.end_user import EndUser
from domain.chat.conversation import Conversation, FilterVerdict
from domain.knowledge.document import Document
from domain.knowledge.retrieval import Retrieval
from domain.log import Recorded, commit_id, derived_id
from domain.models.model_call import ModelCall
from domain.models.replay import Replay
from domain.tools.plugin import PluginRun
from domain.tools.tool_call import ToolCall
from domain.workflows.effect import Effect
from domain.workflows.run import Run
from projections.engine.columns import Id, Time, key, optional, person, required
from projections.engine.read_model import ReadModel, Row, originator
from projections.model_calls import model_calls
from projections.traces import attributes
from projections.values.fingerprint import fingerprint

spans = ReadModel(
    "spans",
    "Steps of the traces: of handlers, and for them of searches, models and tools. A further attempt goes on in the "
    "same rows, but every call of a model or a tool has its own.",
    key("id", "Span; of a call of a model or a tool its id."),
    required("trace_id", Id, "Trace that it belongs to, in traces."),
    optional("parent_id", Id, "Span that it is part of; null when that is the trace."),
    required(
        "kind",
        Text,
        "handler, retrieval, embedding, chat, rerank, moderation, plugin, tool, node, item and effect (of a run), "
        "extract, segment, index.",
    ),
    required("name", Text, "Name of the step, in a word or two."),
    required(
        "status",
        Text,
        "running, held (it waits for a person), ok, error, cancelled, or unknown: a call whose worker died.",
    ),
    required("started_at", Time, "When it began."),
    optional("ended_at", Time, "When it ended; null while it has not."),
    optional("duration_ms", Double, "Milliseconds to its end; null when that is not known."),
    optional("first_token_ms", Double, "Milliseconds to the first token; null when none came."),
    required("attempt", Integer, "Attempt, from 1; 0 before the first, or when it is not known."),
    required("noun", Text, "Noun that it was done for: message, document, replay or run."),
    required("noun_id", Id, "Message, document, replay or run that it was done for."),
    optional("conversation_id", Id, "Conversation, where it is known."),
    optional("model_call_id", Id, "Call of a model, in model_calls; null where it is none."),
    optional("tool_call_id", Id, "Call of a tool, in tool_calls; null where it is none."),
    optional("retrieval_id", Id, "Search, in retrievals; null where it is none, and before its end."),
    optional("provider", Text, "Provider of the model; null where there is none."),
    optional("model", Text, "Model; null where there is none."),
    optional("prompt_tokens", BigInteger, "Tokens that were sent; null before the answer."),
    optional("completion_tokens", BigInteger, "Tokens that came back; null before the answer."),
    optional("cost", Double, "US dollars; null before the answer, and when no price is known."),
    optional("error_code", Text, "Error code; null on success."),
    optional("error", Text, "Error message; null on success."),
    optional("fingerprint", Text, "Digest, equal for equal failures of different objects; null on success."),
    optional("causation_id", Id, "Commit or command that caused it."),
    required("sequence", BigInteger, "Sequence in EVENTS of what began it."),
    optional("ended_sequence", BigInteger, "Sequence in EVENTS of what ended it; null while nothing has."),
    required("attributes", JSONB, "Attributes by the OpenTelemetry GenAI conventions, without texts of messages."),
    person(),
    optional("traceparent", Text, "Trace that it belongs to, in W3C form; null when not traced."),
    required("created_at", Time, "Time of the record."),
    required("updated_at", Time, "Time of the last change."),
)
OPEN, HELD = ({"status": status, "model_call_id": None, "tool_call_id": None} for status in ("running", "held"))
"""Spans that are cancelled when their noun is deleted; a call ends by its own event."""

spans.sets(EndUser.Erased, {"attributes": {}, "error": None, "fingerprint": None}, column="person_id")
spans.sets(Document.Deleted, {"status": "cancelled"}, column="noun_id", only=OPEN, ended=("ended_at", "ended_sequence"))
for only in (OPEN, HELD):
    spans.sets(
        Conversation.Deleted,
        {"status": "cancelled"},
        column="conversation_id",
        only=only,
        ended=("ended_at", "ended_sequence"),
    )
spans.looked_up("trace_id")
spans.priced("cost")
spans.sorted_by("error", "fingerprint", "started_at", postgresql_where=spans.table.c.fingerprint.is_not(None))
spans.sorted_by("ended", "ended_sequence", "id", within=(), postgresql_where=spans.table.c.ended_sequence.is_not(None))

RUNNING = {"status": "running"} | dict.fromkeys(
    ("ended_at", "duration_ms", "error_code", "error", "fingerprint", "ended_sequence")
)
STEPS = {"parsing": "extract", "splitting": "segment", "indexing": "index"}
"""Steps of a document's handler, by stage."""


@lru_cache(maxsize=16384)
def span_id(trace: str, noun: str, part: str = "") -> str:
    """The id of the handler of a noun in a trace, or of a part of its work."""
    return derived_id(f"{trace}/{noun}/{part}")


# --- what spans begin and end with ---------------------------------------------------------------------------


def begun(
    message: Recorded,
    at: datetime,
    kind: str,
    name: str,
    noun: str,
    noun_id: str,
    parent: Row | None = None,
    **columns: Any,
) -> Row:
    """A span that has just begun; the `id` is the handler's where none is given.

    It begins no earlier than its parent: in the log it comes later, though the clock of its machine may be behind.
    """
    metadata = message.metadata
    return {
        "id": span_id(metadata.correlation, noun_id),
        "trace_id": metadata.correlation,
        "parent_id": parent and parent["id"],
        "kind": kind,
        "name": name,
        "status": "running",
        "started_at": max(at, parent["started_at"]) if parent else at,
        "attempt": 0,
        "noun": noun,
        "noun_id": noun_id,
        "causation_id": metadata.causation,
        "sequence": message.position.sequence,
        "attributes": {},
        "person_id": metadata.person,
        "traceparent": metadata.traceparent,
        **columns,
    }


def ended(row: Row, event: Any, message: Recorded, status: str, **columns: Any) -> Row:
    """Return the changes of a span that ends with this event."""
    at = max(event.timestamp, row["started_at"])
    return {
        "status": status,
        "ended_at": at,
        "duration_ms": (at - row["started_at"]) / timedelta(milliseconds=1),
        "ended_sequence": message.position.sequence,
        **columns,
    }


def failed(row: Row, event: Any, message: Recorded, **columns: Any) -> Row:
    """Return the changes of a span that fails with the `code` and `reason` of this event: words of its person."""
    return ended(
        row,
        event,
        message,
        "unknown" if event.code == "lost" else "error",
        person_id=row["person_id"] or message.metadata.person,
        error_code=event.code,
        error=event.reason,
        fingerprint=fingerprint(row["kind"], event.code, event.reason),
        **columns,
    )


def resumed(row: Row, event: Any, message: Recorded) -> Row | None:
    """Return the changes of a span that has ended and must be done again."""
    return None if row["status"] == "running" else RUNNING


def tried(row: Row, event: Conversation.Answering | Document.Started | Run.Taken) -> Row:
    """Return the changes of a handler's span with an attempt: the first one ends the time that it waited."""
    began = {} if row["attempt"] else {"started_at": max(event.timestamp, row["started_at"])}
    return {**RUNNING, **began, "attempt": event.attempt}


def at_work(row: Row, event: Any, message: Recorded) -> Row | None:
    """Return the changes of a handler's span with a step: it has not waited until a later attempt."""
    return None if row["attempt"] else {"attempt": 1}


# --- messages ------------------------------------------------------------------------------------------------


def answer_span(event: Any, message: Recorded) -> str:
    """The handler of a message."""
    return span_id(message.metadata.correlation, event.message)


def search_span(event: Any, message: Recorded) -> str:
    """The search for a message."""
    return span_id(message.metadata.correlation, event.message, "retrieval")


@spans.makes(Conversation.Asked, Conversation.Retried, once=answer_span)
def answer_waits(event: Conversation.Asked | Conversation.Retried, message: Recorded) -> Row:
    conversation = event.originator_id
    return begun(message, event.timestamp, "handler", "answer", "message", event.message, conversation_id=conversation)


spans.changes(Conversation.Asked, Conversation.Retried, pick=answer_span)(resumed)


@spans.changes(Conversation.Answering, pick=answer_span)
def answering(row: Row, event: Conversation.Answering, message: Recorded) -> Row:
    return tried(row, event)


@spans.changes(Conversation.Held, pick=answer_span)
def waits_for_person(row: Row, event: Conversation.Held, message: Recorded) -> Row | None:
    return {"status": "held"} if row["status"] == "running" else None


spans.changes(Conversation.Resumed, pick=answer_span)(resumed)


@spans.changes(Conversation.Answered, pick=answer_span)
def answered(row: Row, event: Conversation.Answered, message: Recorded) -> Row:
    return ended(row, event, message, "ok")


@spans.changes(Conversation.Failed, pick=search_span)
@spans.changes(Conversation.Failed, pick=answer_span)
def not_answered(row: Row, event: Conversation.Failed, message: Recorded) -> Row | None:
    return failed(row, event, message) if row["status"] == "running" else None


@spans.changes(Conversation.Answered, Conversation.Stopped, pick=search_span)
@spans.changes(Conversation.Stopped, pick=answer_span)
def stopped(row: Row, event: Any, message: Recorded) -> Row | None:
    return ended(row, event, message, "cancelled") if row["status"] == "running" else None


@spans.makes(Conversation.Moderated, related=(spans, answer_span))
def moderated(event: Conversation.Moderated, message: Recorded, handler: Row | None) -> list[Row]:
    return [_verdict(event, message, handler, verdict) for verdict in event.verdicts]


def _verdict(event: Conversation.Moderated, message: Recorded, handler: Row | None, verdict: FilterVerdict) -> Row:
    """The span of a filter: all checks of one side. What was flagged is no error; a check that failed is."""
    part = f"moderation:{event.attempt}:{verdict['where']}:{verdict['position']}"
    began, took = datetime.fromisoformat(verdict["started_at"]), timedelta(milliseconds=verdict["duration_ms"])
    name = f"{verdict['kind']} of {verdict['where']}: {verdict['verdict']}"
    failed = {"status": "error", "error_code": verdict["code"]} if verdict["code"] else {"status": "ok"}
    span = begun(
        message,
        began,
        "moderation",
        name,
        "message",
        event.message,
        handler,
        id=span_id(message.metadata.correlation, event.message, part),
        conversation_id=event.originator_id,
        attempt=event.attempt,
        duration_ms=verdict["duration_ms"],
        ended_sequence=message.position.sequence,
        **failed,
    )
    return {**span, "ended_at": span["started_at"] + took}


# --- documents -----------------------------------------------------------------------------------------------


def own_span(event: Any, message: Recorded) -> str:
    """The handler of a document, a replay or a run."""
    return span_id(message.metadata.correlation, event.originator_id)


@spans.makes(Document.Uploaded, Document.Retried, Document.Reprocessed, once=own_span)
def ingest_waits(event: Any, message: Recorded) -> Row:
    return begun(message, event.timestamp, "handler", "ingest", "document", event.originator_id)


spans.changes(Document.Uploaded, Document.Retried, Document.Reprocessed, pick=own_span)(resumed)


def _step(name: str, begins: Sequence[type], ends: type) -> None:
    """A step of ingest: it begins with the events `begins`, where their stage (if they have one) is the step's."""

    def span(event: Any, message: Recorded) -> str | None:
        if STEPS.get(getattr(event, "stage", ""), name) != name:
            return None
        return span_id(message.metadata.correlation, event.originator_id, name)

    @spans.makes(*begins, once=span, related=(spans, own_span))
    def begin(event: Any, message: Recorded, handler: Row | None) -> Row:
        of = ("document", event.originator_id)
        return begun(message, event.timestamp, name, name, *of, handler, id=span(event, message), attempt=1)

    @spans.changes(*begins, pick=span)
    def again(row: Row, event: Any, message: Recorded) -> Row | None:
        return None if row["status"] == "running" else {**RUNNING, "attempt": row["attempt"] + 1}

    @spans.changes(ends, pick=span)
    def end(row: Row, event: Any, message: Recorded) -> Row | None:
        return ended(row, event, message, "ok") if row["status"] == "running" else None

    @spans.changes(Document.Failed, pick=span)
    def fail(row: Row, event: Document.Failed, message: Recorded) -> Row | None:
        return failed(row, event, message) if row["status"] == "running" else None


# In the order of the events: what ends a step comes before what begins the next.
_step("extract", [Document.Started], Document.Parsed)
_step("segment", [Document.Parsed], Document.Split)
_step("index", [Document.Started, Document.Split], Document.Completed)


@spans.changes(Document.Completed, pick=own_span)
def ingested(row: Row, event: Document.Completed, message: Recorded) -> Row | None:
    return ended(row, event, message, "ok") if row["status"] == "running" else None


@spans.changes(Document.Started, pick=own_span)
def started(row: Row, event: Document.Started, message: Recorded) -> Row:
    return tried(row, event)


spans.changes(Document.Parsed, Document.Split, pick=own_span)(at_work)


@spans.changes(Document.Failed, pick=own_span)
def not_indexed(row: Row, event: Document.Failed, message: Recorded) -> Row | None:
    return failed(row, event, message) if row["status"] == "running" else None


# --- replays -------------------------------------------------------------------------------------------------


@spans.makes(Replay.Requested, Replay.Retried, once=own_span)
def replay_waits(event: Any, message: Recorded) -> Row:
    return begun(message, event.timestamp, "handler", "replay", "replay", event.originator_id, attempt=1)


spans.changes(Replay.Requested, Replay.Retried, pick=own_span)(resumed)


@spans.changes(Replay.Completed, pick=own_span)
def replayed(row: Row, event: Replay.Completed, message: Recorded) -> Row:
    return ended(row, event, message, "ok")


@spans.changes(Replay.Failed, pick=own_span)
def not_replayed(row: Row, event: Replay.Failed, message: Recorded) -> Row:
    return failed(row, event, message)


# --- retrievals ----------------------------------------------------------------------------------------------


def _for_search(call: ModelCall.Requested) -> bool:
    """Return True when a call helps to search: of the chats, the one that makes a filter out of the question; of the
    embeddings, all but the one that looks for an annotation."""
    number = call.route["try"] if call.route else 1
    if call.kind == "embedding":
        return call.originator_id != _call_of(call.cause_id, "annotation", call.attempt, number)
    return call.kind == "rerank" or call.originator_id == _call_of(call.cause_id, "filter", call.attempt, number)


@lru_cache(maxsize=1024)
def _call_of(message: str, step: str, attempt: int, number: int = 1) -> str:
    """The id of the call that an attempt at an answer makes in a step, in its n-th try."""
    return commit_id(message, f"{step}:{attempt}" + (f":{number}" if number > 1 else ""))


def retrieval_span(event: Any, message: Recorded) -> str | None:
    """The search that a call or a retrieval is part of, or stands for."""
    if event.cause_noun != "message" or not (isinstance(event, Retrieval.Made) or _for_search(event)):
        return None
    return span_id(message.metadata.correlation, event.cause_id, "retrieval")


def causing_span(event: ModelCall.Requested | Retrieval.Made | Effect.Requested, message: Recorded) -> str:
    """The handler that a call or a retrieval was made for."""
    return span_id(message.metadata.correlation, event.cause_id)


def _handler(event: Any, message: Recorded) -> str | None:
    """The handler that searches."""
    return causing_span(event, message) if retrieval_span(event, message) else None


def tool_span(event: Any, message: Recorded) -> str:
    """The call of a tool that caused a call of a model or a search, where one did."""
    return message.metadata.causation or ""


def _searches(event: Any, message: Recorded, handler: Row, cause: Row | None) -> list[Row]:
    """A call after the handler's end begins no search, because no event would end it; nor does one of a tool, which
    is the search itself."""
    if handler["status"] != "running" and isinstance(event, ModelCall.Requested):
        return []
    if cause and cause["kind"] == "tool":
        return []
    search = begun(
        message,
        event.timestamp,
        "retrieval",
        "retrieval",
        event.cause_noun,
        event.cause_id,
        handler,
        id=retrieval_span(event, message),
        conversation_id=handler["conversation_id"],
        attempt=event.attempt,
        attributes=attributes.retrieval((), None),
    )
    return [search]


# A call, mostly for the embedding of the question, is the first event of its search.
spans.makes(
    ModelCall.Requested, Retrieval.Made, within=(spans, _handler), related=(spans, tool_span), once=retrieval_span
)(_searches)


@spans.changes(ModelCall.Requested, pick=retrieval_span, related=(spans, _handler))
def searching_again(row: Row, event: ModelCall.Requested, message: Recorded, handler: Row | None) -> Row | None:
    if handler is None or handler["status"] != "running" or row["attempt"] == event.attempt:
        return None
    return {**RUNNING, "attempt": event.attempt}


@spans.changes(Retrieval.Made, pick=retrieval_span, related=(spans, _handler))
def made(row: Row, event: Retrieval.Made, message: Recorded, handler: Row | None) -> Row:
    """It began before its calls, the first of which has made the row, and those of an earlier attempt."""
    began = event.timestamp - timedelta(milliseconds=event.duration_ms)
    if handler:
        began = max(began, handler["started_at"])
    columns: Row = {
        "started_at": min(began, row["started_at"]),
        "duration_ms": event.duration_ms,
        "attempt": event.attempt,
        "retrieval_id": event.originator_id,
        "attributes": attributes.retrieval(event.datasets, event.retrieval["top_k"]),
    }
    if event.code:
        return {**failed(row, event, message), **columns}
    return {**RUNNING, **ended(row, event, message, "ok"), **columns}


# --- calls of models -----------------------------------------------------------------------------------------


def calling_span(event: Any, message: Recorded) -> str:
    """Return the id of the span that a call is part of: a search, the indexing of a document, or else the handler."""
    part = ""
    if _for_search(event):
        part = {"message": "retrieval", "document": "index"}.get(event.cause_noun, "")
    return span_id(message.metadata.correlation, event.cause_id, part)


@spans.makes(ModelCall.Requested, related=(spans, calling_span), new=originator)
def requested(event: ModelCall.Requested, message: Recorded, parent: Row | None) -> Row:
    verb = "embeddings" if event.kind == "embedding" else event.kind
    return begun(
        message,
        event.timestamp,
        event.kind,
        f"{verb} {event.model}",
        event.cause_noun,
        event.cause_id,
        parent,
        id=event.originator_id,
        conversation_id=parent and parent["conversation_id"],
        attempt=event.attempt,
        model_call_id=event.originator_id,
        provider=event.provider,
        model=event.model,
        attributes=attributes.requested(event.kind, event.provider, event.model, event.server, event.request),
    )


spans.changes(ModelCall.Requested, Retrieval.Made, pick=causing_span)(at_work)


@spans.changes(ModelCall.Requested, related=(spans, tool_span))
def of_tool(
    row: Row, event: ModelCall.Requested | ToolCall.Requested, message: Recorded, cause: Row | None
) -> Row | None:
    """A call that a tool makes is part of the tool's."""
    if cause is None or cause["kind"] != "tool":
        return None
    return {"parent_id": cause["id"], "started_at": max(row["started_at"], cause["started_at"])}


_FIRST_ROUNDS = tuple(f"agent:1:{strategy}" for strategy in ("tools", "schema", "react", "plugin"))
"""The steps in which an agent begins its turn."""


@spans.changes(ModelCall.Requested, pick=causing_span)
def agent_begins(row: Row, event: ModelCall.Requested, message: Recorded) -> Row | None:
    if event.kind != "chat" or event.cause_noun != "message" or attributes.OPERATION_NAME in row["attributes"]:
        return None
    number = event.route["try"] if event.route else 1
    begins = {_call_of(event.cause_id, step, event.attempt, number) for step in _FIRST_ROUNDS}
    return {"attributes": row["attributes"] | attributes.agent()} if event.originator_id in begins else None


@spans.changes(ModelCall.Completed, related=(model_calls, originator))
def completed(row: Row, event: ModelCall.Completed, message: Recorded, call: Row | None) -> Row:
    of_answer = attributes.completed(
        row["kind"],
        event.usage,
        response_id=event.response_id,
        response_model=event.response_model,
        finish_reason=event.finish_reason,
        first_token_ms=event.first_token_ms,
    )
    if row["kind"] == "rerank" and call:
        of_answer |= attributes.reranked(call["request"].get("segments") or (), event.response)
    return {
        **ended(row, event, message, "ok"),
        "duration_ms": event.duration_ms,
        "first_token_ms": event.first_token_ms,
        "prompt_tokens": event.usage["prompt_tokens"],
        "completion_tokens": event.usage["completion_tokens"],
        "cost": call and call["cost"],
        "attributes": row["attributes"] | of_answer,
    }


@spans.changes(ModelCall.Failed, related=(model_calls, originator))
def call_failed(row: Row, event: ModelCall.Failed, message: Recorded, call: Row | None) -> Row:
    return failed(row, event, message) | _broken(row, event, call)


@spans.changes(ModelCall.Cancelled, related=(model_calls, originator))
def cancelled(row: Row, event: ModelCall.Cancelled, message: Recorded, call: Row | None) -> Row:
    return ended(row, event, message, "cancelled") | _broken(row, event, call)


@spans.makes(ModelCall.Filtered, related=(spans, originator))
def filtered(event: ModelCall.Filtered, message: Recorded, call: Row | None) -> list[Row]:
    """The hooks of plugins, next to the call that they were for: those before it end when it is recorded.

    None where a later command ends a call of another trace.
    """
    if call is None or call["trace_id"] != message.metadata.correlation:
        return []
    return [_hook(event, message, call, number, run) for number, run in enumerate(event.plugins)]


def _hook(event: ModelCall.Filtered, message: Recorded, call: Row, number: int, run: PluginRun) -> Row:
    name, at = f"{run['hook']} {run['name']}", event.timestamp
    # Not before the call, which is not before its handler, whatever the clocks of two machines say.
    began = max(at - timedelta(milliseconds=run["ms"]), call["started_at"])
    return begun(
        message,
        began,
        "plugin",
        name,
        call["noun"],
        call["noun_id"],
        id=derived_id(f"{event.originator_id}/{event.originator_version}/plugin/{number}"),
        parent_id=call["parent_id"],
        conversation_id=call["conversation_id"],
        attempt=call["attempt"],
        status="error" if run["code"] else "ok",
        error_code=run["code"],
        ended_at=max(at, began),
        duration_ms=run["ms"],
        ended_sequence=message.position.sequence,
        attributes=attributes.filtered(run),
    )


def _broken(row: Row, event: ModelCall.Failed | ModelCall.Cancelled, call: Row | None) -> Row:
    """The duration of a call that did not come to its end, and its tokens where they are known."""
    if event.usage is None:
        return {"duration_ms": event.duration_ms}
    return {
        "duration_ms": event.duration_ms,
        "prompt_tokens": event.usage["prompt_tokens"],
        "completion_tokens": event.usage["completion_tokens"],
        "cost": call and call["cost"],
        "attributes": row["attributes"] | attributes.used(row["kind"], event.usage),
    }


# --- calls of tools -------------------------------------------------------------------------------------------


@spans.makes(ToolCall.Requested, related=(spans, causing_span), new=originator)
def tool_requested(event: ToolCall.Requested, message: Recorded, handler: Row | None) -> Row:
    return begun(
        message,
        event.timestamp,
        "tool",
        f"{attributes.EXECUTE_TOOL} {event.name}",
        event.cause_noun,
        event.cause_id,
        handler,
        id=event.originator_id,
        conversation_id=event.conversation,
        attempt=event.attempt,
        tool_call_id=event.originator_id,
        attributes=attributes.tool(event.originator_id, event.kind, event.name, event.server),
    )


spans.changes(ToolCall.Requested, related=(spans, tool_span))(of_tool)


@spans.changes(ToolCall.Held)
def tool_held(row: Row, event: ToolCall.Held, message: Recorded) -> Row:
    return {"status": "held"}


@spans.changes(ToolCall.Asked)
def tool_asked(row: Row, event: ToolCall.Asked, message: Recorded) -> Row:
    return {"status": "held"}


@spans.changes(ToolCall.Answered)
def tool_answered(row: Row, event: ToolCall.Answered, message: Recorded) -> Row | None:
    return None if event.open else {"status": "running"}


@spans.changes(ToolCall.Released)
def tool_released(row: Row, event: ToolCall.Released, message: Recorded) -> Row:
    """The time that it waited is not the tool's."""
    return {"status": "running", "started_at": max(event.timestamp, row["started_at"])}


@spans.changes(ToolCall.Begun)
def tool_begun(row: Row, event: ToolCall.Begun, message: Recorded) -> Row:
    return {**RUNNING, "attempt": event.attempt}


@spans.changes(ToolCall.Completed)
def tool_completed(row: Row, event: ToolCall.Completed, message: Recorded) -> Row:
    return ended(row, event, message, "ok") | {"duration_ms": event.duration_ms}


@spans.changes(ToolCall.Failed)
def tool_failed(row: Row, event: ToolCall.Failed, message: Recorded) -> Row:
    return failed(row, event, message) | {"duration_ms": event.duration_ms}


@spans.changes(ToolCall.Refused)
def tool_refused(row: Row, event: ToolCall.Refused, message: Recorded) -> Row:
    """The decision of a person is no error."""
    return ended(row, event, message, "cancelled", error_code=event.code, error=event.reason)


@spans.changes(ToolCall.Cancelled)
def tool_cancelled(row: Row, event: ToolCall.Cancelled, message: Recorded) -> Row:
    return ended(row, event, message, "cancelled") | {"duration_ms": event.duration_ms}


@spans.changes(Retrieval.Made, pick=tool_span)
def searched(row: Row, event: Retrieval.Made, message: Recorded) -> Row | None:
    """A tool that searches is the search itself."""
    if row["kind"] != "tool":
        return None
    found = attributes.retrieval(event.datasets, event.retrieval["top_k"])
    return {"retrieval_id": event.originator_id, "attributes": found | row["attributes"]}
