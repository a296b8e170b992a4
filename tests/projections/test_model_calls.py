from __future__ import annotations

from domain.aggregate import new_id
from domain.models.model_call import ModelCall
from projections.model_calls import model_calls
from tests.projections.history import TOKENS, History

REQUEST = {"messages": [{"role": "user", "content": "How high?"}], "parameters": {"temperature": 0}}


def requested(history: History) -> ModelCall:
    call = ModelCall.begin(
        ModelCall.Requested,
        new_id(),
        history.now,
        kind="chat",
        provider="local",
        model="tiny",
        cause_noun="message",
        cause_id="the-message",
        request=REQUEST,
    )
    history.record(call)
    return call


def test_given_nothing_when_a_model_is_about_to_be_called_then_the_call_is_recorded() -> None:
    history = History()
    call = requested(history)
    assert history.rows(model_calls) == [
        model_calls.blank
        | {
            "tenant_id": "default",
            "id": call.id,
            "kind": "chat",
            "provider": "local",
            "model": "tiny",
            "status": "requested",
            "cause_noun": "message",
            "cause_id": "the-message",
            "attempt": 1,
            "server": "",
            "request": REQUEST,
            "sources": [],
            "response": "",
            "correlation_id": "the-correlation",
            "traceparent": "the-trace",
            "created_at": call.created_on,
            "updated_at": call.created_on,
            "log_position": 1,
        }
    ]


def test_given_a_call_when_it_completes_then_usage_and_times_are_there() -> None:
    history = History()
    call = requested(history)
    call.complete(
        history.now, response="Four metres.", finish_reason="stop", usage=TOKENS, first_token_ms=8.5, duration_ms=90.0
    )
    at = history.record(call)
    (row,) = history.rows(model_calls)
    assert (row["status"], row["response"], row["finish_reason"]) == ("completed", "Four metres.", "stop")
    assert (row["prompt_tokens"], row["completion_tokens"], row["tokens_estimated"]) == (90, 12, False)
    assert (row["first_token_ms"], row["duration_ms"], row["finished_at"]) == (8.5, 90.0, at)


def test_given_a_call_when_it_fails_then_the_reason_is_there() -> None:
    history = History()
    call = requested(history)
    call.fail(history.now, code="lost", reason="The worker died.", response="Fo", duration_ms=None)
    at = history.record(call)
    (row,) = history.rows(model_calls)
    assert (row["status"], row["error_code"], row["error"]) == ("failed", "lost", "The worker died.")
    assert (row["response"], row["duration_ms"], row["finished_at"]) == ("Fo", None, at)


def test_given_a_call_when_it_is_cancelled_then_what_had_come_is_kept() -> None:
    history = History()
    call = requested(history)
    call.cancel(history.now, response="Fo", duration_ms=30.0)
    at = history.record(call)
    (row,) = history.rows(model_calls)
    assert (row["status"], row["response"], row["duration_ms"], row["finished_at"]) == ("cancelled", "Fo", 30.0, at)
