"""The engine: linear in its items, indifferent to late answers, and without crashes on strange files."""

from __future__ import annotations

import copy
import json
import random
import time
from collections.abc import Iterator
from typing import Any

from domain.workflows.engine import Run
from domain.workflows.graph import load
from domain.workflows.record import Ended, Given, Limits, Result, Skipped, Started, Stopped
from domain.workflows.requests import FormAnswer
from domain.workflows.values import infer
from tests.domain.workflows.golden import cases, happened


def node(id: str, type: str, owner: str | None = None, **data: Any) -> dict[str, Any]:
    return {"id": id, "data": {"type": type, **data}, **({"parentId": owner} if owner else {})}


def run(nodes: list[dict[str, Any]], edges: str, steps: int = 100_000, entry: str | None = None, **inputs: Any) -> Run:
    """A run of nodes with edges as `a>b a>c`, or `a-handle>b`."""
    ways = []
    for each in edges.split():
        source, _, target = each.partition(">")
        source, _, handle = source.partition("-")
        ways.append({"source": source, "sourceHandle": handle or None, "target": target})
    graph = load({"app": {"mode": "workflow"}, "workflow": {"graph": {"nodes": nodes, "edges": ways}}})
    return Run(graph, Given(entry, {name: infer(each) for name, each in inputs.items()}), Limits(steps))


def ended(state: Run) -> list[tuple[str, str]]:
    return [(each.key, each.status) for each in state.happened if isinstance(each, Ended)]


ITERATION = {"iterator_selector": ["s", "l"], "output_selector": ["g", "output"], "start_node_id": "is"}
FIRST = {"variables": [["i", "item"]]}


def iteration(count: int) -> Run:
    nodes = [
        node("s", "start"),
        node("i", "iteration", **ITERATION),
        node("is", "iteration-start", "i"),
        node("g", "variable-aggregator", "i", **FIRST),
        node("e", "end", outputs=[{"variable": "o", "value_selector": ["i", "output"]}]),
    ]
    return run(nodes, "s>i i>e is>g", l=list(range(count)))


def finish(state: Run) -> float:
    begun = time.process_time()
    state.turn()
    return time.process_time() - begun


def test_ten_thousand_items_take_ten_times_as_long_as_a_thousand() -> None:
    state = iteration(10_000)
    long = finish(state)
    assert state.status == "succeeded"
    assert state.outputs["o"].data == list(range(10_000))
    short = min(finish(iteration(1_000)) for _ in range(3))
    assert long < 60 * short


def test_a_failed_item_stops_what_runs_in_it_and_the_next_begins() -> None:
    nodes = [
        node("s", "start"),
        node("i", "iteration", **ITERATION, error_handle_mode="continue-on-error"),
        node("is", "iteration-start", "i"),
        node("a", "if-else", "i", cases=[{"case_id": "x", "conditions": [{"variable_selector": ["no", "no"]}]}]),
        node("c", "code", "i", code_language="python3", code="", outputs={"r": {"type": "string"}}),
        node("g", "variable-aggregator", "i", **FIRST),
    ]
    state = run(nodes, "s>i is>c is>a c>g", l=["a", "b"])
    state.turn()
    assert state.status == "partial-succeeded"
    assert [each.key for each in state.happened if isinstance(each, Stopped)] == ["i/0/c", "i/1/c"]
    assert not state.calls


def test_a_container_that_fails_in_a_container_leaves_nothing_behind() -> None:
    loop = {"loop_count": 2, "loop_variables": [], "start_node_id": "ls"}
    broken = {**loop, "loop_variables": [{"label": "v", "value_type": "variable", "value": ["no", "no"]}]}
    nodes = [
        node("s", "start"),
        node("i", "iteration", **ITERATION, error_handle_mode="remove-abnormal-output"),
        node("is", "iteration-start", "i"),
        node("a", "loop", "i", **loop),
        node("ls", "loop-start", "a"),
        node("g", "variable-aggregator", "a", variables=[["i", "item"]]),
        node("b", "loop", "i", **broken),
    ]
    state = run(nodes, "s>i is>a is>b ls>g", l=["a", "b"])
    state.turn()
    assert state.status == "partial-succeeded"
    assert ended(state) == [("s", "succeeded"), ("i/0/b", "failed"), ("i/1/b", "failed"), ("i", "succeeded")]


def form(id: str) -> dict[str, Any]:
    return node(id, "human-input", user_actions=[{"id": "yes", "title": "Yes"}])


def test_a_form_pauses_only_what_is_behind_it() -> None:
    nodes = [node("s", "start"), form("h"), node("g", "variable-aggregator", variables=[["s", "l"]]), node("e", "end")]
    state = run(nodes, "s>h h-yes>e s>g", l="x")
    state.turn()
    assert state.status == "paused"
    assert ("g", "succeeded") in ended(state)
    state.respond("h#1.0", FormAnswer("yes", {"name": "Ann"}))
    state.turn()
    assert state.status == "succeeded"


