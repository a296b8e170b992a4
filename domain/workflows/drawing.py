"""Drawings of a graph: as lines of text, and as a flowchart of Mermaid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from domain.workflows.graph import CONTAINERS, INNER_STARTS, SOURCE, Graph, Node

BRANCHING: Final = frozenset({"if-else", "question-classifier", "human-input"})
TITLE: Final = 60
"""Maximum characters of a title in a drawing."""


def as_text(graph: Graph) -> str:
    """A line for each node, with its ways to the next ones below; the nodes of a container are indented."""
    return "\n".join(_lines(graph, None, "")) + "\n"


def _lines(graph: Graph, owner: str | None, indent: str) -> Iterator[str]:
    scope = graph.scopes[owner]
    for id in scope.nodes:
        node = graph.nodes[id]
        yield f"{indent}{node.type:<20} {_title(node)}  [{id}]"
        if node.type in CONTAINERS:
            yield from _lines(graph, id, indent + "    ")
        for edge in scope.outgoing.get(id, ()):
            handle = "" if edge.handle == SOURCE else f"{branch(node, edge.handle)} "
            yield f"{indent}  {handle}→ {_title(graph.nodes[edge.target])}"


def as_mermaid(graph: Graph) -> str:
    names = {id: f"n{number}" for number, id in enumerate(graph.nodes)}
    return "\n".join(["flowchart LR", *_of_scope(graph, None, names, "  ")]) + "\n"


def _of_scope(graph: Graph, owner: str | None, names: Mapping[str, str], indent: str) -> Iterator[str]:
    scope = graph.scopes[owner]
    for id in scope.nodes:
        node = graph.nodes[id]
        if node.type in CONTAINERS:
            yield f'{indent}subgraph {names[id]}["{_label(node)}"]'
            yield from _of_scope(graph, id, names, indent + "  ")
            yield f"{indent}end"
        else:
            left, right = ("{", "}") if node.type in BRANCHING else ("[", "]")
            yield f'{indent}{names[id]}{left}"{_label(node)}"{right}'
    for edge in scope.edges:
        handle = "" if edge.handle == SOURCE else f'|"{_escaped(branch(graph.nodes[edge.source], edge.handle))}"|'
        yield f"{indent}{names[edge.source]} -->{handle} {names[edge.target]}"


def _label(node: Node) -> str:
    return _escaped(f"{node.type}: {_title(node)}" if node.type not in INNER_STARTS else "start")


def _title(node: Node) -> str:
    return " ".join(node.title.split())[:TITLE] or node.id[:TITLE]


def branch(node: Node, handle: str) -> str:
    """The name of the branch that leaves by a handle, where the node gives it one."""
    for field, id, name in (("classes", "id", "name"), ("user_actions", "id", "title")):
        entries = node.data.get(field)
        for each in entries if isinstance(entries, list) else ():
            if isinstance(each, Mapping) and each.get(id) == handle and each.get(name):
                return " ".join(str(each[name]).split())[:TITLE]
    return handle[:TITLE]


def _escaped(text: str) -> str:
    for char, entity in (("&", "amp"), ('"', "quot"), ("<", "lt"), (">", "gt")):
        text = text.replace(char, f"&{entity};")
    return text
