"""Every call of a tool: the table `tool_calls`."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Boolean, Double, Integer, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from domain.access.end_user import EndUser
from domain.log import Recorded
from domain.tools.tool_call import ToolCall
from projections.engine.columns import Id, Time, key, optional, person, required
from projections.engine.read_model import ReadModel, Row, originator

tool_calls = ReadModel(
    "tool_calls",
    "Calls of tools, each recorded before it is made. They outlive what they were made for.",
    key("id", "Call, and the key by which an idempotent tool knows it again."),
    required("toolset", Text, "Toolset, in toolsets, or builtin; empty for a tool that was not offered."),
    required("kind", Text, "Kind of the toolset: builtin, openapi, mcp, app, dataset, sql or plugin; empty likewise."),
    required("tool", Text, "Tool, by its name in the toolset; empty likewise."),
    required("name", Text, "Name that the model called it by."),
    required("digest", Text, "Blob with the list of tools that it was taken from; empty for the built-in ones."),
    required(
        "status",
        Text,
        "requested, held, released, completed, failed, refused or cancelled; the outcome of one that stays requested "
        "is unknown.",
    ),
    required("cause_noun", Text, "Noun that it was made for: message."),
    required("cause_id", Id, "Message that it was made for."),
    required("conversation_id", Id, "Conversation of the message."),
    required("app_id", Id, "App whose agent called it."),
    required(
        "model_call_id", Id, "Model call that asked for it, in model_calls; empty where a strategy did by itself."
    ),
    optional("within_id", Id, "Call of a tool that made it itself, in tool_calls; null for the agent's."),
    required("round", Integer, "Round of the agent, from 1."),
    required("position", Integer, "Place among the calls of the round, from 0."),
    required("attempt", Integer, "Attempt at the answer that made it last, from 1."),
    required("runs", Integer, "Number of times that it was made; 0 where it waits, or was not made."),
    required("destructive", Boolean, "False if the tool is known to change nothing outside."),
    required("idempotent", Boolean, "It may be made again when its outcome is unknown."),
    required("server", Text, "Address of the tool, as host:port; empty for one within Headrace."),
    required("arguments", Text, "Arguments, as text of a JSON object; as the model wrote them, if they are invalid."),
    required("result", Text, "Result as the model was given it; empty before, and without one."),
    required("parts", JSONB, "Other parts of the result: json, file, image, link, citation."),
    optional(
        "held_why",
        Text,
        "Why it waited for a person last: approval, changed, or question, which its server asks; null where it did "
        "not.",
    ),
    optional("held_until", Time, "When it is refused unless it was decided; null where it did not wait."),
    required(
        "questions",
        JSONB,
        "Questions that its server asked last: name, message, form (a JSON Schema), and the answer: action (null "
        "before) and content.",
    ),
    optional("decided_by", Text, "Actor who released, refused or answered it; null for none."),
    optional("decided_at", Time, "When it was released, refused or answered; null likewise."),
    optional("error_code", Text, "Error code; null on success. `lost`: it is unknown whether it did something."),
    optional("error", Text, "Error message; null on success."),
    optional("duration_ms", Double, "Milliseconds to the end; null when it is not known."),
    required("correlation_id", Id, "Command that began the chain of causes that the call belongs to."),
    person(),
    optional("traceparent", Text, "Trace that the call belongs to, in W3C form; null when not traced."),
    required("created_at", Time, "Time of the record, just before the call was made."),
    optional("finished_at", Time, "When it ended; null while it has not."),
    required("updated_at", Time, "Time of the last change."),
)
tool_calls.looked_up("cause_id")
tool_calls.looked_up("model_call_id")
tool_calls.looked_up("correlation_id")
tool_calls.sorted_by("created_at", "created_at")
tool_calls.sorted_by("held", "id", within=(), postgresql_where=text("status = 'held'"))
tool_calls.sorted_by("open", "id", within=(), postgresql_where=text("status = 'requested'"))
tool_calls.sets(
    EndUser.Erased, {"arguments": "", "result": "", "parts": [], "questions": [], "error": None}, column="person_id"
)


@tool_calls.makes(ToolCall.Requested, new=originator)
def requested(event: ToolCall.Requested, message: Recorded) -> Row:
    return {
        "id": event.originator_id,
        "toolset": event.toolset,
        "kind": event.kind,
        "tool": event.tool,
        "name": event.name,
        "digest": event.digest,
        "status": "requested",
        "cause_noun": event.cause_noun,
        "cause_id": event.cause_id,
        "conversation_id": event.conversation,
        "app_id": event.app,
        "model_call_id": event.model_call,
        "within_id": event.within,
        "round": event.round,
        "position": event.position,
        "attempt": event.attempt,
        "runs": 1,
        "destructive": event.destructive,
        "idempotent": event.idempotent,
        "server": event.server,
        "arguments": event.arguments,
        "result": "",
        "parts": [],
        "questions": [],
        "correlation_id": message.metadata.correlation,
        "traceparent": message.metadata.traceparent,
        "person_id": message.metadata.person,
    }


@tool_calls.changes(ToolCall.Held)
def held(row: Row, event: ToolCall.Held, message: Recorded) -> Row:
    return {"status": "held", "runs": 0, "held_why": event.why, "held_until": datetime.fromisoformat(event.until)}


@tool_calls.changes(ToolCall.Asked)
def asked(row: Row, event: ToolCall.Asked, message: Recorded) -> Row:
    questions = [{**question, "action": None, "content": {}} for question in event.questions]
    until = datetime.fromisoformat(event.until)
    return {"status": "held", "held_why": "question", "held_until": until, "questions": questions}


@tool_calls.changes(ToolCall.Answered)
def answered(row: Row, event: ToolCall.Answered, message: Recorded) -> Row:
    questions = list(row["questions"])
    if (place := len(questions) - event.open) > 0:  # there are none once the person is erased
        questions[place - 1] = {**questions[place - 1], "action": event.action, "content": event.content}
    status = "held" if event.open else "requested" if event.session else "released"
    decided = {"decided_by": message.metadata.actor, "decided_at": event.timestamp}
    return {"status": status, "questions": questions, **decided}


@tool_calls.changes(ToolCall.Released)
def released(row: Row, event: ToolCall.Released, message: Recorded) -> Row:
    return {"status": "released", "decided_by": message.metadata.actor, "decided_at": event.timestamp}


@tool_calls.changes(ToolCall.Refused)
def refused(row: Row, event: ToolCall.Refused, message: Recorded) -> Row:
    decided = {} if event.code == "expired" else {"decided_by": message.metadata.actor, "decided_at": event.timestamp}
    return {
        "status": "refused",
        "error_code": event.code,
        "error": event.reason,
        "finished_at": event.timestamp,
        **decided,
    }


@tool_calls.changes(ToolCall.Begun)
def begun(row: Row, event: ToolCall.Begun, message: Recorded) -> Row:
    return {"status": "requested", "attempt": event.attempt, "runs": row["runs"] + 1}


@tool_calls.changes(ToolCall.Completed)
def completed(row: Row, event: ToolCall.Completed, message: Recorded) -> Row:
    return {
        "status": "completed",
        "result": event.text,
        "parts": event.parts,
        "duration_ms": event.duration_ms,
        "finished_at": event.timestamp,
    }


@tool_calls.changes(ToolCall.Failed)
def failed(row: Row, event: ToolCall.Failed, message: Recorded) -> Row:
    return {
        "status": "failed",
        "error_code": event.code,
        "error": event.reason,
        "duration_ms": event.duration_ms,
        "finished_at": event.timestamp,
        "runs": 0 if event.code in ("invalid_arguments", "unknown_tool") else row["runs"],
    }


@tool_calls.changes(ToolCall.Cancelled)
def cancelled(row: Row, event: ToolCall.Cancelled, message: Recorded) -> Row:
    return {"status": "cancelled", "duration_ms": event.duration_ms, "finished_at": event.timestamp}
