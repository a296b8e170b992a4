"""End: the outputs of a run."""

from __future__ import annotations

from collections.abc import Iterator

from domain.workflows.graph import Node, Problem
from domain.workflows.node_type import Done, NodeType, Values, is_selector, mapping, selector, sequence, text
from domain.workflows.values import NULL


def run(node: Node, view: Values) -> Done:
    named = [mapping(each) for each in sequence(node.data.get("outputs"))]
    return Done({text(each.get("variable")): view.find(selector(each.get("value_selector"))) or NULL for each in named})


def check(node: Node) -> Iterator[Problem]:
    for number, spec in enumerate(map(mapping, sequence(node.data.get("outputs")))):
        if not is_selector(spec.get("value_selector")):
            yield Problem(node.id, f"outputs[{number}].value_selector", "It is a list: the node, the name.")


TYPE = NodeType("end", {"outputs": "Outputs of the run."}, {"<variable>": "Output."}, run=run, check=check)
