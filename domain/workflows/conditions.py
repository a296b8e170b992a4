"""Conditions of branches, loops and filters: comparisons of a value with a text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from domain.workflows import values
from domain.workflows.graph import Problem
from domain.workflows.node_type import Failed, mapping, selector, sequence, text
from domain.workflows.rendering import Selector, render
from domain.workflows.values import File, Value, infer, within

NEGATED: Final = frozenset({"not contains", "is not", "not in", "≠", "not empty", "not null", "not exists"})
SPELLINGS: Final = {"is empty": "empty", "is not empty": "not empty"}
"""Operators of old files."""
OF_FILES: Final = frozenset({"exists", "not exists", "null", "not null", "empty", "not empty"})
"""Operators that a list of files takes without conditions for each file."""


class Finding(Protocol):
    def find(self, selector: Selector) -> Value | None: ...


def hold(spec: Sequence[Mapping[str, Any]], operator: str, view: Finding) -> bool:
    """Evaluate conditions from left to right, no further than needed. Raises: Failed."""
    quantifier = any if operator == "or" else all
    return quantifier(holds(condition, view) for condition in spec)


def holds(condition: Mapping[str, Any], view: Finding) -> bool:
    """Evaluate a condition. Raises: Failed."""
    path = selector(condition.get("variable_selector"))
    value = view.find(path)
    if value is None:
        raise Failed(f"The variable {'.'.join(path)} is missing.")
    operator = spelled(condition.get("comparison_operator"))
    if value.type == values.array(values.FILE) and operator not in OF_FILES:
        return _files(value.data, operator, mapping(condition.get("sub_variable_condition")), view)
    return compare(value, operator, _expected(condition.get("value"), view))


def spelled(operator: object) -> str:
    return SPELLINGS.get(text(operator), text(operator))


def compare(value: Value, operator: str, expected: object) -> bool:
    """Evaluate a comparison. Raises: Failed."""
    if not (comparison := OPERATORS.get(operator)):
        raise Failed(f"There is no comparison {operator}.")
    booleans = value.type in (values.BOOLEAN, values.array(values.BOOLEAN))
    if booleans and operator not in ("exists", "not exists"):
        expected = [_truth(each) for each in expected] if isinstance(expected, list) else _truth(expected)
    return comparison(value.data, expected)


def _truth(expected: object) -> object:
    """The boolean that a text writes, as JSON."""
    if not isinstance(expected, str):
        return expected
    try:
        read = json.loads(expected)
    except (ValueError, RecursionError) as error:
        raise Failed(f"A boolean is compared with {expected!r}, which is no JSON.") from error
    if not isinstance(read, int):
        raise Failed(f"A boolean is compared with {expected!r}, which is none.")
    return bool(read)


def problems(node: str, path: str, spec: object) -> list[Problem]:
    """The problems of a list of conditions."""
    found = []
    for number, condition in enumerate(map(mapping, sequence(spec))):
        operator = condition.get("comparison_operator")
        if spelled(operator) not in OPERATORS:
            rule = f"There is no comparison {operator}; there are {', '.join(OPERATORS)}."
            found.append(Problem(node, f"{path}[{number}].comparison_operator", rule))
        inner = mapping(condition.get("sub_variable_condition")).get("conditions")
        found += problems(node, f"{path}[{number}].sub_variable_condition.conditions", inner)
    return found


def _expected(spec: object, view: Finding) -> object:
    if isinstance(spec, str):
        return render(spec, view.find)
    if isinstance(spec, int | float) and not isinstance(spec, bool):
        return bool(spec) if spec in (0, 1) else str(spec)
    return spec


def _files(files: Sequence[File], operator: str, spec: Mapping[str, Any], view: Finding) -> bool:
    conditions = [mapping(each) for each in sequence(spec.get("conditions"))]
    if not conditions:
        raise Failed(f"A list of files is compared by {operator} without conditions for each file.")
    every = all if operator in NEGATED else any
    combine = any if spec.get("logical_operator") == "or" else all
    return every(combine(_file(file, each, view) for each in conditions) for file in files)


def _file(file: File, condition: Mapping[str, Any], view: Finding) -> bool:
    key = text(condition.get("key"))
    value = within(infer(file), [key])
    if value is None:
        raise Failed(f"A file has no attribute {key}.")
    expected = _expected(condition.get("value"), view)
    if key == "extension" and isinstance(expected, str) and expected and not expected.startswith("."):
        expected = f".{expected}"
    return compare(value, spelled(condition.get("comparison_operator")), expected)


def _contains(actual: Any, expected: object) -> bool:
    if not actual:
        return False
    if isinstance(actual, str):
        return isinstance(expected, str) and expected in actual
    if isinstance(actual, list):
        return expected in actual
    raise Failed("Only a text or a list contains something.")


def _ends(actual: Any, expected: object, ends: Callable[[str, str], bool]) -> bool:
    if not actual:
        return False
    if not isinstance(actual, str) or not isinstance(expected, str):
        raise Failed("Only a text starts or ends with a text.")
    return ends(actual, expected)


def _is(actual: Any, expected: object, *, same: bool) -> bool:
    if actual is None:
        return False
    if not isinstance(actual, str | bool):
        raise Failed("Only texts and booleans are compared by is; numbers by =.")
    return (actual == expected) is same


def _in(actual: Any, expected: object) -> bool:
    if not actual:
        return False
    return actual in _several(expected)


def _all_of(actual: Any, expected: object) -> bool:
    several = _several(expected)
    return bool(actual) and not isinstance(actual, bool) and all(_holds_it(actual, each) for each in several)


def _holds_it(actual: Any, each: object) -> bool:
    return isinstance(actual, str | list) and each in actual


def _several(expected: object) -> Sequence[Any]:
    if not isinstance(expected, list):
        raise Failed("The value to compare with is a list.")
    return expected


def _equal(actual: Any, expected: object, *, same: bool) -> bool:
    if actual is None:
        return False
    convert = int if isinstance(actual, int) else float
    return (_number(actual) == _read(expected, convert)) is same


def _ordered(actual: Any, expected: object, ordered: Callable[[float, float], bool]) -> bool:
    return actual is not None and ordered(float(_number(actual)), _read(expected, float))


def _number(actual: object) -> float:
    if not isinstance(actual, int | float):
        raise Failed("Only numbers are compared by = ≠ > < ≥ ≤.")
    return actual


def _read(expected: Any, convert: Callable[[Any], float]) -> float:
    try:
        return convert(expected[:400] if isinstance(expected, str) else expected)
    except (ValueError, TypeError, OverflowError) as error:
        raise Failed(f"A number is compared with {expected!r}, which is none of its kind.") from error


OPERATORS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "contains": _contains,
    "not contains": lambda actual, expected: not _contains(actual, expected),
    "start with": lambda actual, expected: _ends(actual, expected, str.startswith),
    "end with": lambda actual, expected: _ends(actual, expected, str.endswith),
    "is": lambda actual, expected: _is(actual, expected, same=True),
    "is not": lambda actual, expected: _is(actual, expected, same=False),
    "empty": lambda actual, _: not actual,
    "not empty": lambda actual, _: bool(actual),
    "in": _in,
    "not in": lambda actual, expected: not _in(actual, expected),
    "all of": _all_of,
    "=": lambda actual, expected: _equal(actual, expected, same=True),
    "≠": lambda actual, expected: _equal(actual, expected, same=False),
    ">": lambda actual, expected: _ordered(actual, expected, float.__gt__),
    "<": lambda actual, expected: _ordered(actual, expected, float.__lt__),
    "≥": lambda actual, expected: _ordered(actual, expected, float.__ge__),
    "≤": lambda actual, expected: _ordered(actual, expected, float.__le__),
    "null": lambda actual, _: actual is None,
    "not null": lambda actual, _: actual is not None,
    "exists": lambda actual, _: actual is not None,
    "not exists": lambda actual, _: actual is None,
}
