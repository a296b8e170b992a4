from __future__ import annotations

from collections.abc import Callable

import pytest

from domain.aggregate import new_id
from domain.models.model_call import ModelCall, TokenUsage
from tests.domain.scenario import NOW, given, made

MESSAGE = new_id()
USAGE = TokenUsage(
    prompt_tokens=20,
    completion_tokens=5,
    estimated=False,
    cached_tokens=16,
    cache_write_tokens=None,
    reasoning_tokens=None,
    raw={"prompt_tokens": 20, "completion_tokens": 5, "cached": 16},
)
REQUEST = {"messages": [{"role": "user", "pieces": [{"text": "Why?"}]}], "parameters": {"temperature": 0}}


def call() -> ModelCall:
    return ModelCall.begin(
        ModelCall.Requested,
        new_id(),
        NOW,
        kind="chat",
        provider="lab",
        model="small",
        cause_noun="message",
        cause_id=MESSAGE,
        attempt=2,
        server="lab.example.com:443",
        request=REQUEST,
    )


ANSWER = {
    "response": "Because.",
    "reasoning": "They ask why.",
    "response_id": "cmpl-1",
    "response_model": "small-2026",
    "finish_reason": "stop",
    "usage": USAGE,
    "first_token_ms": 12.5,
    "duration_ms": 80.0,
}


def complete(call: ModelCall) -> None:
    call.complete(NOW, **ANSWER)  # type: ignore[arg-type]


def fail(call: ModelCall) -> None:
    call.fail(NOW, code="lost", reason="The worker died.", response="", duration_ms=None)


def cancel(call: ModelCall) -> None:
    call.cancel(NOW, response="Bec", reasoning="They", usage=USAGE, duration_ms=30.0)


def test_is_recorded_before_it_is_sent() -> None:
    made(call()).then(ModelCall.Requested).whole(
        kind="chat",
        provider="lab",
        model="small",
        cause_noun="message",
        cause_id=MESSAGE,
        attempt=2,
        server="lab.example.com:443",
        request=REQUEST,
        route=None,
        plugins=None,
    )
    assert call().status == "requested"


def test_completes() -> None:
    scenario = given(call()).once(complete, ModelCall.Completed)
    assert scenario.aggregate.status == "completed"
    given(call()).when(complete).whole(**ANSWER, tool_calls=None, state=None, logprobs=None)


def test_fails() -> None:
    scenario = given(call()).once(fail, ModelCall.Failed, code="lost", duration_ms=None)
    assert scenario.aggregate.status == "failed"


def test_is_cancelled() -> None:
    scenario = given(call()).once(cancel, ModelCall.Cancelled, response="Bec", reasoning="They", usage=USAGE)
    assert scenario.aggregate.status == "cancelled"


@pytest.mark.parametrize("first", [complete, fail, cancel])
@pytest.mark.parametrize("later", [complete, fail, cancel])
def test_ends_once(first: Callable[[ModelCall], None], later: Callable[[ModelCall], None]) -> None:
    given(call(), first).when(later).nothing()
