"""Start: the inputs of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from domain.workflows.graph import Node, Problem
from domain.workflows.node_type import NODE_ERROR, Done, Failed, NodeType, Trouble, Values, mapping, sequence, text
from domain.workflows.requests import SchemaRequest
from domain.workflows.values import NULL, Value

JSON_TYPES: Final = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})


def prepare(node: Node, view: Values) -> Done | SchemaRequest:
    outputs: dict[str, Value] = dict(view.inputs)
    checks = []
    for spec in map(mapping, sequence(node.data.get("variables"))):
        name = text(spec.get("variable"))
        if spec.get("type") == "json_object":
            data = _object(name, spec, outputs.get(name, NULL).data)
            if data and (schema := _schema(spec)):
                checks.append((name, schema, data))
    return SchemaRequest(tuple(checks), outputs) if checks else Done(outputs)


def conclude(node: Node, request: SchemaRequest, answer: Trouble | None) -> Done:
    if answer:
        raise Failed(answer.message, NODE_ERROR)
    return Done(request.then)


def check(node: Node) -> Iterator[Problem]:
    for number, spec in enumerate(map(mapping, sequence(node.data.get("variables")))):
        types = _schema(spec).get("type", [])
        if not JSON_TYPES.issuperset(types if isinstance(types, list) else [types]):
            rule = f"The type of a JSON Schema is one of {', '.join(sorted(JSON_TYPES))}."
            yield Problem(node.id, f"variables[{number}].json_schema", rule)


def _object(name: str, spec: Mapping[str, Any], data: object) -> Mapping[str, Any] | None:
    if data is None:
        if spec.get("required"):
            raise Failed(f"The input {name} is required.", NODE_ERROR)
        return None
    if not data:
        return None
    if not isinstance(data, Mapping):
        raise Failed(f"The input {name} is no object.", NODE_ERROR)
    return data


def _schema(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    schema = spec.get("json_schema")
    if isinstance(schema, str) and schema:
        try:
            schema = json.loads(schema)
        except ValueError:
            return {"type": "no JSON"}
    return mapping(schema)


TYPE = NodeType(
    "start",
    {"variables": "Inputs of a run."},
    {"<variable>": "Input."},
    prepare=prepare,
    conclude=conclude,
    check=check,
)
