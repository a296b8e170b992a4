"""Assigner: variables of the conversation, and of the loop around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from domain.workflows import values
from domain.workflows.graph import Node, Problem
from domain.workflows.node_type import (
    NODE_ERROR,
    Done,
    Failed,
    NodeType,
    Values,
    Write,
    mapping,
    selector,
    sequence,
    text,
)
from domain.workflows.rendering import Selector
from domain.workflows.values import Value, fits, infer

OVER_WRITE: Final = "over-write"
CLEARED: Final = {values.STRING: "", values.NUMBER: 0, values.BOOLEAN: False, values.OBJECT: {}}
SCALARS: Final = frozenset(CLEARED)
ARITHMETIC: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "+=": lambda a, b: a + b,
    "-=": lambda a, b: a - b,
    "*=": lambda a, b: a * b,
    "/=": lambda a, b: a / b,
}
FREE: Final = frozenset({"clear", "remove-first", "remove-last"})
"""Operations that take no value."""
OPERATIONS: Final = (OVER_WRITE, "set", "append", "extend", *FREE, *ARITHMETIC)
MODES: Final = (OVER_WRITE, "append", "clear")


def run(node: Node, view: Values) -> Done:
    if "items" not in node.data:
        return _first_version(node, view)
    written: dict[Selector, Value] = {}
    for item in map(mapping, sequence(node.data.get("items"))):
        target = selector(item.get("variable_selector"))
        current = _target(target, written, view)
        given = _given(item, written, view)
        operation = text(item.get("operation"))
        if operation in FREE or given.data is not None:
            written[target] = _changed(operation, current, given, constant=item.get("input_type") == "constant")
        elif item.get("input_type") == "constant":
            raise Failed(f"The operation {operation} needs a value.")
    return _done(written)


def check(node: Node) -> Iterator[Problem]:
    if "items" not in node.data:
        if node.data.get("write_mode") not in MODES:
            yield Problem(node.id, "write_mode", f"It is one of {', '.join(MODES)}.")
        return
    for number, item in enumerate(map(mapping, sequence(node.data.get("items")))):
        if item.get("operation") not in OPERATIONS:
            yield Problem(node.id, f"items[{number}].operation", f"It is one of {', '.join(OPERATIONS)}.")


def assigned(node: Node) -> list[Selector]:
    """The variables that a node assigns."""
    items = [mapping(each) for each in sequence(node.data.get("items"))]
    named = [each.get("variable_selector") for each in items] + [node.data.get("assigned_variable_selector")]
    return [path for path in map(selector, named) if path]


def _first_version(node: Node, view: Values) -> Done:
    target = selector(node.data.get("assigned_variable_selector"))
    current = _target(target, {}, view)
    mode = node.data.get("write_mode")
    if mode == "clear":
        return _done({target: _cleared(current)})
    given = view.find(selector(node.data.get("input_variable_selector")))
    if given is None:
        raise Failed("The value to assign is missing.", NODE_ERROR)
    if mode == OVER_WRITE:
        return _done({target: given})
    if not current.is_array:
        raise Failed("Only a list is appended to.", NODE_ERROR)
    return _done({target: Value(current.type, [*current.data, given.data])})


def _done(written: Mapping[Selector, Value]) -> Done:
    names = [".".join(path) for path in written]
    return Done(writes=tuple(Write(*each) for each in written.items()), process={"updated_variables": names})


def _target(target: Selector, written: Mapping[Selector, Value], view: Values) -> Value:
    current = written.get(target) or view.find(target)
    if len(target) != 2 or current is None:
        raise Failed(f"The variable {'.'.join(target)} is missing.")
    if not view.may_write(target):
        raise Failed(f"{'.'.join(target)} is no variable of the conversation or of a loop around the node.")
    return current


def _given(item: Mapping[str, Any], written: Mapping[Selector, Value], view: Values) -> Value:
    if item.get("operation") in FREE:
        return values.NULL
    if item.get("input_type") == "constant":
        return infer(item.get("value"))
    source = selector(item.get("value"))
    value = written.get(source) or view.find(source)
    if value is None:
        raise Failed(f"The variable {'.'.join(source)} is missing.")
    return value


def _changed(operation: str, current: Value, given: Value, *, constant: bool) -> Value:
    if operation == OVER_WRITE and not (constant and current.is_array):
        return Value(current.type, _fitting(current.type, given))
    if operation == "clear":
        return _cleared(current)
    if operation == "set" and constant and current.type in SCALARS:
        return Value(current.type, _fitting(current.type, given))
    if operation in ARITHMETIC and constant and current.type == values.NUMBER:
        return Value(current.type, _computed(operation, current.data, _fitting(values.NUMBER, given)))
    if current.is_array:
        if operation == "append" and not constant:
            return Value(current.type, [*current.data, _element(current.type, given)])
        if operation == "extend" and given.is_array and not constant:
            return Value(current.type, [*current.data, *_fitting(current.type, given)])
        if operation in ("remove-first", "remove-last"):
            return Value(current.type, current.data[1:] if operation == "remove-first" else current.data[:-1])
    how = "a constant" if constant else "a variable"
    raise Failed(f"The operation {operation} does not take {how} on {current.type}.")


def _cleared(current: Value) -> Value:
    return Value(current.type, [] if current.is_array else CLEARED.get(current.type))


def _fitting(type: str, given: Value) -> Any:
    if fits(type, given) or (type == values.NUMBER and given.type == values.BOOLEAN):
        return given.data
    raise Failed(f"The value is {given.type}, not {type}.")


def _element(type: str, given: Value) -> Any:
    if type == values.array(given.type) or (type == values.array(values.ANY) and not given.is_array):
        return given.data
    raise Failed(f"The value is {given.type}, no element of {type}.")


def _computed(operation: str, current: Any, given: Any) -> Any:
    try:
        return ARITHMETIC[operation](current, given)
    except ArithmeticError as error:
        raise Failed(str(error)) from error


TYPE = NodeType(
    "assigner",
    {
        "items": "Variables: `variable_selector`, `operation`, `input_type` variable or constant, `value`.",
        "assigned_variable_selector": "Of version 1: the variable.",
        "write_mode": "Of version 1: over-write, append or clear.",
        "input_variable_selector": "Of version 1: the value.",
    },
    {},
    run=run,
    check=check,
)