def test_system_variables_are_found_at_the_start_node_and_at_no_other() -> None:
    named = [["s", "sys.query"], ["g", "sys.query"], ["s", "sys.gone"]]
    outputs = [{"variable": f"v{number}", "value_selector": each} for number, each in enumerate(named)]
    nodes = [
        node("s", "start"),
        node("g", "variable-aggregator", variables=[named[0]]),
        node("e", "end", outputs=outputs),
    ]
    ways = [{"source": a, "target": b} for a, b in ("sg", "ge")]
    graph = load({"app": {"mode": "workflow"}, "workflow": {"graph": {"nodes": nodes, "edges": ways}}})
    state = Run(graph, Given(None, system={"query": infer("When?")}))
    state.turn()
    assert {name: value.data for name, value in state.outputs.items()} == {"v0": "When?", "v1": None, "v2": None}


def test_the_first_answer_wins() -> None:
    state = run([node("s", "start"), form("h"), node("e", "end")], "s>h h-yes>e")
    state.turn()
    assert state.respond("h#1.0", FormAnswer("yes"))
    assert state.respond("h#1.0", FormAnswer("yes")) is None
    assert not state.apply(Result("h"))


def test_tries_have_names_of_their_own_and_wait() -> None:
    retry = {"retry_enabled": True, "max_retries": 1, "retry_interval": 250}
    code = node("c", "code", code_language="python3", code="", outputs={}, retry_config=retry)
    state = run([node("s", "start"), code], "s>c")
    state.turn()
    assert list(state.calls) == ["c#1.0"]
    state.apply(Result("c", error="no"))
    state.turn()
    [again] = state.calls.values()
    assert (again.name, again.attempt, again.delay_ms) == ("c#2.0", 2, 250)
    assert state.respond("c#1.0", {}) is None
    state.respond("c#2.0", {})
    assert state.status == "partial-succeeded"


def test_a_trigger_begins_and_the_others_are_skipped() -> None:
    nodes = [node("a", "trigger-webhook"), node("b", "trigger-schedule"), node("x", "end"), node("y", "end")]
    state = run(nodes, "a>x b>y", entry="b")
    state.turn()
    assert [each.key for each in state.happened if isinstance(each, Started)] == ["b", "y"]


def test_a_skipped_branch_is_made_known() -> None:
    case = {"case_id": "yes", "conditions": [{"variable_selector": ["s", "v"], "comparison_operator": "empty"}]}
    nodes = [node("s", "start"), node("i", "if-else", cases=[case]), node("a", "end"), node("b", "end")]
    state = run(nodes, "s>i i-yes>a i-false>b", v="x")
    state.turn()
    assert [each.key for each in state.happened if isinstance(each, Skipped)] == ["a"]


def test_a_failure_gives_up_what_runs_next_to_it() -> None:
    nodes = [
        node("s", "start"),
        node("i", "iteration", **ITERATION),
        node("is", "iteration-start", "i"),
        node("g", "human-input", "i", user_actions=[{"id": "yes"}]),
        node("x", "quantum", retry_config={"retry_enabled": True, "max_retries": 3}),
    ]
    state = run(nodes, "s>i s>x is>g", l=["a"])
    state.turn()
    assert state.status == "failed"
    assert [each.key for each in state.happened if isinstance(each, Stopped)] == ["i/0/g", "i"]


def test_a_run_is_stopped_with_a_reason_and_asks_for_nothing_more() -> None:
    state = run([node("s", "start"), form("h")], "s>h")
    state.turn()
    state.stop("Enough.")
    assert (state.status, state.reason, state.calls) == ("stopped", "Enough.", {})
    assert not state.apply(Result("h"))


JUNK: tuple[Any, ...] = (None, 5, -1, 2.5, "x", "", [], {}, True, ["a"], {"a": 1}, [None], "{{#s.a#}}", 10**30)


ENDS = {"succeeded", "partial-succeeded", "failed", "refused", "stopped", "paused"}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in inner:
        yield (*path, name)
        yield from places(each, (*path, name))


def test_strange_files_are_refused_or_run() -> None:
    chance = random.Random(7)
    known = [case for case in cases() if '"type": "code"' not in json.dumps(case["graph"])]
    for _ in range(600):
        case = copy.deepcopy(chance.choice(known))
        *path, last = chance.choice(list(places(case["graph"])))
        inside: Any = case["graph"]
        for name in path:
            inside = inside[name]
        inside[last] = copy.deepcopy(chance.choice(JUNK))
        assert happened(case)["status"] in ENDS
