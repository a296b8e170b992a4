"""Variable-aggregator: the first of several variables that is there."""

from __future__ import annotations

from domain.workflows.graph import Node
from domain.workflows.node_type import Done, NodeType, Values, mapping, selector, sequence, text
from domain.workflows.values import Value


def run(node: Node, view: Values) -> Done:
    advanced = mapping(node.data.get("advanced_settings"))
    if not advanced.get("group_enabled"):
        found = _first(node.data.get("variables"), view)
        return Done({"output": found} if found else {})
    outputs = {}
    for group in map(mapping, sequence(advanced.get("groups"))):
        if found := _first(group.get("variables"), view):
            outputs[text(group.get("group_name"))] = {"output": found.data}
    return Done(outputs)


def _first(spec: object, view: Values) -> Value | None:
    values = (view.find(selector(each)) for each in sequence(spec))
    return next((value for value in values if value is not None), None)


TYPE = NodeType(
    "variable-aggregator",
    {"variables": "Selectors, the first that is there counts.", "advanced_settings": "Groups with an output each."},
    {"output": "The first that is there.", "<group>.output": "The same of a group."},
    run=run,
)
