"""Document-extractor: the text of files."""

from __future__ import annotations

from domain.workflows import values
from domain.workflows.graph import Node
from domain.workflows.node_type import Done, Failed, NodeType, Trouble, Values, selector
from domain.workflows.requests import DocumentRequest
from domain.workflows.values import Value

TEXTS = values.array(values.STRING)


def prepare(node: Node, view: Values) -> Done | DocumentRequest:
    value = view.find(selector(node.data.get("variable_selector")))
    if value is None:
        raise Failed("The file is missing.")
    if not value.data:
        return Done({"text": Value(TEXTS, [])})
    if value.type == values.FILE:
        return DocumentRequest((value.data,), several=False)
    if value.type == values.array(values.FILE):
        return DocumentRequest(tuple(value.data), several=True)
    raise Failed(f"A file is needed, not {value.type}.")


def conclude(node: Node, request: DocumentRequest, answer: tuple[str, ...] | Trouble) -> Done:
    if isinstance(answer, Trouble):
        raise Failed(answer.message, answer.type)
    return Done({"text": Value(TEXTS, list(answer)) if request.several else answer[0]})


TYPE = NodeType(
    "document-extractor",
    {"variable_selector": "A file, or a list of files."},
    {"text": "Text of the file, or of each."},
    prepare=prepare,
    conclude=conclude,
)
