"""Default values: what a node puts out after an error."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from domain.workflows import values
from domain.workflows.graph import Node, Problem
from domain.workflows.node_type import mapping, sequence, text
from domain.workflows.values import Value, WrongType, infer

LISTS: Final[Mapping[str, type | tuple[type, ...]]] = {
    "array[string]": str,
    "array[number]": (int, float),
    "array[object]": dict,
}


def defaults(node: Node) -> dict[str, Value]:
    """The default values of a node that has no problem."""
    named = (mapping(each) for each in sequence(node.data.get("default_value")))
    return {text(each.get("key")): converted(text(each.get("type")), each.get("value")) for each in named}


def check(node: Node) -> Iterator[Problem]:
    if node.strategy != "default-value":
        return
    for number, spec in enumerate(map(mapping, sequence(node.data.get("default_value")))):
        try:
            converted(text(spec.get("type")), spec.get("value"))
        except (ValueError, TypeError) as error:
            yield Problem(node.id, f"default_value[{number}].value", f"It is a value of its type: {error}")


def converted(type: str, given: Any) -> Value:
    """A default of a type; texts are read, but for files, which are taken as they are. Raises: ValueError."""
    if type == values.array(values.FILE):
        return infer(given)
    if type == values.STRING:
        return infer(given) if isinstance(given, str) else _refuse(type)
    if type == values.NUMBER:
        number = float(given) if isinstance(given, str) else given
        return infer(number) if isinstance(number, int | float) else _refuse(type)
    data = json.loads(given) if isinstance(given, str) else given
    if type == values.OBJECT:
        return infer(data) if isinstance(data, dict) else _refuse(type)
    if type not in LISTS or not isinstance(data, list) or not all(isinstance(each, LISTS[type]) for each in data):
        return _refuse(type)
    return infer(data)


def _refuse(type: str) -> Value:
    raise WrongType(f"it is no {type}.")
