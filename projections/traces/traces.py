"""All that a command set in motion with models: the table `traces`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import BigInteger, Double, Integer, Text
from sqlalchemy.dialects.postgresql import ARRAY

from domain.access.end_user import EndUser
from domain.aggregate import Event
from domain.chat.conversation import Conversation
from domain.knowledge.document import Document
from domain.log import Recorded
from domain.models.model_call import ModelCall
from domain.models.passage import Passage
from domain.models.piece import Piece, pieces
from domain.models.replay import Replay
from domain.workflows.run import Run
from projections.engine.columns import Id, Time, key, optional, person, required
from projections.engine.links import follows
from projections.engine.read_model import ReadModel, Row, correlation, originator
from projections.engine.values import Values
from projections.messages import message_of
from projections.model_calls import model_calls
from projections.traces.late import redirect_steps
from projections.traces.run_spans import spans
from projections.traces.spans import span_id
from projections.traces.subjects import subjects, texts_of
from projections.values.previews import preview, with_words

traces = ReadModel(
    "traces",
    "Commands that had models at work, one row a command, rolled up from spans. Traces outlive "
    "what they were made for.",
    key("id", "Command that began it; what all that followed has as correlation id."),
    required(
        "kind",
        Text,
        "message, document, replay, run; audio: calls that transcribe or speak; check: calls that check a provider; "
        "index: calls for an index that is rebuilt.",
    ),
    required("name", Text, "Command: noun.verb."),
    required("status", Text, "running, held, ok, error, cancelled or unknown: what became of its handler last."),
    required("started_at", Time, "When it began."),
    optional("ended_at", Time, "When its handler ended; null while it has not."),
    optional("duration_ms", Double, "Milliseconds to that; null before, and when it was given up."),
    optional("first_token_ms", Double, "Milliseconds to the first token of an answer; null when none came."),
    optional("app_id", Id, "App that answers."),
    optional("conversation_id", Id, "Conversation; null where there is none."),
    optional("message_id", Id, "Message; null where there is none."),
    optional("document_id", Id, "Document; null where there is none."),
    optional("dataset_id", Id, "Dataset of the document; null where there is none."),
    optional("replay_id", Id, "Replay; null where there is none."),
    optional("run_id", Id, "Run of a workflow, in workflow_runs; null where there is none."),
    optional("end_user", Text, "Name of the user who asked; null where there is none, or when the person was erased."),
    person(),
    required("question", Text, "Beginning of the question, name of the document, or inputs of the run, masked."),
    required("answer", Text, "Beginning of the answer, or of the outputs of the run, masked."),
    required(
        "words", ARRAY(Text), "Words of masked questions, inputs, answers and passages, each where it was first said."
    ),
    required("spans", Integer, "Spans."),
    required("model_calls", Integer, "Calls of models."),
    required("tool_calls", Integer, "Calls of tools."),
    required("held_calls", Integer, "Calls of tools that wait for a person."),
    required("open_calls", Integer, "Calls of models and tools that are being made."),
    required(
        "unknown_calls",
        Integer,
        "Calls of models and tools whose worker died, so that it is not known what came of them.",
    ),
    required("errors", Integer, "Spans that failed."),
    optional("provider", Text, "Provider of the chat model that was called last."),
    optional("model", Text, "Chat model that was called last."),
    required("models", ARRAY(Text), "All models that were called."),
    required("prompt_tokens", BigInteger, "Tokens that were sent to models."),
    required("completion_tokens", BigInteger, "Tokens that came back from models."),
    optional("cost", Double, "US dollars for the calls that have a price; null when none has."),
    required("unpriced_calls", Integer, "Calls that took tokens and have no price."),
    optional("error_code", Text, "Error code of its handler; null on success."),
    optional("error", Text, "Error message of its handler; null on success."),
    optional("fingerprint", Text, "Digest, equal for equal failures of different objects; null on success."),
    required("sequence", BigInteger, "Sequence in EVENTS of what began it."),
    optional("ended_sequence", BigInteger, "Sequence in EVENTS of what ended it; null while nothing has."),
    optional("traceparent", Text, "Trace that the command came with, in W3C form; null when with none."),
    required("actor", Text, "Actor who sent the command."),
    required("created_at", Time, "Time of the record."),
    required("updated_at", Time, "Time of the last change."),
)
ENDED = ("ended_at", "ended_sequence")

traces.sets(
    EndUser.Erased,
    {"end_user": None, "question": "", "answer": "", "words": [], "error": None, "fingerprint": None},
    column="person_id",
)
traces.sets(Document.Deleted, {"status": "cancelled"}, column="document_id", only={"status": "running"}, ended=ENDED)
for status in ("running", "held"):
    traces.sets(
        Conversation.Deleted, {"status": "cancelled"}, column="conversation_id", only={"status": status}, ended=ENDED
    )
traces.priced("cost", "unpriced_calls")

# --- how they are read ---------------------------------------------------------------------------------------

traces.sorted_by("newest", "started_at", "id")
traces.sorted_by("app_id", "app_id", "started_at", "id")
traces.sorted_by("end_user", "end_user", "started_at", "id")
traces.sorted_by("conversation_id", "conversation_id", "started_at", "id")
traces.sorted_by("status", "status", "started_at", "id", postgresql_where=traces.table.c.status != "ok")
traces.sorted_by("error", "fingerprint", "started_at", postgresql_where=traces.table.c.fingerprint.is_not(None))
traces.sorted_by("duration_ms", "duration_ms")
traces.sorted_by("cost", "cost")
traces.sorted_by(
    "ended", "ended_sequence", "id", within=(), postgresql_where=traces.table.c.ended_sequence.is_not(None)
)
traces.sorted_by("words", "words", within=(), postgresql_using="gin")

# --- how they begin ------------------------------------------------------------------------------------------


def _begun(event: Any, message: Recorded, kind: str, name: str, **columns: Any) -> Row:
    metadata = message.metadata
    return {
        "id": metadata.correlation,
        "kind": kind,
        "name": name,
        "status": "running",
        "started_at": event.timestamp,
        "person_id": metadata.person,
        "question": "",
        "answer": "",
        "words": [],
        "spans": 0,
        "model_calls": 0,
        "tool_calls": 0,
        "held_calls": 0,
        "open_calls": 0,
        "unknown_calls": 0,
        "errors": 0,
        "models": [],
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "unpriced_calls": 0,
        "sequence": message.position.sequence,
        "traceparent": metadata.traceparent,
        "actor": metadata.actor,
        **columns,
    }


@traces.makes(Conversation.Asked, Conversation.Retried, once=correlation, related=(subjects, message_of))
def asked(event: Conversation.Asked | Conversation.Retried, message: Recorded, subject: Row | None) -> Row:
    mine = subject if subject and subject["person_id"] == message.metadata.person else None
    return _begun(
        event,
        message,
        "message",
        "message.send" if isinstance(event, Conversation.Asked) else "message.retry",
        app_id=event.app,
        conversation_id=event.originator_id,
        message_id=event.message,
        end_user=mine and mine["end_user"],
        question=mine["question"] if mine else "",
        words=mine["words"] if mine else [],
    )


_DOCUMENT: dict[type[Event], str] = {
    Document.Uploaded: "document.upload",
    Document.Retried: "document.retry",
    Document.Reprocessed: "document.reprocess",
}


@traces.makes(*_DOCUMENT, once=correlation, related=(subjects, originator))
def document(event: Any, message: Recorded, subject: Row | None) -> Row:
    return _begun(
        event,
        message,
        "document",
        _DOCUMENT[type(event)],
        document_id=event.originator_id,
        dataset_id=subject and subject["dataset_id"],
        question=subject["question"] if subject else "",
        words=subject["words"] if subject else [],
    )


@traces.makes(Replay.Requested, once=correlation)
def replay_requested(event: Replay.Requested, message: Recorded) -> Row:
    return _begun(event, message, "replay", "replay.request", app_id=event.app, replay_id=event.originator_id)


@traces.makes(Replay.Retried, once=correlation)
def replay_retried(event: Replay.Retried, message: Recorded) -> Row:
    return _begun(event, message, "replay", "replay.retry", replay_id=event.originator_id)


@traces.makes(Run.Started, once=correlation, related=(subjects, originator))
def run_started(event: Run.Started, message: Recorded, subject: Row | None) -> Row:
    verb = event.source["kind"] if event.source else "try" if event.trigger == "draft" else "start"
    return _begun(
        event,
        message,
        "run",
        f"run.{verb}",
        app_id=event.app,
        end_user=event.user or None,
        question=subject["question"] if subject else "",
        words=subject["words"] if subject else [],
    )


@traces.changes(Run.Started, pick=correlation)
def runs(row: Row, event: Run.Started, message: Recorded) -> Row | None:
    return None if row["run_id"] else {"run_id": event.originator_id}


_OF_CALLS = {
    "annotation": "annotation.create",
    "dataset": "dataset.test",
    "message": "conversation.request_name",
    "suggestion": "message.suggest",
}
"""The commands without a handler that lead to calls, by the noun that these name as their cause."""
AUDIO = {"transcription": "audio.transcribe", "speech": "audio.speak"}
"""Commands by the kinds of their calls."""


@traces.makes(ModelCall.Requested, once=correlation)
def called(event: ModelCall.Requested, message: Recorded) -> Row:
    """No handler of a message, document or replay made the call: a provider is checked, audio is transcribed or
    spoken, an index is built, a dataset is tested, a conversation is named, questions are suggested, or an annotation
    is embedded."""
    if event.cause_noun == "provider":
        return _begun(event, message, "check", "provider.check")
    if event.kind in AUDIO:
        return _begun(event, message, "audio", AUDIO[event.kind])
    name = _OF_CALLS.get(event.cause_noun, f"index.{event.kind}")
    return _begun(event, message, "index", name)


# --- what their spans make of them ---------------------------------------------------------------------------


@follows(traces, spans, "trace_id", pick=correlation)
def rolled_up(trace: Row, before: Row | None, after: Row) -> Row:
    changed: Row = {}
    if after["started_at"] < trace["started_at"]:  # the clock of another machine is behind
        changed["started_at"] = after["started_at"]
        trace = trace | changed
    if before is None:
        changed["spans"] = trace["spans"] + 1
        if after["model_call_id"]:
            changed |= _called(trace, after)
        if after["tool_call_id"]:
            changed["tool_calls"] = trace["tool_calls"] + 1
    counted = _counts(before) if before else _NOTHING
    for column, count in _counts(after).items():
        if more := count - counted[column]:
            changed[column] = trace[column] + more
    if after["model_call_id"]:
        changed |= _ended_call(trace, before, after)
        if trace["kind"] in WITHOUT_HANDLER:
            changed |= _of_calls(trace, changed, after)
    elif after["kind"] == "handler" and after["parent_id"] is None:
        changed |= {name: after[name] for name in _OF_HANDLER}
        if after["duration_ms"] is not None:
            changed["duration_ms"] = (after["ended_at"] - trace["started_at"]) / timedelta(milliseconds=1)
    return changed


WITHOUT_HANDLER = ("index", "check", "audio")
"""Kinds of traces that have no handler: they run as long as their calls do."""

_OF_HANDLER = ("status", "ended_at", "duration_ms", "error_code", "error", "fingerprint", "ended_sequence")


def _counts(span: Row) -> dict[str, int]:
    call = span["model_call_id"] is not None
    either = call or span["tool_call_id"] is not None
    return {
        "held_calls": either and span["status"] == "held",
        "open_calls": either and span["status"] == "running",
        "unknown_calls": either and span["status"] == "unknown",
        "errors": span["status"] == "error",
        "unpriced_calls": call and span["prompt_tokens"] is not None and span["cost"] is None,
        "prompt_tokens": span["prompt_tokens"] or 0,
        "completion_tokens": span["completion_tokens"] or 0,
    }


_NOTHING = dict.fromkeys(
    ("held_calls", "open_calls", "unknown_calls", "errors", "unpriced_calls", "prompt_tokens", "completion_tokens"), 0
)


def _called(trace: Row, call: Row) -> Row:
    models = trace["models"] if call["model"] in trace["models"] else [*trace["models"], call["model"]]
    of_chat = {"provider": call["provider"], "model": call["model"]} if call["kind"] == "chat" else {}
    return {"model_calls": trace["model_calls"] + 1, "models": models, **of_chat}


def _ended_call(trace: Row, before: Row | None, call: Row) -> Row:
    changed: Row = {}
    if call["cost"] is not None and (before is None or before["cost"] is None):
        changed["cost"] = (trace["cost"] or 0.0) + call["cost"]
    # The chat that answers is the handler's own; one that helps a search is part of that.
    answers = call["kind"] == "chat" and call["parent_id"] == span_id(call["trace_id"], call["noun_id"])
    if answers and trace["first_token_ms"] is None and call["first_token_ms"] is not None:
        waited = (call["started_at"] - trace["started_at"]) / timedelta(milliseconds=1)
        changed["first_token_ms"] = waited + call["first_token_ms"]
    return changed


def _of_calls(trace: Row, changed: Row, call: Row) -> Row:
    """Where there is no handler, it runs as long as calls do."""
    counts = {name: changed.get(name, trace[name]) for name in ("open_calls", "unknown_calls", "errors")}
    if counts["open_calls"]:
        return dict.fromkeys(_OF_HANDLER) | {"status": "running"}
    status = "error" if counts["errors"] else "unknown" if counts["unknown_calls"] else "ok"
    return {
        "status": status,
        "ended_at": call["ended_at"],
        "duration_ms": (call["ended_at"] - trace["started_at"]) / timedelta(milliseconds=1),
        "ended_sequence": call["ended_sequence"],
    }


# --- what was said -------------------------------------------------------------------------------------------


def texts(event: object) -> list[str]:
    """The texts of an event whose words the search takes, so that they can be prepared before it is folded."""
    match event:
        case ModelCall.Requested():
            return asked_for(event.request)
        case ModelCall.Completed():
            return [event.response]
        case Passage.Recorded():
            return [event.text]
    return []


def asked_for(request: Mapping[str, Any]) -> list[str]:
    """The literal questions and inputs of a prompt; quoted texts are searched where they were said first."""
    said = pieces(request.get("messages") or ())
    return [piece["text"] for piece in said if "text" in piece and piece.get("from") in ("query", "input")]


@follows(traces, model_calls, "correlation_id", pick=correlation, values=True)
def said(trace: Row, before: Row | None, call: Row, values: Values) -> Row | None:
    """The words of a call, if they are of the trace's person, with whom the trace is erased.

    Only its call has the answer of a replay.
    """
    found = []
    if before is None:
        found = asked_for(call["request"])
    elif call["response"] != before["response"] and call["kind"] == "chat":
        found = [call["response"]]
    if not found or call["person_id"] != trace["person_id"]:
        return None
    changed = _words(trace, found, values)
    if trace["kind"] == "replay" and before is not None:
        changed["answer"] = preview(call["response"], values.masking)
    return changed


def _words(trace: Row, texts: Sequence[str], values: Values) -> Row:
    words = with_words(trace["words"], texts, values.words)
    return {"words": words} if len(words) > len(trace["words"]) else {}


@traces.changes(Passage.Recorded, pick=correlation, values=True)
def given(row: Row, event: Passage.Recorded, message: Recorded, values: Values) -> Row | None:
    """A passage is found where it was first given to a model."""
    return _words(row, [event.text], values)


def _question(event: ModelCall.Requested) -> Piece | None:
    """The question in the prompt of a replay."""
    said = pieces(event.request.get("messages") or ()) if event.cause_noun == "replay" else ()
    return next((piece for piece in said if piece.get("from") == "query"), None)


def _message_asked(event: ModelCall.Requested, message: Recorded) -> str | None:
    return question.get("message_id") if (question := _question(event)) else None


@traces.changes(ModelCall.Requested, pick=correlation, related=(subjects, _message_asked), values=True)
def replayed(
    row: Row, event: ModelCall.Requested, message: Recorded, subject: Row | None, values: Values
) -> Row | None:
    """Only the call of a replay has its question, if that is of the trace's person."""
    question = _question(event)
    if question is None or message.metadata.person != row["person_id"]:
        return None
    if "text" in question:
        return {"question": preview(question["text"], values.masking)}
    if subject is None or subject["person_id"] != row["person_id"]:
        return None
    return {"question": subject["question"], "words": list(dict.fromkeys((*row["words"], *subject["words"])))}


@traces.changes(Conversation.Answered, Conversation.Failed, Conversation.Stopped, pick=correlation, values=True)
def answered(row: Row, event: Any, message: Recorded, values: Values) -> Row | None:
    mine = row["message_id"] == event.message and row["person_id"] == message.metadata.person
    return {"answer": preview(event.answer, values.masking)} if mine else None


@traces.changes(Run.Finished, pick=correlation, values=True)
def put_out(row: Row, event: Run.Finished, message: Recorded, values: Values) -> Row | None:
    """The outputs of a run; those of one that answers a message are the answer."""
    if row["kind"] != "run" or row["run_id"] != event.originator_id or row["person_id"] != message.metadata.person:
        return None
    text = texts_of(event.outputs)
    return {"answer": preview(text, values.masking), **_words(row, [text], values)}


# --- steps of late workers -----------------------------------------------------------------------------------

redirect_steps(spans, traces)
