from __future__ import annotations

import pytest

from domain.aggregate import new_id
from domain.models.model_call import ModelCall, Try
from projections.engine.values import BUILT_IN
from projections.model_calls import model_calls
from projections.values.prices import Call
from tests.projections.history import TOKENS, History

REQUEST = {"messages": [{"role": "user", "pieces": [{"text": "How high?"}]}], "parameters": {"temperature": 0}}


def requested(history: History, provider: str = "local", model: str = "tiny", route: Try | None = None) -> ModelCall:
    call = ModelCall.begin(
        ModelCall.Requested,
        new_id(),
        history.now,
        kind="chat",
        provider=provider,
        model=model,
        cause_noun="message",
        cause_id="the-message",
        request=REQUEST,
        route=route,
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
            "try": 1,
            "server": "",
            "request": REQUEST,
            "response": "",
            "reasoning": "",
            "correlation_id": "the-correlation",
            "traceparent": "the-trace",
            "created_at": call.created_on,
            "updated_at": call.created_on,
            "log_position": 1,
        }
    ]


def test_a_try_of_a_route_names_the_route_and_the_call_before() -> None:
    history = History()
    first = requested(history)
    requested(history, route={"name": "fast", "try": 2, "after": {"call": first.id, "code": "timeout"}})
    requested(history, route={"name": "", "try": 2, "after": {"call": first.id, "code": "timeout"}})
    found = {(row["route"], row["try"], row["after"]) for row in history.rows(model_calls)}
    assert found == {(None, 1, None), ("fast", 2, first.id), (None, 2, first.id)}


def test_given_a_call_when_it_completes_then_usage_and_times_are_there() -> None:
    history = History()
    call = requested(history)
    call.complete(
        history.now,
        response="Four metres.",
        reasoning="It is a lock.",
        finish_reason="stop",
        usage=TOKENS,
        first_token_ms=8.5,
        duration_ms=90.0,
    )
    at = history.record(call)
    (row,) = history.rows(model_calls)
    assert (row["status"], row["response"], row["finish_reason"]) == ("completed", "Four metres.", "stop")
    assert (row["prompt_tokens"], row["completion_tokens"], row["tokens_estimated"]) == (90, 12, False)
    assert row["reasoning"] == "It is a lock."
    assert (row["first_token_ms"], row["duration_ms"], row["finished_at"]) == (8.5, 90.0, at)


def test_given_a_call_when_it_fails_then_the_reason_is_there() -> None:
    history = History()
    call = requested(history)
    call.fail(history.now, code="lost", reason="The worker died.", response="Fo", duration_ms=None)
    at = history.record(call)
    (row,) = history.rows(model_calls)
    assert (row["status"], row["error_code"], row["error"]) == ("failed", "lost", "The worker died.")
    assert (row["response"], row["duration_ms"], row["finished_at"]) == ("Fo", None, at)
    assert (row["prompt_tokens"], row["completion_tokens"], row["cost"]) == (None, None, None)


def test_given_a_call_when_it_is_cancelled_then_what_had_come_is_kept() -> None:
    history = History()
    call = requested(history)
    call.cancel(history.now, response="Fo", duration_ms=30.0)
    at = history.record(call)
    (row,) = history.rows(model_calls)
    assert (row["status"], row["response"], row["duration_ms"], row["finished_at"]) == ("cancelled", "Fo", 30.0, at)


@pytest.mark.parametrize("stopped", [True, False])
def test_given_a_call_that_does_not_end_then_its_tokens_are_priced(stopped: bool) -> None:
    history = History()
    call = requested(history, provider="openai", model="gpt-4o")
    if stopped:
        call.cancel(history.now, response="Fo", reasoning="It is.", usage=TOKENS, duration_ms=30.0)
    else:
        call.fail(
            history.now,
            code="broken_off",
            reason="Gone.",
            response="Fo",
            reasoning="It is.",
            usage=TOKENS,
            duration_ms=3.0,
        )
    history.record(call)
    (row,) = history.rows(model_calls)
    assert (row["response"], row["reasoning"]) == ("Fo", "It is.")
    assert (row["prompt_tokens"], row["completion_tokens"], row["tokens_estimated"]) == (90, 12, False)
    assert row["cost"] == BUILT_IN.prices.cost(Call("openai", "", "gpt-4o", call.created_on), TOKENS).amount
    assert row["cost"] > 0
