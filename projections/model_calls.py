"""Every call of a model: the table `model_calls`."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Double, Text
from sqlalchemy.dialects.postgresql import JSONB

from domain.log import Recorded
from domain.model_call import ModelCall
from projections.read_model import Id, ReadModel, Row, Time, key, optional, originator, required

model_calls = ReadModel(
    "model_calls",
    "Calls of models, each on record before it is made. They outlive what they were made for.",
    key("id", "Call."),
    required("kind", Text, "chat or embedding."),
    required("provider", Text, "Provider of the model: builtin, or the id of a row in providers."),
    required("model", Text, "Name of the model at its provider."),
    required("status", Text, "requested, completed, failed or cancelled; one that stays requested was never answered."),
    required("cause_noun", Text, "Noun that it was made for: message or document."),
    required("cause_id", Id, "Message or document that it was made for."),
    required("request", JSONB, "What was sent: messages and parameters; of an embedding, segments and tokens."),
    required("response", Text, "What came back; empty before, and as far as it came when it failed."),
    optional("finish_reason", Text, "Why the answer ended, as the server says; null when it does not."),
    optional("prompt_tokens", BigInteger, "Tokens that were sent; null before the answer."),
    optional("completion_tokens", BigInteger, "Tokens that came back; null before the answer."),
    optional("tokens_estimated", Boolean, "The server did not count the tokens; null before the answer."),
    optional("first_token_ms", Double, "Milliseconds to the first token; null when none came."),
    optional("duration_ms", Double, "Milliseconds to the end; null when it is not known."),
    optional("error_code", Text, "Why it failed, for programs; null when it did not."),
    optional("error", Text, "Why it failed, for people; null when it did not."),
    required("correlation_id", Id, "Command that began the chain of causes that the call belongs to."),
    optional("traceparent", Text, "Trace that the call belongs to, in W3C form; null when not traced."),
    required("created_at", Time, "When it was put on record, just before it was made."),
    optional("finished_at", Time, "When it ended; null while it has not."),
    required("updated_at", Time, "When it last changed."),
)
model_calls.looked_up("cause_id")


@model_calls.makes(ModelCall.Requested, new=originator)
def requested(event: ModelCall.Requested, message: Recorded) -> Row:
    return {
        "id": event.originator_id,
        "kind": event.kind,
        "provider": event.provider,
        "model": event.model,
        "status": "requested",
        "cause_noun": event.cause_noun,
        "cause_id": event.cause_id,
        "request": event.request,
        "response": "",
        "correlation_id": message.metadata.correlation,
        "traceparent": message.metadata.traceparent,
    }


@model_calls.changes(ModelCall.Completed)
def completed(row: Row, event: ModelCall.Completed, message: Recorded) -> Row:
    return {
        "status": "completed",
        "response": event.response,
        "finish_reason": event.finish_reason,
        "prompt_tokens": event.usage["prompt_tokens"],
        "completion_tokens": event.usage["completion_tokens"],
        "tokens_estimated": event.usage["estimated"],
        "first_token_ms": event.first_token_ms,
        "duration_ms": event.duration_ms,
        "finished_at": event.timestamp,
    }


@model_calls.changes(ModelCall.Failed)
def failed(row: Row, event: ModelCall.Failed, message: Recorded) -> Row:
    return {
        "status": "failed",
        "response": event.response,
        "error_code": event.code,
        "error": event.reason,
        "duration_ms": event.duration_ms,
        "finished_at": event.timestamp,
    }


@model_calls.changes(ModelCall.Cancelled)
def cancelled(row: Row, event: ModelCall.Cancelled, message: Recorded) -> Row:
    return {
        "status": "cancelled",
        "response": event.response,
        "duration_ms": event.duration_ms,
        "finished_at": event.timestamp,
    }
