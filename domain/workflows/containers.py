"""Iterations and loops: their items and rounds, each in a frame of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from domain.workflows import conditions, values
from domain.workflows.frame import Container, Frame, ItemFailed
from domain.workflows.graph import Node
from domain.workflows.node_type import NODE_ERROR, Failed, Values, mapping, selector, sequence, text, whole
from domain.workflows.values import Value, infer

TYPES: Final = frozenset({"iteration", "loop"})
PARALLEL: Final = 10


def enter(node: Node, key: str, frame: Frame, view: Values) -> Container:
    """A container that begins. Raises: Failed."""
    return (Iteration if node.type == "iteration" else Loop)(node, key, frame, view)


class Iteration:
    def __init__(self, node: Node, key: str, frame: Frame, view: Values) -> None:
        self.node, self.key, self.frame = node, key, frame
        self.leaving = self.closed = False
        value = view.find(selector(node.data.get("iterator_selector")))
        if value is None:
            raise Failed("The list to iterate over is missing.", NODE_ERROR)
        if value.data is not None and not value.is_array:
            raise Failed(f"The value to iterate over is no list, but {value.type}.", NODE_ERROR)
        self.items: list[Any] = value.data or []
        self.results: list[Any] = [None] * len(self.items)
        self.removed: set[int] = set()
        self.begun = self.finished = 0
        parallel = node.data.get("is_parallel") is True
        self.width = min(PARALLEL, whole(node.data.get("parallel_nums"), PARALLEL)) if parallel else 1

    @property
    def done(self) -> bool:
        return self.finished == len(self.items)

    def next(self) -> int | None:
        if self.begun == len(self.items) or self.begun - self.finished >= self.width:
            return None
        self.begun += 1
        return self.begun - 1

    def announces(self, index: int) -> bool:
        return True

    def seen(self, index: int) -> dict[str, Value]:
        return {"item": infer(self.items[index]), "index": infer(index)}

    def ended(self, index: int, view: Values, failed: ItemFailed | None) -> bool:
        mode = self.node.data.get("error_handle_mode") or "terminated"
        self.finished += 1
        if failed is None:
            value = view.find(selector(self.node.data.get("output_selector")))
            self.results[index] = None if value is None else value.data
        elif mode == "terminated":
            raise Failed(failed.error)
        elif mode == "remove-abnormal-output":
            self.removed.add(index)
        return failed is not None

    def outputs(self) -> dict[str, Value]:
        results = [result for index, result in enumerate(self.results) if index not in self.removed]
        lists = [result for result in results if result is not None]
        if self.node.data.get("flatten_output") is not False and lists and all(isinstance(e, list) for e in lists):
            results = [each for result in lists for each in result]
        return {"output": infer(results)}


class Loop:
    def __init__(self, node: Node, key: str, frame: Frame, view: Values) -> None:
        self.node, self.key, self.frame = node, key, frame
        self.leaving = self.closed = False
        self.rounds = self.finished = 0
        self.count = whole(node.data.get("loop_count"), 0)
        self.variables: dict[str, Value] = {}
        for spec in map(mapping, sequence(node.data.get("loop_variables"))):
            self.variables[text(spec.get("label"))] = _initial(spec, view)
        self.over = self.count < 1 or self._breaks(_Own(self, view), first=True)

    @property
    def done(self) -> bool:
        return self.over and self.rounds == self.finished

    def next(self) -> int | None:
        if self.over or self.rounds > self.finished:
            return None
        self.rounds += 1
        return self.rounds - 1

    def announces(self, index: int) -> bool:
        return index > 0

    def seen(self, index: int) -> dict[str, Value]:
        return self.variables

    def ended(self, index: int, view: Values, failed: ItemFailed | None) -> bool:
        self.finished += 1
        if failed is not None:
            raise Failed(failed.error)
        self.over = self.leaving or self.rounds >= self.count or self._breaks(view, first=False)
        return False

    def _breaks(self, view: conditions.Finding, *, first: bool) -> bool:
        spec = [mapping(each) for each in sequence(self.node.data.get("break_conditions"))]
        if first:
            spec = [each for each in spec if view.find(selector(each.get("variable_selector"))) is not None]
        if not spec:
            return False
        return conditions.hold(spec, text(self.node.data.get("logical_operator")) or "and", view)

    def outputs(self) -> dict[str, Value]:
        round = {"loop_round": infer(self.rounds)} if self.rounds else {}
        return {**self.variables, **round}


@dataclass
class _Own:
    """The values that a loop itself sees, with its variables."""

    loop: Loop
    view: Values

    def find(self, selector: tuple[str, ...]) -> Value | None:
        if len(selector) > 1 and selector[0] == self.loop.node.id:
            value = self.loop.variables.get(selector[1])
            return None if value is None else values.within(value, selector[2:])
        return self.view.find(selector)


def _initial(spec: Mapping[str, Any], view: Values) -> Value:
    type, given = text(spec.get("var_type")), spec.get("value")
    if spec.get("value_type") == "variable":
        value = view.find(selector(given))
        if value is None:
            raise Failed(f"The value of the loop variable {spec.get('label')} is missing.", NODE_ERROR)
        return value
    try:
        return constant(type, given)
    except ValueError as error:
        raise Failed(f"The loop variable {spec.get('label')}: {error}", NODE_ERROR) from error


def constant(type: str, given: object) -> Value:
    """A constant of a loop. A list is read from JSON text only. Raises: ValueError."""
    if type in ("array[string]", "array[number]", "array[object]"):
        return values.declared(type, json.loads(given) if isinstance(given, str) and given else [])
    if isinstance(given, str) and type not in (values.STRING, values.SECRET) and given:
        given = json.loads(given)
    return values.declared(type, given)
