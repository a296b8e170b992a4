"""Loop: its fields. The engine runs it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from domain.workflows import conditions
from domain.workflows.graph import Node, Problem
from domain.workflows.node_type import NodeType, mapping, sequence, text, whole

LISTS: Final = ("array[string]", "array[number]", "array[object]", "array[boolean]")
TYPES: Final = ("string", "number", "boolean", "object", *LISTS)


def check(node: Node) -> Iterator[Problem]:
    if not whole(node.data.get("loop_count"), 0):
        yield Problem(node.id, "loop_count", "It is a number from 1.")
    for number, spec in enumerate(map(mapping, sequence(node.data.get("loop_variables")))):
        path = f"loop_variables[{number}]"
        if text(spec.get("var_type")) not in TYPES:
            yield Problem(node.id, f"{path}.var_type", f"It is one of {', '.join(TYPES)}.")
        if text(spec.get("value_type")) not in ("constant", "variable"):
            yield Problem(node.id, f"{path}.value_type", "It is constant or variable.")
    yield from conditions.problems(node.id, "break_conditions", node.data.get("break_conditions"))


TYPE = NodeType(
    "loop",
    {
        "loop_count": "Maximum number of rounds.",
        "break_conditions": "Conditions of an earlier end.",
        "logical_operator": "and or or.",
        "loop_variables": "Variables: `label`, `var_type`, `value_type` constant or variable, `value`.",
        "start_node_id": "The first node inside.",
    },
    {"<label>": "A loop variable.", "loop_round": "Number of rounds; missing for none."},
    check=check,
)
