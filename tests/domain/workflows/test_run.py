"""The noun of runs: who may add steps, who may answer a form, and what ends it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from domain.aggregate import new_id
from domain.workflows.run import Finish, Run, RunLimits, Step
from tests.domain.scenario import NOW, given, made

STARTED: dict[str, Any] = {
    "app": new_id(),
    "mode": "workflow",
    "entry": None,
    "trigger": "app",
    "graph": "ab" * 32,
    "version": 3,
    "engine": 1,
    "user": "ada",
    "inputs": {"place": {"type": "string", "data": "weir"}},
    "system": {},
    "variables": {},
    "conversation": None,
    "message": None,
    "limits": RunLimits(steps=500, seconds=1200.0),
    "source": None,
    "tool_call": None,
    "depth": 0,
}
LATER = (NOW + timedelta(days=1)).isoformat()
FORM: dict[str, Any] = {
    "key": "ask",
    "node": "ask",
    "until": LATER,
    "content": "Open the gate? {{#$output.why#}}",
    "inputs": [
        {"output_variable_name": "why", "type": "paragraph", "default": "no reason"},
        {"output_variable_name": "gate", "type": "select", "option_source": {"value": ["north", "south"]}},
    ],
    "actions": [{"id": "yes", "title": "Yes"}, {"id": "no", "title": "No"}],
}
END = Finish(status="succeeded", outputs={}, code="", reason="", steps=2, exceptions=0, tokens=0, duration_ms=4.0)


def step(key: str, status: str, **more: Any) -> Step:
    return Step(key=key, node=key, type="code", title="", status=status, began=NOW.isoformat(), **more)


def run() -> Run:
    return Run.begin(Run.Started, new_id(), NOW, **STARTED)


def take(run: Run) -> None:
    run.take(NOW, by="first")


def ask(run: Run) -> None:
    run.step(NOW, steps=[step("ask", "running")], values=[{}], forms=[FORM], paused=True)  # type: ignore[list-item]


def answer(run: Run) -> None:
    run.answer(NOW, key="ask", action="yes", fields={"gate": "north"}, by="bo")


def finish(run: Run) -> None:
    run.finish(NOW, **END)


def stall(run: Run) -> None:
    run.fail(NOW, code="stalled", reason="No worker is there.")


def test_starts_and_is_owned_by_the_worker_of_one_commit() -> None:
    made(run()).then(Run.Started).whole(**STARTED)
    scenario = given(run()).when(take).then(Run.Taken, attempt=1, by="first")
    assert scenario.aggregate.status == "running"
    scenario.when(lambda run: run.take(NOW, by="other")).nothing()
    scenario.when(take).then(Run.Taken, attempt=2, by="first")


def test_steps_are_added_with_the_attempt() -> None:
    done = step("code", "succeeded", duration_ms=1.5)
    batch: dict[str, Any] = {"steps": [done], "values": [{"outputs": {"a": {"type": "number", "data": 1}}}]}
    given(run(), take).when(lambda run: run.step(NOW, **batch)).then(Run.Stepped).whole(
        attempt=1, paused=False, **batch
    )
    given(run(), take).when(lambda run: run.step(NOW, steps=[], values=[])).nothing()


def test_a_form_pauses_the_run_until_its_first_answer() -> None:
    scenario = given(run(), take).when(ask).then(Run.Stepped, Run.Waiting, **FORM)
    assert (scenario.aggregate.status, scenario.aggregate.owner) == ("paused", "")
    scenario.when(answer).then(Run.Answered).whole(
        key="ask", action="yes", fields={"why": "no reason", "gate": "north"}, by="bo"
    )
    scenario.when(answer).rejects("already_answered", "step")
    assert scenario.aggregate.may_take("the answer")


def test_a_run_of_which_a_form_was_answered_meanwhile_is_not_paused() -> None:
    def form(run: Run) -> None:
        run.step(NOW, steps=[step("ask", "running")], values=[{}], forms=[FORM])  # type: ignore[list-item]

    scenario = given(run(), take, form, answer).when(lambda run: run.step(NOW, steps=[], values=[], paused=True))
    assert scenario.nothing().aggregate.status == "running"
    over = [step("ask", "succeeded")]
    scenario.when(lambda run: run.step(NOW, steps=over, values=[{}], paused=True)).then(Run.Stepped, paused=True)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"key": "other"}, ("not_found", "step")),
        ({"action": "maybe"}, ("invalid", "action")),
        ({"fields": {"gate": "west"}}, ("invalid", "fields.gate")),
        ({"fields": {"gate": "north", "why": 1}}, ("invalid", "fields.why")),
        ({"fields": {"gat": "north"}}, ("invalid", "fields.gat")),
    ],
)
def test_an_answer_must_fit_its_form(change: dict[str, Any], fault: tuple[str, str]) -> None:
    whole: dict[str, Any] = {"key": "ask", "action": "yes", "fields": {"gate": "north"}, "by": "", **change}
    given(run(), take, ask).when(lambda run: run.answer(NOW, **whole)).rejects(*fault)


def test_a_form_times_out_once_and_not_too_early() -> None:
    scenario = given(run(), take, ask).when(lambda run: run.time_out(NOW, key="ask")).nothing()
    late = NOW + timedelta(days=1)
    given(run(), take, ask).when(lambda run: run.answer(late, key="ask", action="no", fields={}, by="")).rejects(
        "already_answered", "step"
    )
    scenario.aggregate.time_out(late, key="ask")
    scenario.aggregate.time_out(late, key="ask")
    [event] = scenario.aggregate.pending()
    assert isinstance(event, Run.TimedOut)
    scenario.when(answer).rejects("already_answered", "step")


def test_is_stopped_by_request_and_ends_once() -> None:
    scenario = given(run(), take).once(lambda run: run.stop(NOW), Run.StopRequested)
    assert scenario.aggregate.stop_requested
    scenario.once(finish, Run.Finished, attempt=1, **END)
    scenario.when(lambda run: run.stop(NOW)).rejects("already_ended", "run")
    scenario.when(answer).rejects("already_ended", "run")
    scenario.when(take).nothing()


def test_only_an_interrupted_run_is_gone_on_with() -> None:
    scenario = given(run(), take).when(stall).then(Run.Finished, status="failed", code="stalled")
    assert scenario.aggregate.stalls == 1
    scenario.when(lambda run: run.retry(NOW)).then(Run.Retried)
    assert scenario.aggregate.may_take("any")
    given(run(), take, finish).when(lambda run: run.retry(NOW)).rejects("not_failed", "run")
