"""Template-transform: a text written by a Jinja template."""

from __future__ import annotations

from domain.workflows.graph import Node
from domain.workflows.node_type import Done, Failed, NodeType, Trouble, Values, text, variables
from domain.workflows.requests import TemplateRequest
from domain.workflows.values import as_objects

MOST = 400_000


def prepare(node: Node, view: Values) -> TemplateRequest:
    given = as_objects(variables(node.data.get("variables"), view.find))
    return TemplateRequest((text(node.data.get("template")),), given)


def conclude(node: Node, request: TemplateRequest, answer: tuple[str, ...] | Trouble) -> Done:
    if isinstance(answer, Trouble):
        raise Failed(answer.message)
    if len(answer[0]) > MOST:
        raise Failed(f"The text exceeds {MOST:,} characters.")
    return Done({"output": answer[0]})


TYPE = NodeType(
    "template-transform",
    {"template": "Jinja template.", "variables": "Selectors of its names."},
    {"output": "Text."},
    prepare=prepare,
    conclude=conclude,
)
