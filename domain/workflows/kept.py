"""Steps whose results another run keeps: those that nothing leads to that is new."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from domain.workflows.graph import CONTAINERS, START, Graph, Node
from domain.workflows.rendering import Selector, references

SHOWN = frozenset({"title", "desc", "selected"})
"""Fields of nodes that are only for people."""


def keeps(before: Graph, after: Graph, *, step: str, inputs: Collection[str]) -> Callable[[str], bool]:
    """Test for the key of a step whose result is kept, where a run of `before` goes on as one of `after`.

    `step` and what follows it run again, and what works with values that have changed: `inputs` are the names of those
    that have another value.
    """
    again = _changed(before, after)
    if step:
        again |= _from(after, _ids(step)[0])
    if inputs and after.entry:
        again.add(after.entry)
    environment = {each.name for each in after.environment if each not in before.environment}
    while more := {id for id in after.nodes if id not in again and _works_with(after, id, again, inputs, environment)}:
        again |= more
    return lambda key: not again.intersection(_ids(key))


def _changed(before: Graph, after: Graph) -> set[str]:
    return {
        id for id, node in after.nodes.items() if id not in before.nodes or _meaning(before.nodes[id]) != _meaning(node)
    }


def _meaning(node: Node) -> tuple[object, ...]:
    data = {name: value for name, value in node.data.items() if name not in SHOWN}
    return node.type, node.version, data, node.owner, node.strategy


def _from(graph: Graph, id: str) -> set[str]:
    """A node at the top, and all that edges lead to from it."""
    found, ways = set(), [id]
    while ways:
        at = ways.pop()
        if at not in found:
            found.add(at)
            ways += [edge.target for edge in graph.scopes[None].outgoing.get(at, ())]
    return found


def _works_with(
    graph: Graph, id: str, again: Collection[str], inputs: Collection[str], environment: Collection[str]
) -> bool:
    node = graph.nodes[id]
    if node.owner in again or (node.type in CONTAINERS and any(each in again for each in graph.scopes[id].nodes)):
        return True
    assigned = any(graph.nodes[each].type == "assigner" for each in again)
    for place, *rest in _selectors(node.data):
        name = rest[0] if rest else ""
        if place == graph.entry and graph.nodes[place].type == START and place in again:
            if name in inputs:
                return True
        elif place in again or (place == "env" and name in environment) or (place == "conversation" and assigned):
            return True
    return False


def _selectors(value: object) -> Iterator[Selector]:
    """The values that the fields of a node refer to."""
    match value:
        case str():
            yield from references(value)
        case [str(), str(), *_]:
            yield tuple(map(str, value))
        case dict():
            for each in value.values():
                yield from _selectors(each)
        case list():
            for each in value:
                yield from _selectors(each)


def _ids(key: str) -> list[str]:
    """The nodes on the path of a step."""
    return [part.replace("~1", "/").replace("~0", "~") for part in key.split("/")[::2]]
