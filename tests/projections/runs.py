"""A run of a workflow, step by step, as its worker records it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from domain.aggregate import new_id
from domain.workflows.run import Finish, Form, Run, Step, Values
from tests.domain.workflows.test_run import STARTED
from tests.projections.history import History


def text(value: str) -> dict[str, Any]:
    return {"type": "string", "data": value}


BEGUN: dict[str, Any] = STARTED | {"app": "the-app", "user": "bo", "inputs": {"place": text("weir")}}


def begun(history: History, id: str = "", **fields: Any) -> Run:
    run = Run.begin(Run.Started, id or new_id(), history.now, **BEGUN | fields)
    history.record(run)
    return run


def step(at: datetime, key: str, status: str = "succeeded", type: str = "code", **more: Any) -> Step:
    node = next(part for part in reversed(key.split("/")) if not part.isdecimal())
    took = {} if status in ("running", "skipped", "stopped") else {"duration_ms": 500.0}
    given: dict[str, Any] = {"type": type, "title": node.title(), "status": status, "began": at.isoformat()}
    return Step(**{"key": key, "node": node, **given, **took, **more})  # type: ignore[typeddict-item]


def take(history: History, run: Run, by: str = "first") -> None:
    run.take(history.now, by=by)
    history.record(run)


def record(
    history: History, run: Run, *steps: tuple[Step, Values], forms: tuple[Form, ...] = (), paused: bool = False
) -> None:
    batch: Any = {"steps": [each for each, _ in steps], "values": [values for _, values in steps]}
    run.step(history.now, forms=forms, paused=paused, **batch)
    history.record(run)


def form(key: str, until: datetime) -> Form:
    return Form(
        key=key,
        node=key,
        until=until.isoformat(),
        content="Open {{#$output.gate#}}?",
        inputs=[{"output_variable_name": "gate", "type": "paragraph", "default": "north"}],
        actions=[{"id": "yes", "title": "Yes"}, {"id": "no", "title": "No"}],
    )


def finish(history: History, run: Run, status: str = "succeeded", **more: Any) -> None:
    none: dict[str, Any] = {"outputs": {}, "code": "", "reason": "", "steps": 3, "exceptions": 0, "tokens": 7}
    run.finish(history.now, **Finish(**{"status": status, **none, "duration_ms": 1500.0, **more}))  # type: ignore[typeddict-item]
    history.record(run)
