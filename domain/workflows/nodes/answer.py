"""Answer: a part of the reply."""

from __future__ import annotations

from domain.workflows import values
from domain.workflows.graph import Node
from domain.workflows.node_type import Done, NodeType, Values, text
from domain.workflows.rendering import as_markdown, references, render
from domain.workflows.values import Value


def run(node: Node, view: Values) -> Done:
    template = text(node.data.get("answer"))
    files = []
    for selector in references(template):
        value = view.find(selector)
        if value and value.type == values.FILE:
            files.append(value.data)
        elif value and value.type == values.array(values.FILE):
            files += value.data
    answer = render(template, view.find, as_markdown)
    return Done({"answer": answer, "files": Value(values.array(values.FILE), files)})


TYPE = NodeType(
    "answer",
    {"answer": "Text of the reply, a template."},
    {"answer": "Text, in Markdown.", "files": "Files that the text refers to."},
    run=run,
)
