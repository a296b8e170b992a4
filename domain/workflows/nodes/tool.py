"""Tool: a call of a tool."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from domain.workflows import values
from domain.workflows.graph import Node, Problem
from domain.workflows.node_type import NODE_ERROR, Done, Failed, NodeType, Trouble, Values, mapping, selector, text
from domain.workflows.rendering import render
from domain.workflows.requests import ToolAnswer, ToolRequest
from domain.workflows.values import Value

KINDS: Final = ("mixed", "variable", "constant")


def prepare(node: Node, view: Values) -> ToolRequest:
    spec = node.data
    return ToolRequest(
        text(spec.get("provider_id")),
        text(spec.get("provider_type")),
        text(spec.get("provider_name")),
        text(spec.get("tool_name")),
        arguments(mapping(spec.get("tool_parameters")), view),
        _configuration(mapping(spec.get("tool_configurations")), view),
        text(spec.get("credential_id")) or None,
        text(spec.get("plugin_unique_identifier")) or None,
    )


def conclude(node: Node, request: ToolRequest, answer: ToolAnswer | Trouble) -> Done:
    if isinstance(answer, Trouble):
        raise Failed(answer.message, answer.type or NODE_ERROR)
    files = Value(values.array(values.FILE), list(answer.files))
    return Done({"text": answer.text, "files": files, "json": list(answer.json) or [{"data": []}], **answer.variables})


def check(node: Node) -> Iterator[Problem]:
    for name, spec in mapping(node.data.get("tool_parameters")).items():
        if not isinstance(spec, Mapping):
            continue
        field = f"tool_parameters.{name}"
        kind, value = mapping(spec).get("type"), mapping(spec).get("value")
        if kind not in KINDS:
            yield Problem(node.id, f"{field}.type", f"It is one of {', '.join(KINDS)}.")
        elif kind == "variable" and not isinstance(value, list):
            yield Problem(node.id, f"{field}.value", "A variable is a list: the node, the name.")
        elif kind == "mixed" and not isinstance(value, str | None):
            yield Problem(node.id, f"{field}.value", "A mixed value is a text.")


def arguments(spec: Mapping[str, Any], view: Values) -> dict[str, Any]:
    """The arguments of a tool or an agent; those whose variable is missing are left out."""
    found = {}
    for name, parameter in spec.items():
        given = mapping(parameter).get("value")
        if mapping(parameter).get("type") == "variable":
            value = view.find(selector(given))
            if value is not None:
                found[name] = value.data
        elif given is not None:
            found[name] = render(str(given), view.find)
    return found


def gathered(messages: Sequence[Mapping[str, Any]], files: Sequence[values.File] = ()) -> ToolAnswer:
    """The answer of a tool from its messages, in the shape that Dify's plugins send them."""
    said, objects, variables = "", [], dict[str, Any]()
    for spec in messages:
        message = mapping(spec.get("message"))
        match spec.get("type"):
            case "text":
                said += text(message.get("text"))
            case "link":
                said += f"Link: {message.get('text')}\n"
            case "json":
                objects.append(message.get("json_object"))
            case "variable":
                name, value = text(message.get("variable_name")), message.get("variable_value")
                streamed = message.get("stream") and isinstance(value, str)
                variables[name] = f"{variables.get(name, '')}{value}" if streamed else value
    return ToolAnswer(said, tuple(files), tuple(objects), variables)


def _configuration(spec: Mapping[str, Any], view: Values) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in spec.items():
        if isinstance(value, Mapping) and value.get("type") in KINDS:
            found |= arguments({name: value}, view)
        elif value is not None:
            found[name] = value
    return found


TYPE = NodeType(
    "tool",
    {
        "provider_id": "Provider of the tool.",
        "provider_type": "builtin, plugin, api, workflow, mcp, app or dataset-retrieval.",
        "provider_name": "Its name.",
        "tool_name": "The tool.",
        "tool_parameters": "Arguments: `type` mixed, variable or constant, `value`.",
        "tool_configurations": "Settings by the author.",
        "credential_id": "The credential.",
        "plugin_unique_identifier": "The plugin.",
    },
    {"text": "Text.", "files": "Files.", "json": "Objects.", "<name>": "Variables that the tool returned."},
    prepare=prepare,
    conclude=conclude,
    check=check,
    retries=True,
)
