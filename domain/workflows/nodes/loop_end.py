"""Loop-end: the last round of a loop."""

from __future__ import annotations

from domain.workflows.graph import Node
from domain.workflows.node_type import Done, NodeType, Values


def run(node: Node, view: Values) -> Done:
    return Done()


TYPE = NodeType("loop-end", {}, {}, run=run)
