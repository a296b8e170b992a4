from __future__ import annotations

from domain.models.replay import Replay
from projections.replays import replays
from tests.projections.history import History


def test_a_replay_fails_and_is_made_again() -> None:
    history = History()
    replay = Replay.begin(
        Replay.Requested,
        "the-replay",
        history.now,
        call="the-call",
        provider="lab",
        model="large",
        max_tokens=64,
        parameters={"temperature": 0},
        app="the-app",
        configuration=2,
    )
    history.record(replay)
    replay.fail(history.now, code="timeout", reason="Silence.", model_call="call-2")
    history.record(replay)
    (row,) = history.rows(replays)
    assert (row["status"], row["error_code"], row["replayed_call_id"]) == ("failed", "timeout", "call-2")
    assert (row["model_call_id"], row["app_model_config_number"], row["created_by"]) == ("the-call", 2, "ada")
    history.correlation = "another"
    replay.retry(history.now)
    history.record(replay)
    (row,) = history.rows(replays)
    assert (row["status"], row["error"], row["correlation_id"]) == ("requested", None, "another")
    replay.complete(history.now, model_call="call-3")
    history.record(replay)
    (row,) = history.rows(replays)
    assert (row["status"], row["replayed_call_id"]) == ("completed", "call-3")
