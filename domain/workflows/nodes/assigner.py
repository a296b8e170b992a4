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
OF_LISTS: Final = frozenset({"append", "extend", "remove-first", "remove-last"})
OF_CONSTANTS: Final = frozenset({"set", *ARITHMETIC})
OPERATIONS: Final = (OVER_WRITE, "set", "append", "extend", *sorted(FREE), *ARITHMETIC)
MODES: Final = (OVER_WRITE, "append", "clear")


def run(node: Node, view: Values) -> Done:
    if not _second(node):
        return _first_version(node, view)
    written: dict[Selector, Value] = {}
    for item in map(mapping, sequence(node.data.get("items"))):
        target = selector(item.get("variable_selector"))
        current = _target(target, written, view)
        operation, constant = text(item.get("operation")), item.get("input_type") == "constant"
        if not _takes(operation, current, constant=constant):
            how = "a constant" if constant else "a variable"
            raise Failed(f"The operation {operation} does not take {how} on {current.type}.")
        given = _given(item, written, view)
        if operation in FREE or given.data is not None:
            written[target] = Value(current.type, _changed(operation, current, given))
        elif constant:
            raise Failed(f"The operation {operation} needs a value.")
    return _done(written)


def check(node: Node) -> Iterator[Problem]:
    if not _second(node):
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


def _second(node: Node) -> bool:
    """Test for a node of version 2, which has items."""
    return "items" in node.data or node.version in ("2", "v2")


def _first_version(node: Node, view: Values) -> Done:
    target = selector(node.data.get("assigned_variable_selector"))
    try:
        current = _target(target, {}, view)
    except Failed as failed:
        raise Failed(failed.message, NODE_ERROR) from failed
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


def _takes(operation: str, current: Value, *, constant: bool) -> bool:
    """Test for an operation that there is on a type, with a constant or a variable."""
    if operation == OVER_WRITE:
        return not (constant and current.is_array)
    if operation in OF_LISTS:
        return current.is_array and not constant
    if operation in OF_CONSTANTS:
        return constant and current.type in (SCALARS if operation == "set" else {values.NUMBER})
    return operation == "clear" and not constant


def _changed(operation: str, current: Value, given: Value) -> Any:
    match operation:
        case "clear":
            return _cleared(current).data
        case "append":
            return [*current.data, _element(current.type, given)]
        case "extend":
            return [*current.data, *_fitting(current.type, given)]
        case "remove-first":
            return current.data[1:]
        case "remove-last":
            return current.data[:-1]
        case _ if operation in ARITHMETIC:
            return _computed(operation, current.data, _fitting(values.NUMBER, given))
        case _:
            return _fitting(current.type, given)


def _cleared(current: Value) -> Value:
    return Value(current.type, [] if current.is_array else CLEARED.get(current.type))


def _fitting(type: str, given: Value) -> Any:
    if fits(type, given) or (type == values.NUMBER and given.type == values.BOOLEAN):
        return given.data
    raise Failed(f"The value is {given.type}, not {type}.")


def _element(type: str, given: Value) -> Any:
    kinds = [given.type, values.NUMBER] if given.type == values.BOOLEAN else [given.type]
    if type in map(values.array, kinds) or (type == values.array(values.ANY) and not given.is_array):
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
