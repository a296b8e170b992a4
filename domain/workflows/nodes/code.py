"""Code: a function of the author."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

from domain.workflows import values
from domain.workflows.graph import Node, Problem
from domain.workflows.node_type import NODE_ERROR, Done, Failed, NodeType, Trouble, Values, mapping, sequence, text
from domain.workflows.requests import CodeRequest
from domain.workflows.values import Value, as_objects

RUN_ERROR: Final = "SandboxCodeExecutionError"
CODE_ERROR: Final = "CodeNodeError"
OUTPUT_ERROR: Final = "OutputValidationError"
DEPTH_ERROR: Final = "DepthLimitError"

LANGUAGES: Final = ("python3", "javascript")
LISTS: Final = ("array[string]", "array[number]", "array[object]", "array[boolean]")
OUTPUT_TYPES: Final = ("string", "number", "boolean", "object", *LISTS)
LONGEST: Final = 400_000
GREATEST: Final = 9223372036854775807
DECIMALS: Final = 20
DEPTH: Final = 5
MOST: Final = {"array[string]": 30, "array[object]": 30, "array[number]": 1000}
SCIENTIFIC: Final = re.compile(r"^-?\d{1,400}(?:\.\d{0,400})?[eE][+-]\d{1,10}$")


def prepare(node: Node, view: Values) -> CodeRequest:
    inputs: dict[str, Any] = {}
    for spec in map(mapping, sequence(node.data.get("variables"))):
        value = view.find(tuple(map(str, sequence(spec.get("value_selector")))))
        empty = value is not None and value.type == values.array(values.FILE) and not value.data
        inputs[text(spec.get("variable"))] = None if value is None or empty else as_objects(value.data)
    return CodeRequest(text(node.data.get("code_language")), text(node.data.get("code")), inputs)


def conclude(node: Node, request: CodeRequest, answer: Mapping[str, Any] | Trouble) -> Done:
    if isinstance(answer, Trouble):
        raise Failed(answer.message, answer.type or RUN_ERROR)
    outputs = declared(node)
    found = _object(outputs, readable(answer), "", 1)
    typed = {name: text(outputs[name].get("type")) for name, each in found.items() if isinstance(each, list)}
    return Done({**found, **{name: Value(type, found[name]) for name, type in typed.items() if type in LISTS}})


def declared(node: Node) -> dict[str, Mapping[str, Any]]:
    """The outputs that a node declares; in old files they are a list."""
    spec = node.data.get("outputs")
    if isinstance(spec, list):
        return {text(each.get("name") or each.get("variable")): each for each in map(mapping, spec)}
    return {name: mapping(each) for name, each in mapping(spec).items()}


def check(node: Node) -> Iterator[Problem]:
    if node.data.get("code_language") not in LANGUAGES:
        yield Problem(node.id, "code_language", f"It is {' or '.join(LANGUAGES)}.")
    for name, spec in declared(node).items():
        if spec.get("type") not in OUTPUT_TYPES:
            yield Problem(node.id, f"outputs.{name}.type", f"It is one of {', '.join(OUTPUT_TYPES)}.")


def readable(spec: Any) -> Any:
    """The data that code returned, with texts in scientific notation as the numbers they are."""
    if isinstance(spec, str):
        return float(spec) if len(spec) < 400 and SCIENTIFIC.match(spec) else spec
    if isinstance(spec, list):
        return [readable(each) for each in spec]
    return {name: readable(each) for name, each in spec.items()} if isinstance(spec, dict) else spec


def _object(outputs: Mapping[str, Mapping[str, Any]], spec: Mapping[str, Any], path: str, depth: int) -> dict[str, Any]:
    if depth > DEPTH:
        raise Failed(f"Outputs are at most {DEPTH} levels deep.", DEPTH_ERROR)
    found = {}
    for name, output in outputs.items():
        if name not in spec:
            raise Failed(f"The output {path}{name} is missing.", OUTPUT_ERROR)
        found[name] = _output(text(output.get("type")), output, spec[name], f"{path}{name}", depth)
    if extra := [name for name in spec if name not in outputs]:
        raise Failed(f"The output {path}{extra[0]} is not declared.", CODE_ERROR)
    return found


def _output(type: str, output: Mapping[str, Any], spec: Any, path: str, depth: int) -> Any:
    if type.startswith("array["):
        return _array(type, output, spec, path, depth)
    if spec is None:
        return None
    if type == values.STRING:
        return _string(spec, path)
    if type == values.NUMBER:
        return _number(spec, path)
    if type == values.OBJECT:
        return _one_object(output, spec, path, depth)
    if not isinstance(spec, int | float | bool | str | list | dict):
        raise Failed(f"The output {path} is no boolean.", OUTPUT_ERROR)
    return spec


def _one_object(output: Mapping[str, Any], spec: Any, path: str, depth: int) -> Any:
    if not isinstance(spec, dict):
        raise Failed(f"The output {path} is no object.", OUTPUT_ERROR)
    if children := mapping(output.get("children")):
        return _object({name: mapping(each) for name, each in children.items()}, spec, f"{path}.", depth + 1)
    return _free(spec, path, depth + 1)


def _array(type: str, output: Mapping[str, Any], spec: Any, path: str, depth: int) -> list[Any] | None:
    if spec is None:
        return None
    if not isinstance(spec, list):
        raise Failed(f"The output {path} is no list.", OUTPUT_ERROR)
    if len(spec) > MOST.get(type, len(spec)):
        raise Failed(f"The list {path} has more than {MOST[type]} items.", OUTPUT_ERROR)
    element = type.removeprefix("array[").removesuffix("]")
    items = [_output(element, output, each, f"{path}[{number}]", depth) for number, each in enumerate(spec)]
    if type == "array[number]" and None in items:
        raise Failed(f"A number of the list {path} is null.", OUTPUT_ERROR)
    if type == "array[boolean]" and not all(each is None or isinstance(each, bool) for each in items):
        raise Failed(f"An item of the list {path} is no boolean.", OUTPUT_ERROR)
    return items


def _string(spec: Any, path: str) -> str:
    if not isinstance(spec, str):
        raise Failed(f"The output {path} is no text.", OUTPUT_ERROR)
    if len(spec) > LONGEST:
        raise Failed(f"The text {path} exceeds {LONGEST:,} characters.", OUTPUT_ERROR)
    return spec.replace("\x00", "")


def _number(spec: Any, path: str) -> int | float:
    if not isinstance(spec, int | float):
        raise Failed(f"The output {path} is no number.", OUTPUT_ERROR)
    if not -GREATEST <= spec <= GREATEST:
        raise Failed(f"The number {path} exceeds {GREATEST}.", OUTPUT_ERROR)
    if isinstance(spec, float) and len(format(Decimal(repr(spec)), "f").partition(".")[2]) > DECIMALS:
        raise Failed(f"The number {path} has more than {DECIMALS} decimals.", OUTPUT_ERROR)
    return int(spec) if isinstance(spec, bool) else spec


def _free(spec: Any, path: str, depth: int) -> Any:
    """An object without declared children: every list in it has one type."""
    if depth > DEPTH:
        raise Failed(f"Outputs are at most {DEPTH} levels deep.", DEPTH_ERROR)
    if isinstance(spec, dict):
        return {name: _free_value(each, f"{path}.{name}", depth) for name, each in spec.items()}
    return spec


def _free_value(spec: Any, path: str, depth: int) -> Any:
    if isinstance(spec, dict):
        return _free(spec, path, depth + 1)
    if isinstance(spec, list):
        if any(isinstance(each, list) for each in spec):
            raise Failed(f"The list {path} holds lists.", NODE_ERROR)
        kinds = {_kind(each) for each in spec if each is not None}
        if len(kinds) > 1 or not kinds <= {"text", "number", "object", "boolean"}:
            raise Failed(f"The items of the list {path} have several types.", OUTPUT_ERROR)
        return [_free_value(each, f"{path}[{number}]", depth + 1) for number, each in enumerate(spec)]
    if isinstance(spec, str):
        return _string(spec, path)
    if isinstance(spec, bool) or spec is None:
        return spec
    return _number(spec, path)


def _kind(spec: object) -> str:
    if isinstance(spec, bool):
        return "boolean"
    if isinstance(spec, int | float):
        return "number"
    if isinstance(spec, str):
        return "text"
    return "object" if isinstance(spec, dict) else "other"


TYPE = NodeType(
    "code",
    {
        "code_language": "python3 or javascript.",
        "code": "A function `main`.",
        "variables": "Selectors of its parameters.",
        "outputs": "Names that it returns: `type`, `children`.",
    },
    {"<name>": "As declared."},
    prepare=prepare,
    conclude=conclude,
    check=check,
    retries=True,
)
