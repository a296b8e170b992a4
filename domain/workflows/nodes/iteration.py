"""Iteration: its fields. The engine runs it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from domain.workflows.graph import Node, Problem
from domain.workflows.node_type import NodeType, is_selector

MODES: Final = ("terminated", "continue-on-error", "remove-abnormal-output")


def check(node: Node) -> Iterator[Problem]:
    for field in ("iterator_selector", "output_selector"):
        if not is_selector(node.data.get(field)):
            yield Problem(node.id, field, "It is a list: the node, the name.")
    parallel = node.data.get("parallel_nums")
    if parallel is not None and (not isinstance(parallel, int) or parallel < 1):
        yield Problem(node.id, "parallel_nums", "It is a number from 1.")
    if (node.data.get("error_handle_mode") or MODES[0]) not in MODES:
        yield Problem(node.id, "error_handle_mode", f"It is one of {', '.join(MODES)}.")


TYPE = NodeType(
    "iteration",
    {
        "iterator_selector": "The list.",
        "output_selector": "Output of every item.",
        "start_node_id": "The first node inside.",
        "is_parallel": "True if items run at once.",
        "parallel_nums": "Number of items that run at once, at most 10.",
        "error_handle_mode": "terminated, continue-on-error or remove-abnormal-output.",
        "flatten_output": "True (default) if lists become one list.",
    },
    {"output": "Outputs of the items, in their order."},
    check=check,
)
