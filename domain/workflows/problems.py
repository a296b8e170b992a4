"""What keeps a graph from running: in one place for those who publish it and those who report on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from domain.workflows.graph import INNER_STARTS, Graph, Node, Problem

OF_PIPELINES: Final = frozenset({"datasource", "knowledge-index"})

NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "start": (),
    "end": (),
    "answer": (),
    "llm": ("model", "prompt_template"),
    "knowledge-retrieval": (),
    "if-else": (),
    "question-classifier": ("model", "classes"),
    "parameter-extractor": ("model", "parameters"),
    "code": ("code_language", "code"),
    "template-transform": ("template",),
    "http-request": ("method", "url"),
    "tool": ("tool_name",),
    "agent": ("agent_parameters",),
    "variable-aggregator": (),
    "assigner": (),
    "list-operator": ("variable",),
    "document-extractor": ("variable_selector",),
    "iteration": ("iterator_selector",),
    "loop": ("loop_count",),
    "loop-end": (),
    "human-input": ("user_actions",),
    "trigger-webhook": (),
    "trigger-schedule": (),
    **dict.fromkeys(INNER_STARTS, ()),
}
"""The types of nodes, and the fields without which none of them runs."""


def problems(graph: Graph) -> list[Problem]:
    """The problems of the graph and of all its nodes."""
    return [*graph.problems, *(each for node in graph.nodes.values() for each in of_node(node, graph))]


def of_node(node: Node, graph: Graph) -> Iterator[Problem]:
    if node.type not in NEEDED:
        if node.type:
            yield Problem(node.id, "type", _unknown(node.type))
        return
    for field in NEEDED[node.type]:
        if node.data.get(field) in (None, "", {}):
            yield Problem(node.id, field, f"A node of type {node.type} needs it.")
    if node.type == "agent" and _is_of_workspace(node.data):
        yield Problem(node.id, "version", "It names an agent of a workspace, which is not part of the file.")
    if node.type.startswith("trigger-") and graph.mode != "workflow":
        yield Problem(node.id, "type", "Triggers are for apps of mode workflow.")


def _unknown(type: str) -> str:
    if type in OF_PIPELINES:
        return f"Nodes of type {type} are of pipelines, not of apps."
    if type == "trigger-plugin":
        return "Triggers of plugins are not run; use a webhook or a schedule."
    return f"There is no type {type}; the types are: {', '.join(sorted(NEEDED))}."


def _is_of_workspace(data: Mapping[str, Any]) -> bool:
    """Agents of version 2 name an agent by its id, and have no strategy."""
    return str(data.get("version")) == "2" and not data.get("agent_strategy_name")
