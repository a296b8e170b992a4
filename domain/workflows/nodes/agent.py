"""Agent: a model that calls tools by a strategy."""

from __future__ import annotations

from collections.abc import Iterator

from domain.workflows import prompt, values
from domain.workflows.graph import Node, Problem
from domain.workflows.node_type import NODE_ERROR, Done, Failed, NodeType, Trouble, Values, mapping, text
from domain.workflows.nodes.tool import arguments
from domain.workflows.requests import AgentRequest, ToolAnswer
from domain.workflows.values import Value, as_objects


def prepare(node: Node, view: Values) -> AgentRequest:
    spec = mapping(node.data.get("agent_parameters"))
    given = {name: mapping(each).get("value") for name, each in spec.items()}
    plain = {name: value for name, value in given.items() if not _written(value)}
    written = {name: each for name, each in spec.items() if name not in plain}
    return AgentRequest(
        text(node.data.get("agent_strategy_provider_name")),
        text(node.data.get("agent_strategy_name")),
        as_objects({**plain, **arguments(written, view)}),
        prompt.memory(node) if prompt.remembers(node, view) else None,
        text(node.data.get("plugin_unique_identifier")) or None,
    )


def conclude(node: Node, request: AgentRequest, answer: ToolAnswer | Trouble) -> Done:
    if isinstance(answer, Trouble):
        raise Failed(answer.message, answer.type or NODE_ERROR)
    files = Value(values.array(values.FILE), list(answer.files))
    outputs = {"text": answer.text, "usage": {}, "files": files, "json": list(answer.json) or [{"data": []}]}
    return Done({**outputs, **answer.variables})


def check(node: Node) -> Iterator[Problem]:
    if node.version == "2":
        yield Problem(node.id, "version", "It names an agent of another workspace; choose a strategy and a model.")
    elif not node.data.get("agent_strategy_name"):
        yield Problem(node.id, "agent_strategy_name", "Choose a strategy.")


def _written(value: object) -> bool:
    return isinstance(value, str | list) and not (isinstance(value, list) and any(isinstance(v, dict) for v in value))


TYPE = NodeType(
    "agent",
    {
        "agent_strategy_provider_name": "Provider of the strategy.",
        "agent_strategy_name": "The strategy.",
        "agent_parameters": "Its parameters: model, tools, instruction, query, maximum_iterations.",
        "memory": "Earlier turns.",
    },
    {"text": "The answer.", "usage": "Tokens.", "files": "Files.", "json": "Objects that the tools returned."},
    prepare=prepare,
    conclude=conclude,
    check=check,
)
