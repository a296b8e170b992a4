"""Forks: a run from any step, with the results of the others."""

from __future__ import annotations

import copy
from typing import Any

from domain.workflows import fork
from domain.workflows.engine import Run
from domain.workflows.graph import load
from domain.workflows.record import Given, Result
from domain.workflows.values import infer
from tests.domain.workflows.golden import Case, Seen, World, begin, cases, play
from tests.domain.workflows.graphs import Maker


def played(case: Case) -> tuple[Run, list[Result]]:
    world = World(case)
    run = begin(case, world)
    results: list[Result] = []
    apply = run.apply

    def keep(result: Result) -> bool:
        results.append(result)
        return apply(result)

    run.apply = keep  # type: ignore[method-assign]
    play(run, world, Seen())
    return run, results


def outcome(run: Run) -> tuple[Any, ...]:
    return run.status, run.outputs, run.conversation


def test_a_run_from_any_step_ends_as_the_whole_one() -> None:
    for seed in range(6):
        case = {**Maker(seed).case(), "models": {}}
        run, results = played(case)
        if run.status == "failed":
            continue
        for again in run.graph.nodes:
            world = World(case)
            forked = begin(case, world)
            stay = fork.kept(run.graph, results, {again})
            assert all(forked.apply(result) for result in stay)
            play(forked, world, Seen())
            assert outcome(forked) == outcome(run), (case["id"], again)


def test_a_failed_run_goes_on_from_the_node_that_failed() -> None:
    [case] = [each for each in cases() if each["id"] == "error/exception-then-failure"]
    run, results = played(case)
    assert run.status == "failed"
    stay = fork.kept(run.graph, results, {fork.node_of(results[-1])})
    assert "y" not in {result.key for result in stay}
    again = begin(case, World(case))
    assert all(again.apply(result) for result in stay)
    again.turn()
    assert [call.key for call in again.calls.values()] == ["y"]


def test_a_changed_node_and_those_behind_it_run_again() -> None:
    nodes = [
        {"id": "s", "data": {"type": "start"}},
        {"id": "a", "data": {"type": "variable-aggregator", "variables": [["s", "v"]]}},
        {"id": "b", "data": {"type": "variable-aggregator", "variables": [["a", "output"]]}},
        {"id": "c", "data": {"type": "variable-aggregator", "variables": [["s", "v"]]}},
    ]
    edges = [{"source": source, "target": target} for source, target in (("s", "a"), ("a", "b"), ("s", "c"))]
    document = {"app": {"mode": "workflow"}, "workflow": {"graph": {"nodes": nodes, "edges": edges}}}
    old = load(document)
    other = copy.deepcopy(document)
    other["workflow"]["graph"]["nodes"][1]["data"]["variables"] = [["s", "w"]]  # type: ignore[index]
    new = load(other)
    run = Run(old, Given(inputs={"v": infer("x")}))
    results = run.turn()
    assert fork.changed(old, new) == {"a"}
    assert [result.key for result in fork.kept(new, results, fork.changed(old, new))] == ["s", "c"]
    more = copy.deepcopy(document)
    more["workflow"]["graph"]["edges"] += [{"source": "c", "target": "b"}]  # type: ignore[index]
    assert fork.changed(old, load(more)) == {"b"}
