"""Code: a function of the author."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

from domain.workflows import values
from domain.workflows.graph import Node, Problem
from domain.workflows.node_type import Done, Failed, NodeType, Trouble, Values, mapping, sequence, text
from domain.workflows.requests import CodeRequest
from domain.workflows.values import Value, as_objects

RUN_ERROR: Final = "SandboxCodeExecutionError"
CODE_ERROR: Final = "CodeNodeError"
OUTPUT_ERROR: Final = "OutputValidationError"
DEPTH_ERROR: Final = "DepthLimitError"

LANGUAGES: Final = ("python3", "javascript")
OUTPUT_TYPES: Final = (
    "string",
    "number",
    "boolean",
    "object",
    "array[string]",
    "array[number]",
    "array[object]",
    "array[boolean]",
)
LONGEST: Final = 400_000
GREATEST: Final = 9223372036854775807
DECIMALS: Final = 20
DEPTH: Final = 5
MOST: Final = {"array[string]": 30, "array[object]": 30, "array[number]": 1000}
SCIENTIFIC: Final = re.compile(r"^-?(?:\d+(?:\.\d*)?|\.\d+)[eE][+-]?\d+$")


def prepare(node: Node, view: Values) -> CodeRequest:
    inputs: dict[str, Any] = {}
    for told in map(mapping, sequence(node.data.get("variables"))):
        value = view.find(tuple(map(str, sequence(told.get("value_selector")))))
        empty = value is not None and value.type == values.array(values.FILE) and not value.data
        inputs[text(told.get("variable"))] = None if value is None or empty else as_objects(value.data)
    return CodeRequest(text(node.data.get("code_language")), text(node.data.get("code")), inputs)


def conclude(node: Node, request: CodeRequest, answer: Mapping[str, Any] | Trouble) -> Done:
    if isinstance(answer, Trouble):
        raise Failed(answer.message, answer.type or RUN_ERROR)
    return Done(_object(declared(node), readable(answer), "", 1))


def declared(node: Node) -> dict[str, Mapping[str, Any]]:
    """The outputs that a node declares; in old files they are a list."""
    told = node.data.get("outputs")
    if isinstance(told, list):
        return {text(each.get("name") or each.get("variable")): each for each in map(mapping, told)}
    return {name: mapping(each) for name, each in mapping(told).items()}


def check(node: Node) -> Iterator[Problem]:
    if node.data.get("code_language") not in LANGUAGES:
        yield Problem(node.id, "code_language", f"It is {' or '.join(LANGUAGES)}.")
    for name, told in declared(node).items():
        if told.get("type") not in OUTPUT_TYPES:
            yield Problem(node.id, f"outputs.{name}.type", f"It is one of {', '.join(OUTPUT_TYPES)}.")


def readable(told: Any) -> Any:
    """What code returned, with texts in scientific notation as the numbers they are."""
    if isinstance(told, str):
        return float(told) if len(told) < 400 and SCIENTIFIC.match(told) else told
    if isinstance(told, list):
        return [readable(each) for each in told]
    return {name: readable(each) for name, each in told.items()} if isinstance(told, dict) else told


def _object(outputs: Mapping[str, Mapping[str, Any]], told: Mapping[str, Any], path: str, depth: int) -> dict[str, Any]:
    if depth > DEPTH:
        raise Failed(f"Outputs are at most {DEPTH} levels deep.", DEPTH_ERROR)
    found = {}
    for name, output in outputs.items():
        if name not in told:
            raise Failed(f"The output {path}{name} is missing.", OUTPUT_ERROR)
        found[name] = _output(text(output.get("type")), output, told[name], f"{path}{name}", depth)
    if extra := [name for name in told if name not in outputs]:
        raise Failed(f"The output {path}{extra[0]} is not declared.", CODE_ERROR)
    return found


def _output(type: str, output: Mapping[str, Any], told: Any, path: str, depth: int) -> Any:
    if type.startswith("array["):
        return _array(type, output, told, path, depth)
    if told is None:
        return None
    if type == values.STRING:
        return _string(told, path)
    if type == values.NUMBER:
        return _number(told, path)
    if type == values.OBJECT:
        return _one_object(output, told, path, depth)
    if not isinstance(told, int | float | bool | str | list | dict):
        raise Failed(f"The output {path} is no boolean.", OUTPUT_ERROR)
    return told


def _one_object(output: Mapping[str, Any], told: Any, path: str, depth: int) -> Any:
    if not isinstance(told, dict):
        raise Failed(f"The output {path} is no object.", OUTPUT_ERROR)
    if children := mapping(output.get("children")):
        return _object({name: mapping(each) for name, each in children.items()}, told, f"{path}.", depth + 1)
    return _free(told, path, depth + 1)


def _array(type: str, output: Mapping[str, Any], told: Any, path: str, depth: int) -> Value:
    if told is None:
        return Value(type, [])
    if not isinstance(told, list):
        raise Failed(f"The output {path} is no list.", OUTPUT_ERROR)
    if len(told) > MOST.get(type, len(told)):
        raise Failed(f"The list {path} has more than {MOST[type]} items.", OUTPUT_ERROR)
    element = type.removeprefix("array[").removesuffix("]")
    items = [_output(element, output, each, f"{path}[{number}]", depth) for number, each in enumerate(told)]
    if type == "array[number]" and None in items:
        raise Failed(f"A number of the list {path} is null.", OUTPUT_ERROR)
    return Value(type, items)


def _string(told: Any, path: str) -> str:
    if not isinstance(told, str):
        raise Failed(f"The output {path} is no text.", OUTPUT_ERROR)
    if len(told) > LONGEST:
        raise Failed(f"The text {path} exceeds {LONGEST:,} characters.", OUTPUT_ERROR)
    return told.replace("\x00", "")


def _number(told: Any, path: str) -> int | float:
    if not isinstance(told, int | float):
        raise Failed(f"The output {path} is no number.", OUTPUT_ERROR)
    if not -GREATEST <= told <= GREATEST:
        raise Failed(f"The number {path} exceeds {GREATEST}.", OUTPUT_ERROR)
    if isinstance(told, float) and len(format(Decimal(repr(told)), "f").partition(".")[2]) > DECIMALS:
        raise Failed(f"The number {path} has more than {DECIMALS} decimals.", OUTPUT_ERROR)
    return int(told) if isinstance(told, bool) else told


def _free(told: Any, path: str, depth: int) -> Any:
    """An object without declared children: every list in it has one type."""
    if depth > DEPTH:
        raise Failed(f"Outputs are at most {DEPTH} levels deep.", DEPTH_ERROR)
    if isinstance(told, dict):
        return {name: _free_value(each, f"{path}.{name}", depth) for name, each in told.items()}
    return told


def _free_value(told: Any, path: str, depth: int) -> Any:
    if isinstance(told, dict):
        return _free(told, path, depth + 1)
    if isinstance(told, list):
        kinds = {_kind(each) for each in told if each is not None}
        if len(kinds) > 1 or not kinds <= {"text", "number", "object", "boolean"}:
            raise Failed(f"The items of the list {path} have several types.", OUTPUT_ERROR)
        return [_free_value(each, f"{path}[{number}]", depth + 1) for number, each in enumerate(told)]
    if isinstance(told, str):
        return _string(told, path)
    if isinstance(told, bool) or told is None:
        return told
    return _number(told, path)


def _kind(told: object) -> str:
    if isinstance(told, bool):
        return "boolean"
    if isinstance(told, int | float):
        return "number"
    if isinstance(told, str):
        return "text"
    return "object" if isinstance(told, dict) else "other"


TYPE = NodeType(
    "code",
    {
        "code_language": "python3 or javascript.",
        "code": "A function `main`.",
        "variables": "What its parameters stand for.",
        "outputs": "What it returns: the type of each name, and its `children`.",
    },
    {"<name>": "As declared."},
    prepare=prepare,
    conclude=conclude,
    check=check,
    retries=True,
)
