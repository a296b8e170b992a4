"""Forms of runs: they wait without a worker, their first answer counts, and their time ends with nothing in memory."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain.aggregate import new_id
from domain.workflows.requests import HttpRequest
from domain.workflows.run import Run
from handlers.ports.log import PendingWork
from handlers.work.recover import EXPIRED_FORM, Recover
from handlers.workflows.execution import Execution
from tests.domain.workflows.golden import Case
from tests.handlers.workflows.stage import Stage, graph
from tests.memory import Memory

WORLD: Case = {"graph": {}, "mode": "workflow"}
ASK = {
    "type": "human-input",
    "form_content": "Open it? {{#$output.why#}}",
    "inputs": [{"output_variable_name": "why", "type": "paragraph"}],
    "user_actions": [{"id": "yes", "title": "Yes"}],
    "timeout": 2,
    "timeout_unit": "day",
}
HTTP = {"type": "http-request", "method": "get", "url": "http://stub.test/a", "authorization": {"type": "no-auth"}}
OUTPUTS = [{"variable": name, "value_selector": ["ask", name]} for name in ("why", "__action_id")]


def asking(parallel: bool = False) -> Any:
    nodes: list[dict[str, Any]] = [
        {"id": "start", "type": "start"},
        {"id": "ask", **ASK},
        {"id": "end", "type": "end", "outputs": OUTPUTS},
        *([{"id": "slow", **HTTP}] if parallel else []),
    ]
    edges = [("start", "ask"), ("ask", "end", "yes"), ("ask", "end", "__timeout")]
    return graph(nodes, [*edges, *([("start", "slow")] if parallel else [])])


async def answered(stage: Stage, id: str, why: str = "A ship.") -> None:
    outcome = await stage.desk.send("run.answer", run=id, step="ask", action="yes", fields={"why": why})
    assert outcome.status == "accepted", outcome


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_form_waits_and_its_answer_goes_on_whatever_dies(after: bool) -> None:
    for number in (None, 1, 2, 3):
        stage = Stage(Memory(), f"t{new_id()[:8]}")
        stage.play(WORLD)
        id = await stage.started(asking())
        assert (await stage.work(id, kill=number, after=after)).status == "paused"
        forms = [event for event in await stage.events(id) if isinstance(event, Run.Waiting)]
        assert [form.key for form in forms] == ["ask"]
        await answered(stage, id)
        assert await stage.desk.fails("run.answer", run=id, step="ask", action="yes", fields={"why": "Late."}) == (
            "already_answered",
            "step",
        )
        await stage.work(id, kill=number, after=after)
        assert await stage.end(id) == ("succeeded", {"why": "A ship.", "__action_id": "yes"}, "")


async def test_the_time_of_a_form_ends_by_the_recovery(memory: Memory, tenant: str) -> None:
    stage = Stage(memory, tenant)
    stage.play(WORLD)
    drawn = asking()
    id = await stage.started(drawn)
    await stage.work(id)
    [form] = [event for event in await stage.events(id) if isinstance(event, Run.Waiting)]
    until = datetime.fromisoformat(form.until)
    assert timedelta(days=1, hours=23) < until - datetime.now(UTC) <= timedelta(days=2)

    async def done() -> dict[str, int]:
        return {}

    async def overdue() -> list[PendingWork]:
        return [PendingWork(EXPIRED_FORM, tenant, id, "ask", "waiting", 0, until, 3, [], id)]

    recover = Recover(stage.desk.repository, stage.desk.live, overdue, done)
    await recover()
    assert not [event for event in await stage.events(id) if isinstance(event, Run.TimedOut)], "it is too early"
    await stage.desk.change("run", id, lambda run: run.time_out(until, key="ask"))
    await stage.work(id)
    status, outputs, _ = await stage.end(id)
    assert (status, outputs["__action_id"]) == ("succeeded", "__timeout")


async def test_a_form_that_is_answered_while_another_branch_runs_is_taken_by_its_owner(
    memory: Memory, tenant: str
) -> None:
    stage = Stage(memory, tenant)
    stage.play(WORLD)
    gate, reached = asyncio.Event(), asyncio.Event()
    answer = stage.executors[HttpRequest]

    async def slow(execution: Execution) -> Any:
        reached.set()
        await gate.wait()
        return await answer(execution)

    stage.executors = {**stage.executors, HttpRequest: slow}
    id = await stage.started(asking(parallel=True))
    working = asyncio.ensure_future(stage.work(id))
    await reached.wait()
    await answered(stage, id)
    while not any(
        step["key"] == "end"
        for event in await stage.events(id)
        if isinstance(event, Run.Stepped)
        for step in event.steps
    ):
        await asyncio.sleep(0.01)
    gate.set()
    await working
    assert (await stage.end(id))[0] == "succeeded"
    assert len([event for event in await stage.events(id) if isinstance(event, Run.Taken)]) == 1


async def test_a_run_is_stopped_while_a_call_is_under_way_and_while_it_waits(memory: Memory, tenant: str) -> None:
    stage = Stage(memory, tenant)
    stage.play(WORLD)
    reached = asyncio.Event()

    async def forever(execution: Execution) -> Any:
        reached.set()
        await asyncio.Event().wait()

    stage.executors = {**stage.executors, HttpRequest: forever}
    busy = await stage.started(graph([{"id": "start", "type": "start"}, {"id": "slow", **HTTP}], [("start", "slow")]))
    working = asyncio.ensure_future(stage.work(busy))
    await reached.wait()
    await stage.desk.done("run.stop", run=busy)
    assert (await working).status == "stopped"
    steps = [step for event in await stage.events(busy) if isinstance(event, Run.Stepped) for step in event.steps]
    assert (steps[-1]["key"], steps[-1]["status"]) == ("slow", "stopped")

    waits = await stage.started(asking())
    await stage.work(waits)
    await stage.desk.done("run.stop", run=waits)
    assert (await stage.work(waits)).status == "stopped"
    assert await stage.end(waits) == ("stopped", {}, "It was stopped on request.")


async def test_a_run_is_stopped_at_its_limit_of_time(memory: Memory, tenant: str) -> None:
    stage = Stage(memory, tenant)

    async def forever(execution: Execution) -> Any:
        await asyncio.Event().wait()

    stage.executors = {HttpRequest: forever}
    drawn = graph([{"id": "start", "type": "start"}, {"id": "slow", **HTTP}], [("start", "slow")])
    id = await stage.started(drawn, limits={"steps": 500, "seconds": 0.05})
    await stage.work(id)
    assert await stage.end(id) == ("stopped", {}, "It took longer than 0.05 s.")
