"""List-operator: a list that is filtered, ordered and cut."""

from __future__ import annotations

import operator
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
    flag,
    mapping,
    selector,
    sequence,
    text,
    whole,
)
from domain.workflows.rendering import render
from domain.workflows.values import File, Value

Test = Callable[[Any], bool]

TEXTS: Final[Mapping[str, Callable[[str, str], bool]]] = {
    "contains": lambda item, spec: spec in item,
    "not contains": lambda item, spec: spec not in item,
    "start with": str.startswith,
    "end with": str.endswith,
    "is": operator.eq,
    "is not": operator.ne,
    "in": lambda item, spec: item in spec,
    "not in": lambda item, spec: item not in spec,
    "empty": lambda item, spec: not item,
    "not empty": lambda item, spec: bool(item),
}
NUMBERS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "=": operator.eq,
    "≠": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "≤": operator.le,
    "≥": operator.ge,
}
BOOLEANS: Final[Mapping[str, Callable[[bool, bool], bool]]] = {"is": operator.eq, "is not": operator.ne}
LISTED: Final = frozenset({"type", "transfer_method"})
"""Attributes of files that are looked for in a list."""
ATTRIBUTES: Final = {**values.ATTRIBUTES, "url": "remote_url"}
CONTAINS: Final = "contains"
EMPTY: Final = {"first_record": None, "last_record": None}
COMPARISONS: Final = frozenset({*TEXTS, *NUMBERS, *BOOLEANS})
KINDS: Final = tuple(map(values.array, (values.STRING, values.NUMBER, values.BOOLEAN, values.FILE)))


def run(node: Node, view: Values) -> Done:
    value = view.find(selector(node.data.get("variable")))
    if value is None:
        raise Failed("The list is missing.")
    if not value.data:
        return Done({"result": Value(value.type if value.is_array else values.array(values.STRING), []), **EMPTY})
    if value.type not in KINDS:
        raise Failed(f"A list of texts, numbers, booleans or files is needed, not {value.type}.")
    items = list(value.data)
    spec = {name: mapping(node.data.get(name)) for name in ("filter_by", "extract_by", "order_by", "limit")}
    if flag(spec["filter_by"].get("enabled")):
        for condition in map(mapping, sequence(spec["filter_by"].get("conditions"))):
            items = list(filter(_test(value.type, condition, view), items))
    if flag(spec["extract_by"].get("enabled")):
        items = [items[_serial(spec["extract_by"], items, view)]]
    if flag(spec["order_by"].get("enabled")):
        by = spec["order_by"]
        items.sort(key=_key(value.type, text(by.get("key"))), reverse=by.get("value") == "desc")
    if flag(spec["limit"].get("enabled")):
        size = spec["limit"].get("size", -1)
        items = items[: size if isinstance(size, int) else whole(size, 0)]
    first, last = (items[0], items[-1]) if items else (None, None)
    return Done({"result": Value(value.type, items), "first_record": first, "last_record": last})


def check(node: Node) -> Iterator[Problem]:
    conditions = mapping(node.data.get("filter_by")).get("conditions")
    for number, condition in enumerate(map(mapping, sequence(conditions))):
        path = f"filter_by.conditions[{number}]"
        if text(condition.get("comparison_operator", CONTAINS)) not in COMPARISONS:
            yield Problem(node.id, f"{path}.comparison_operator", f"It is one of {', '.join(sorted(COMPARISONS))}.")
        if not isinstance(condition.get("value"), str | bool | int | float | list):
            yield Problem(node.id, f"{path}.value", "It is a text, true, false or a list.")


def _serial(spec: Mapping[str, Any], items: list[Any], view: Values) -> int:
    written = render(text(spec.get("serial")), view.find)
    try:
        serial = int(written[:100])
    except ValueError as error:
        raise Failed(f"{written!r} is no place in a list.", NODE_ERROR) from error
    if serial < 1:
        raise Failed("Places count from 1.", NODE_ERROR)
    if serial > len(items):
        raise Failed(f"The list has {len(items)} items, not {serial}.")
    return serial - 1


def _test(type: str, condition: Mapping[str, Any], view: Values) -> Test:
    spec = condition.get("value")
    given = render(spec, view.find) if isinstance(spec, str) else spec
    if isinstance(given, int | float) and not isinstance(given, bool):
        given = bool(given) if given in (0, 1) else str(given)
    name = text(condition.get("comparison_operator", CONTAINS))
    if type == values.array(values.FILE):
        key = text(condition.get("key"))
        test = _file_test(key, name, given)
        return lambda file: test(_attribute(file, key))
    if type == values.array(values.STRING):
        return _text_test(name, given)
    return _number_test(name, given) if type == values.array(values.NUMBER) else _boolean_test(name, given)


def _text_test(name: str, given: Any) -> Test:
    if not isinstance(given, str):
        raise Failed("Texts are compared with a text.")
    compare = _known(TEXTS, name)
    return lambda item: compare(item, given)


def _number_test(name: str, given: Any) -> Test:
    if not isinstance(given, str):
        raise Failed("Numbers are compared with a text that writes one.")
    try:
        number = float(given) if "." in given else int(given)
    except ValueError as error:
        raise Failed(f"{given!r} is no number.", NODE_ERROR) from error
    compare = _known(NUMBERS, name)
    return lambda item: compare(item, number)


def _boolean_test(name: str, given: Any) -> Test:
    if not isinstance(given, bool):
        raise Failed("Booleans are compared with a boolean.", NODE_ERROR)
    compare = _known(BOOLEANS, name)
    return lambda item: compare(item, given)


def _file_test(key: str, name: str, given: Any) -> Test:
    if isinstance(given, bool):
        raise Failed("Files are compared with a text.", NODE_ERROR)
    if key == "size":
        return _number_test(name, given)
    if key in LISTED:
        if name not in ("in", "not in"):
            raise Failed(f"The attribute {key} of a file is compared by in, or not in.")
        return lambda item: (item in given) is (name == "in")
    if key not in ATTRIBUTES:
        raise Failed(f"A file has no attribute {key!r}.")
    return _text_test(name, given)


def _known(operators: Mapping[str, Callable[[Any, Any], bool]], name: str) -> Callable[[Any, Any], bool]:
    if not (compare := operators.get(name)):
        raise Failed(f"Such a list is not compared by {name}, but by {', '.join(operators)}.")
    return compare


def _key(type: str, key: str) -> Callable[[Any], Any]:
    if type != values.array(values.FILE):
        return lambda item: item
    if key not in ATTRIBUTES:
        raise Failed(f"A file has no attribute {key!r}.")
    return lambda file: _attribute(file, key)


def _attribute(file: File, key: str) -> Any:
    value = getattr(file, ATTRIBUTES[key])
    return value if key == "size" else value or ""


TYPE = NodeType(
    "list-operator",
    {
        "variable": "The list.",
        "filter_by": "Conditions: `key`, `comparison_operator`, `value`.",
        "extract_by": "`serial`: the place of one item, from 1.",
        "order_by": "`key`, `value` asc or desc.",
        "limit": "`size`.",
    },
    {"result": "The items that are left.", "first_record": "The first; null for none.", "last_record": "The last."},
    run=run,
    check=check,
)
