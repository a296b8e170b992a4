"""Every call of a model: the table `model_calls`."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Double, Integer, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from domain.access.end_user import EndUser
from domain.builtin import BUILTIN
from domain.log import Recorded
from domain.models.model import model_id
from domain.models.model_call import ModelCall, TokenUsage
from projections.engine.columns import Id, Time, key, optional, person, required
from projections.engine.read_model import ReadModel, Row, originator
from projections.engine.values import Values
from projections.provider_models import provider_models
from projections.values.fingerprint import fingerprint
from projections.values.prices import Call, Cost

model_calls = ReadModel(
    "model_calls",
    "Calls of models, each recorded before it is sent. They outlive what they were made for.",
    key("id", "Call."),
    required("kind", Text, "chat, embedding, rerank, moderation, transcription or speech."),
    required("provider", Text, "Provider of the model: builtin, or the id of a row in providers."),
    required("model", Text, "Name of the model at its provider."),
    required("status", Text, "requested, completed, failed or cancelled; one that stays requested was never answered."),
    required(
        "cause_noun",
        Text,
        "Noun that it was made for: message, document, replay, provider, dataset, transcription or speech.",
    ),
    required("cause_id", Id, "Message, document, replay, provider or test query that it was made for."),
    required("attempt", Integer, "Attempt of the cause, from 1; 0 when it is not known."),
    optional("route", Text, "Route that chose the model; null where the app named it."),
    required("try", Integer, "Try, from 1: a call that failed may be made again, or with another model."),
    optional("after", Id, "Call before this one, which failed; null for the first try."),
    required("server", Text, "Address of the model, as host:port; empty for one within Headrace."),
    required(
        "request",
        JSONB,
        "Content sent. Of a chat: parameters, and messages in pieces, which the view model_call_requests puts "
        "together. Of an embedding: texts, tokens. Of a rerank: query, segments. Of a filter's server: where, texts. "
        "Of a transcription: file, language. Of a speech: text, voice.",
    ),
    required(
        "response",
        Text,
        "Answer; empty before, and as far as it came when it failed. Scores of a rerank, blob of a speech.",
    ),
    required("reasoning", Text, "Reasoning of the model before its answer; empty for none, and before the answer."),
    optional("tool_calls", JSONB, "Calls of tools that the model asked for: id, name, arguments; null for none."),
    optional("state", JSONB, "State that the server wants back with the next request; null for none."),
    optional("logprobs", JSONB, "Log probabilities of tokens, as the server gives them; null for none."),
    optional("response_id", Text, "Id that the server gave the answer; null when it gave none."),
    optional("response_model", Text, "Model that answered, as the server names it; null when it does not."),
    optional("finish_reason", Text, "Reason for the end of the answer, as the server gives it; null if it gives none."),
    optional("prompt_tokens", BigInteger, "Tokens that were sent; null before the end, and where nothing came back."),
    optional("completion_tokens", BigInteger, "Tokens that came back, those of reasoning included; null likewise."),
    optional("cached_tokens", BigInteger, "Of the tokens sent, those read from a cache; null when it is not known."),
    optional("cache_write_tokens", BigInteger, "Of the tokens sent, those written into a cache; null when not known."),
    optional("reasoning_tokens", BigInteger, "Of the tokens that came back, those of reasoning; null when not known."),
    optional("tokens_estimated", Boolean, "The server did not count the tokens; null before the answer."),
    optional("usage", JSONB, "Tokens as the server reports them, in its own form; null before the answer."),
    optional("cost", Double, "US dollars; null before the answer, and when no price is known."),
    optional(
        "price_source",
        Text,
        "Source of the price: entry (of the tenant), installation, list or builtin; null likewise.",
    ),
    optional("entry_prices", JSONB, "Prices in the tenant's entry of the model when it was called; null for none."),
    optional("price_version", Text, "Prices that the cost was made with; null before the answer."),
    optional("first_token_ms", Double, "Milliseconds to the first token; null when none came."),
    optional("duration_ms", Double, "Milliseconds to the end; null when it is not known."),
    optional("error_code", Text, "Error code; null on success."),
    optional("error", Text, "Error message; null on success."),
    optional("fingerprint", Text, "Digest, equal for equal failures of different objects; null on success."),
    optional(
        "grants",
        JSONB,
        "Leases of quotas that pay for the call: window (in quota_windows), lease, unit, and the amount reserved, or "
        "charged once the call has ended; null for none.",
    ),
    required("correlation_id", Id, "Command that began the chain of causes that the call belongs to."),
    person(),
    optional("traceparent", Text, "Trace that the call belongs to, in W3C form; null when not traced."),
    required("created_at", Time, "Time of the record, just before the call was sent."),
    optional("finished_at", Time, "When it ended; null while it has not."),
    required("updated_at", Time, "Time of the last change."),
)
model_calls.looked_up("cause_id")
model_calls.looked_up("correlation_id")
model_calls.sorted_by("created_at", "created_at")
model_calls.sorted_by("open", "id", within=(), postgresql_where=text("status = 'requested'"))
model_calls.sorted_by("lost", "id", within=(), postgresql_where=text("error_code = 'lost'"))
model_calls.priced("cost", "price_source", "price_version")
model_calls.sets(
    EndUser.Erased,
    {
        "request": {},
        "response": "",
        "reasoning": "",
        "tool_calls": None,
        "state": None,
        "logprobs": None,
        "error": None,
        "fingerprint": None,
    },
    column="person_id",
)


def _model(event: ModelCall.Requested, message: Recorded) -> str | None:
    return None if event.provider == BUILTIN else model_id(event.provider, event.model)


@model_calls.makes(ModelCall.Requested, related=(provider_models, _model), new=originator)
def requested(event: ModelCall.Requested, message: Recorded, model: Row | None) -> Row:
    return {
        "id": event.originator_id,
        "kind": event.kind,
        "provider": event.provider,
        "model": event.model,
        "status": "requested",
        "cause_noun": event.cause_noun,
        "cause_id": event.cause_id,
        "attempt": event.attempt,
        "route": (event.route["name"] or None) if event.route else None,
        "try": event.route["try"] if event.route else 1,
        "after": event.route["after"]["call"] if event.route and event.route["after"] else None,
        "server": event.server,
        "entry_prices": model and model["entry"] and model["entry"]["prices"],
        "request": event.request,
        "response": "",
        "reasoning": "",
        "correlation_id": message.metadata.correlation,
        "traceparent": message.metadata.traceparent,
        "person_id": message.metadata.person,
    }


@model_calls.changes(ModelCall.Reserved, ModelCall.Charged)
def paid(row: Row, event: ModelCall.Reserved | ModelCall.Charged, message: Recorded) -> Row:
    return {"grants": event.grants}


def ended(row: Row, event: ModelCall.Completed | ModelCall.Failed | ModelCall.Cancelled, values: Values) -> Row:
    """The columns of a call that has ended, however it did."""
    return {
        **used(row, event.usage, values),
        "response": event.response,
        "reasoning": event.reasoning,
        "duration_ms": event.duration_ms,
        "finished_at": event.timestamp,
    }


def used(row: Row, usage: TokenUsage | None, values: Values) -> Row:
    """The columns of the tokens of a call, and of their cost; a filter's server takes none."""
    if usage is None:
        return {}
    call = Call(row["provider"], row["server"], row["model"], row["created_at"])
    free = row["kind"] == "moderation" and not usage["prompt_tokens"] + usage["completion_tokens"]
    cost = Cost(0.0, None) if free else values.prices.cost(call, usage, row["entry_prices"])
    return {
        "prompt_tokens": usage["prompt_tokens"],
        "completion_tokens": usage["completion_tokens"],
        "cached_tokens": usage["cached_tokens"],
        "cache_write_tokens": usage["cache_write_tokens"],
        "reasoning_tokens": usage["reasoning_tokens"],
        "tokens_estimated": usage["estimated"],
        "usage": usage["raw"],
        "cost": cost.amount,
        "price_source": cost.source,
        "price_version": values.prices.version,
    }


@model_calls.changes(ModelCall.Completed, values=True)
def completed(row: Row, event: ModelCall.Completed, message: Recorded, values: Values) -> Row:
    return {
        **ended(row, event, values),
        "status": "completed",
        "tool_calls": event.tool_calls,
        "state": event.state,
        "logprobs": event.logprobs,
        "response_id": event.response_id,
        "response_model": event.response_model,
        "finish_reason": event.finish_reason,
        "first_token_ms": event.first_token_ms,
    }


@model_calls.changes(ModelCall.Failed, values=True)
def failed(row: Row, event: ModelCall.Failed, message: Recorded, values: Values) -> Row:
    return {
        **ended(row, event, values),
        "status": "failed",
        "error_code": event.code,
        "error": event.reason,
        "fingerprint": fingerprint(row["kind"], event.code, event.reason),
    }


@model_calls.changes(ModelCall.Cancelled, values=True)
def cancelled(row: Row, event: ModelCall.Cancelled, message: Recorded, values: Values) -> Row:
    return {**ended(row, event, values), "status": "cancelled"}
