from __future__ import annotations

from typing import Any

from domain.aggregate import new_id
from domain.workflows.effect import Effect
from tests.domain.scenario import NOW, given, made

REQUESTED: dict[str, Any] = {
    "kind": "http",
    "method": "POST",
    "server": "tickets.example:443",
    "request": {"url": "https://tickets.example/new", "params": [], "headers": {}, "text": "{}"},
    "cause_noun": "run",
    "cause_id": new_id(),
    "step": "ticket#1.0",
    "app": new_id(),
    "attempt": 1,
    "idempotent": False,
}
RESPONSE: dict[str, Any] = {
    "status": 201,
    "headers": {"content-type": "text/plain"},
    "body": "made",
    "digest": None,
    "size": 4,
    "duration_ms": 12.5,
}


def effect(**change: Any) -> Effect:
    return Effect.begin(Effect.Requested, new_id(), NOW, **{**REQUESTED, **change})


def complete(effect: Effect) -> None:
    effect.complete(NOW, **RESPONSE)


def lose(effect: Effect) -> None:
    effect.lose(NOW, "Unknown.")


def test_is_recorded_before_it_is_sent_and_ends_once() -> None:
    made(effect()).then(Effect.Requested).whole(**REQUESTED)
    scenario = given(effect()).once(complete, Effect.Completed, **RESPONSE)
    assert scenario.aggregate.response == RESPONSE
    scenario.when(lose).nothing()


def test_is_sent_again_only_if_that_is_harmless() -> None:
    def again(effect: Effect) -> None:
        effect.begin_again(NOW, attempt=2)

    given(effect(idempotent=True)).once(again, Effect.Begun, attempt=2)
    given(effect(idempotent=True), lambda it: it.cancel(NOW, duration_ms=None)).once(again, Effect.Begun)
    given(effect(idempotent=True), complete).when(again).nothing()
    given(effect()).when(again).nothing()


def test_ends_as_lost_or_cancelled() -> None:
    given(effect()).once(lose, Effect.Failed, code="lost", reason="Unknown.", duration_ms=None)
    given(effect()).once(lambda it: it.cancel(NOW, duration_ms=3.0), Effect.Cancelled, duration_ms=3.0)
