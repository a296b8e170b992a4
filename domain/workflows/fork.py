"""Forks: the results of a run that another run may begin with."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from domain.workflows.graph import Graph
from domain.workflows.record import Result


def kept(graph: Graph, results: Iterable[Result], again: Collection[str]) -> list[Result]:
    """The results that stay where nodes run again: those of nodes that no way leads to from these. A container runs
    again as a whole. A run that failed goes on from the node of its last result."""
    redone = _behind(graph, again)
    return [result for result in results if redone.isdisjoint(_path(graph, node_of(result)))]


def node_of(result: Result) -> str:
    """The node of a result."""
    return result.key.rpartition("/")[2].replace("~1", "/").replace("~0", "~")


def changed(old: Graph, new: Graph) -> set[str]:
    """The nodes of a new graph that are not in the old one, or otherwise; also in the edges to them."""
    return {id for id in new.nodes if old.nodes.get(id) != new.nodes[id] or _ways(old, id) != _ways(new, id)}


def _behind(graph: Graph, nodes: Iterable[str]) -> set[str]:
    """Nodes, those behind them, and the containers around them with what is behind these."""
    found: set[str] = set()
    open = [id for id in nodes if id in graph.nodes]
    while open:
        id = open.pop()
        if id in found:
            continue
        found.add(id)
        owner = graph.nodes[id].owner
        open += [edge.target for edge in graph.scopes[owner].outgoing.get(id, ())]
        open += [owner] if owner is not None else []
    return found


def _path(graph: Graph, id: str) -> list[str]:
    """A node, and the containers around it."""
    path = [id] if id in graph.nodes else []
    while path and (owner := graph.nodes[path[-1]].owner) is not None:
        path.append(owner)
    return path


def _ways(graph: Graph, id: str) -> set[tuple[str, str]]:
    if id not in graph.nodes:
        return set()
    return {(edge.source, edge.handle) for edge in graph.scopes[graph.nodes[id].owner].incoming.get(id, ())}
