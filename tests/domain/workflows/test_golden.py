"""Cases recorded from the engine of Dify: ours does the same, but for a table of deliberate differences."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from domain.workflows.engine import Run
from domain.workflows.record import Result
from tests.domain.workflows.golden import Case, Seen, World, begin, cases, differences, happened, play

DOCS = Path(__file__).parents[3] / "docs" / "workflows.md"
OURS: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("ours.json").read_text(encoding="utf-8"))
"""Deliberate differences, by the id of the case: the parts of the expectation that differ; null for a missing one."""

BY_AREA: dict[str, list[Case]] = defaultdict(list)
for _case in cases():
    BY_AREA[_case["area"]].append(_case)


def wanted(case: Case) -> dict[str, Any]:
    want = {**case["expected"], **OURS.get(case["id"], {})}
    return {name: each for name, each in want.items() if each is not None}


@pytest.mark.parametrize("area", BY_AREA)
def test_cases_of_an_area_are_as_recorded(area: str) -> None:
    wrong = [
        f"{case['id']}: {line}" for case in BY_AREA[area] for line in differences(case, happened(case), wanted(case))
    ]
    assert not wrong, "\n".join(wrong)


def test_every_deliberate_difference_differs_and_is_documented() -> None:
    by_id = {case["id"]: case for area in BY_AREA.values() for case in area}
    spec = DOCS.read_text(encoding="utf-8")
    for id in OURS:
        assert list(differences(by_id[id], happened(by_id[id]), by_id[id]["expected"])), f"{id} does not differ"
        assert f"`{id}`" in spec, f"docs/workflows.md does not tell of {id}"


def state(run: Run) -> tuple[Any, ...]:
    asked = {name: call.delay_ms for name, call in run.calls.items() if not call.stage}
    return run.status, run.reason, run.outputs, run.conversation, run.steps, run.flawed, asked


@pytest.mark.parametrize("area", ["flow", "iteration", "loop", "error", "stream", "form", "assigner", "http"])
def test_the_state_is_made_again_from_the_record_alone(area: str) -> None:
    """After every turn, a run that takes the recorded results is in the same state, and asks for the same calls."""
    for case in BY_AREA[area]:
        if wanted(case)["status"] == "refused" or "seconds" in case.get("limits", {}):
            continue
        world = World(case)
        run = begin(case, world)
        record: list[str] = []
        apply = run.apply

        def keep(result: Result, apply: Any = apply, record: list[str] = record) -> bool:
            record.append(json.dumps(result.recorded()))
            return bool(apply(result))

        run.apply = keep  # type: ignore[method-assign]

        def compare(run: Run, case: Case = case, record: list[str] = record) -> None:
            again = begin(case, World(case))
            assert all(again.apply(Result.read(json.loads(each))) for each in record)
            assert not again.turn() or run.ended
            assert state(again) == state(run), case["id"]

        play(run, world, Seen(), compare)
