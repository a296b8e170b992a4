"""The node types that there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from domain.workflows.defaults import check as check_defaults
from domain.workflows.graph import CONTAINERS, INNER_STARTS, TRIGGERS, Graph, Node, Problem
from domain.workflows.node_type import NodeType
from domain.workflows.nodes import (
    agent,
    answer,
    assigner,
    code,
    document_extractor,
    end,
    http_request,
    human_input,
    if_else,
    iteration,
    knowledge_retrieval,
    list_operator,
    llm,
    loop,
    loop_end,
    parameter_extractor,
    question_classifier,
    start,
    template_transform,
    tool,
    trigger,
    variable_aggregator,
)
from domain.workflows.shapes import check as check_shape
from domain.workflows.values import WrongType, declared

TYPES: Final[Mapping[str, NodeType]] = {
    each.name: each
    for each in (
        start.TYPE,
        *trigger.TYPES,
        end.TYPE,
        answer.TYPE,
        llm.TYPE,
        knowledge_retrieval.TYPE,
        if_else.TYPE,
        question_classifier.TYPE,
        parameter_extractor.TYPE,
        code.TYPE,
        template_transform.TYPE,
        http_request.TYPE,
        tool.TYPE,
        agent.TYPE,
        variable_aggregator.TYPE,
        assigner.TYPE,
        list_operator.TYPE,
        document_extractor.TYPE,
        human_input.TYPE,
        iteration.TYPE,
        loop.TYPE,
        loop_end.TYPE,
    )
}


def _variables(graph: Graph) -> Iterator[Problem]:
    for place, variables in (("environment", graph.environment), ("conversation", graph.conversation)):
        for each in variables:
            try:
                declared(each.type, each.value)
            except WrongType as error:
                yield Problem(None, f"{place}_variables.{each.name}", str(error))


def _parallel(graph: Graph, node: Node) -> bool:
    """Test for a node in items that run at once."""
    owner = node.owner
    while owner is not None:
        container = graph.nodes[owner]
        if container.type == "iteration" and container.data.get("is_parallel") is True:
            return True
        owner = container.owner
    return False


def _remembers(node: Node) -> bool:
    return any(path[0] == "conversation" for path in assigner.assigned(node))


def problems(graph: Graph) -> list[Problem]:
    """Reasons why a graph cannot run."""
    found = [*graph.problems, *_variables(graph)]
    for node in graph.nodes.values():
        if node.type in INNER_STARTS or not node.type:
            continue
        if not (kind := TYPES.get(node.type)):
            found.append(Problem(node.id, "type", f"There is no node type {node.type}; there are {', '.join(TYPES)}."))
            continue
        if node.type in TRIGGERS and graph.mode != "workflow":
            found.append(Problem(node.id, "type", "Triggers are for apps of mode workflow."))
        found += check_defaults(node)
        found += check_shape(node)
        if kind.check:
            found += kind.check(node)
        if node.type == "assigner" and _parallel(graph, node) and _remembers(node):
            rule = "A conversation's variable is not assigned in items that run at once; let them run in order."
            found.append(Problem(node.id, "items", rule))
        if node.type in CONTAINERS and graph.scopes[node.id].entry is None:
            found.append(Problem(node.id, "start_node_id", "It names the first node inside."))
    return found
