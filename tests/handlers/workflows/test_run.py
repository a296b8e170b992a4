"""Runs on the log: they end as the engine alone does, whatever worker dies at whatever commit."""

from __future__ import annotations

from typing import Any

import pytest

from domain.aggregate import new_id
from domain.workflows.run import Run
from domain.workflows.values import infer
from tests.domain.workflows.golden import Case, cases, happened, plain
from tests.handlers.workflows.stage import Stage, graph
from tests.memory import Memory

TIMED = {"limit/time"}
"""Cases whose clock jumps."""

SECRET = {"template/env-secret", "selector/secret", "code/secret-in"}
"""Cases that show a secret, which runs on the log withhold."""

CASES = [
    case
    for case in cases()
    if case["id"] not in TIMED | SECRET and happened(case)["status"] not in ("refused", "paused")
]


async def ended(case: Case, kill: int | None = None, *, after: bool = False) -> tuple[dict[str, Any], int]:
    """The end of a case on the log, and its number of commits."""
    stage = Stage(Memory(), f"t{new_id()[:8]}")
    id = await stage.case(case)
    await stage.work(id, kill=kill, after=after)
    status, outputs, error = await stage.end(id)
    done = status in ("succeeded", "partial-succeeded")
    got = {"status": status, "outputs": plain(outputs) if done else {}, **({"error": error} if error else {})}
    return got, len(await stage.commits(id))


def expected(case: Case) -> dict[str, Any]:
    whole = happened(case)
    return {name: whole[name] for name in ("status", "outputs", "error") if name in whole}


@pytest.mark.parametrize("case", CASES[::8], ids=lambda case: case["id"])
async def test_a_run_on_the_log_ends_as_the_engine_alone(case: Case) -> None:
    if case.get("forms"):
        pytest.skip("It waits for a person.")
    assert (await ended(case))[0] == expected(case)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("case", CASES[::40], ids=lambda case: case["id"])
async def test_a_worker_may_die_at_any_commit(case: Case, after: bool) -> None:
    whole, commits = await ended(case)
    for number in range(1, commits):
        assert (await ended(case, number, after=after))[0] == whole


SLOW = graph(
    [
        {"id": "start", "type": "start", "variables": []},
        {"id": "a", "type": "http-request", "method": "get", "url": "http://stub.test/a"},
        {"id": "b", "type": "http-request", "method": "get", "url": "http://stub.test/b"},
        {"id": "end", "type": "end", "outputs": [{"variable": "o", "value_selector": ["b", "body"]}]},
    ],
    [("start", "a"), ("a", "b"), ("b", "end")],
)
WORLD: Case = {"graph": {}, "mode": "workflow", "routes": {}}


async def test_finished_steps_are_recorded_before_the_next_slow_one_begins(memory: Memory, tenant: str) -> None:
    stage = Stage(memory, tenant)
    stage.play(WORLD)
    id = await stage.started(SLOW)
    await stage.work(id)
    commits = [[type(event) for event in commit.events] for commit in await stage.commits(id)]
    assert commits == [[Run.Started], [Run.Taken, Run.Stepped], [Run.Stepped], [Run.Stepped, Run.Finished]]
    second = (await stage.commits(id))[2].events[0]
    assert isinstance(second, Run.Stepped)
    assert [(each["key"], each["status"]) for each in second.steps] == [("a", "succeeded"), ("b", "running")]


async def test_an_empty_run_is_one_commit_of_its_worker(memory: Memory, tenant: str) -> None:
    stage = Stage(memory, tenant)
    stage.play(WORLD)
    id = await stage.started(
        graph([{"id": "start", "type": "start"}, {"id": "end", "type": "end"}], [("start", "end")])
    )
    run = await stage.work(id)
    assert (run.status, len(await stage.commits(id))) == ("succeeded", 2)


async def test_a_large_value_is_a_blob_sealed_with_the_key_of_its_person(memory: Memory, tenant: str) -> None:
    stage = Stage(memory, tenant)
    stage.play(WORLD)
    nodes = [
        {"id": "start", "type": "start", "variables": [{"variable": "x", "type": "paragraph", "max_length": 99_999}]},
        {"id": "end", "type": "end", "outputs": [{"variable": "o", "value_selector": ["start", "x"]}]},
    ]
    said = "Wumpelfisch " * 4000
    id = await stage.started(graph(nodes, [("start", "end")]), inputs={"x": infer(said)}, user="ada")
    await stage.work(id)
    assert (await stage.end(id))[1] == {"o": said}
    assert not any(b"Wumpelfisch" in blob for blob in memory.blobs.values())
    assert not any(b"Wumpelfisch" in message.body for message in memory.streams["EVENTS"].messages)
    sizes = [len(message.body) for message in memory.streams["EVENTS"].messages]
    assert max(sizes) < 8_000


async def test_a_run_that_another_worker_owns_is_left_alone(memory: Memory, tenant: str) -> None:
    stage = Stage(memory, tenant)
    stage.play(WORLD)
    id = await stage.started(SLOW)
    await stage.desk.repository.change(Run, id, stage.cause(), lambda run: stage.taken(run, by="another commit"))
    worker = stage.worker()
    [started, _] = await stage.commits(id)
    await worker(started)
    assert len(await stage.commits(id)) == 2


async def test_a_fork_runs_again_from_a_step_and_keeps_the_others(memory: Memory, tenant: str) -> None:
    stage = Stage(memory, tenant)
    stage.play(WORLD)
    first = await stage.started(SLOW)
    await stage.work(first)
    commits = await stage.commits(first)
    started = commits[0].events[0]
    assert isinstance(started, Run.Started)
    again = await stage.started(SLOW, source={"run": first, "kind": "fork", "step": "b"})
    await stage.work(again)
    assert await stage.end(again) == await stage.end(first)
    assert stage.made == {"a": 1, "b": 2}
    steps = [step for event in await stage.events(again) if isinstance(event, Run.Stepped) for step in event.steps]
    assert [step["key"] for step in steps if step.get("kept")] == ["start", "a"]
