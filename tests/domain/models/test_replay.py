from __future__ import annotations

from domain.aggregate import new_id
from domain.models.replay import Replay
from tests.domain.scenario import NOW, given, made

CALL, AGAIN = new_id(), new_id()
REQUESTED = {
    "call": CALL,
    "provider": "lab",
    "model": "large",
    "max_tokens": 64,
    "parameters": {"temperature": 0},
    "app": new_id(),
    "configuration": 2,
}


def replay() -> Replay:
    return Replay.begin(Replay.Requested, new_id(), NOW, **REQUESTED)  # type: ignore[arg-type]


def complete(replay: Replay) -> None:
    replay.complete(NOW, model_call=AGAIN)


def fail(replay: Replay) -> None:
    replay.fail(NOW, code="timeout", reason="Silence.", model_call=AGAIN)


def retry(replay: Replay) -> None:
    replay.retry(NOW)


def test_is_requested() -> None:
    made(replay()).then(Replay.Requested).whole(**REQUESTED)
    assert not replay().ended


def test_ends_once() -> None:
    given(replay()).once(complete, Replay.Completed, model_call=AGAIN)
    given(replay()).once(fail, Replay.Failed, code="timeout", reason="Silence.", model_call=AGAIN)
    assert given(replay(), complete).when(fail).nothing().aggregate.status == "completed"
    assert given(replay(), fail).when(complete).nothing().aggregate.ended


def test_a_failed_one_is_tried_again() -> None:
    scenario = given(replay(), fail).when(retry).then(Replay.Retried)
    assert not scenario.aggregate.ended
    scenario.when(complete).then(Replay.Completed)


def test_only_a_failed_one_is_tried_again() -> None:
    given(replay()).when(retry).rejects("not_failed", "replay")
    given(replay(), complete).when(retry).rejects("not_failed", "replay")
