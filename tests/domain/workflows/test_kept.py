from __future__ import annotations

from typing import Any

import pytest

from domain.workflows.graph import Graph
from domain.workflows.kept import keeps
from tests.handlers.workflows.stage import graph


def drawn(**change: Any) -> Graph:
    """start → a → each (inner) → end, and start → b → end."""
    nodes: list[dict[str, Any]] = [
        {"id": "start", "type": "start", "variables": [{"variable": "x"}, {"variable": "y"}]},
        {"id": "a", "type": "code", "variables": [{"variable": "x", "value_selector": ["start", "x"]}]},
        {"id": "b", "type": "answer", "answer": "{{#start.y#}}"},
        {"id": "each", "type": "iteration", "iterator_selector": ["a", "list"], "start_node_id": "inner"},
        {"id": "inner", "type": "code", "parent": "each", "code": "x"},
        {"id": "end", "type": "end", "outputs": [{"variable": "o", "value_selector": ["each", "output"]}]},
    ]
    told = [{**node, **change.get(node["id"], {})} for node in nodes]
    return graph(told, [("start", "a"), ("a", "each"), ("each", "end"), ("start", "b"), ("b", "end")])


KEYS = ["start", "a", "b", "each", "each/0/inner", "each/1/inner", "end"]


@pytest.mark.parametrize(
    ("change", "step", "inputs", "kept"),
    [
        ({}, "", [], KEYS),
        ({}, "b", [], ["start", "a", "each", "each/0/inner", "each/1/inner"]),
        ({}, "each", [], ["start", "a", "b"]),
        ({}, "", ["y"], ["a", "each", "each/0/inner", "each/1/inner", "end"]),
        ({}, "", ["x"], ["b"]),
        ({"inner": {"code": "y"}}, "", [], ["start", "a", "b"]),
        ({"a": {"title": "Other"}}, "", [], KEYS),
        ({"end": {"outputs": []}}, "", [], KEYS[:-1]),
    ],
)
def test_what_changes_and_what_works_with_it_runs_again(
    change: dict[str, Any], step: str, inputs: list[str], kept: list[str]
) -> None:
    keep = keeps(drawn(), drawn(**change), step=step, inputs=inputs)
    assert [key for key in KEYS if keep(key)] == kept
