"""The places of a graph's nodes and ways in a drawing: those of the file where they fit, else in layers."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import isfinite
from typing import Any

from domain.workflows.drawing import branch
from domain.workflows.graph import CONTAINERS, INNER_STARTS, SOURCE, Edge, Graph, Node, Scope

WIDTH, HEIGHT = 196.0, 50.0
"""Size of a node, in units."""

DOT = 22.0
"""Size of the begin of a container."""

ACROSS, DOWN = 64.0, 22.0
"""Distances between nodes."""

PAD, HEAD = 16.0, 44.0
"""Space within a container, and above its nodes."""

DRAWN = 400
"""Maximum number of nodes that are drawn."""

PLACED = 200
"""Maximum number of nodes in one scope whose places in the file are taken."""

FARTHEST = 100_000.0
"""Maximum coordinate of a place in a file."""

Place = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Box:
    """A node, at its place in the whole drawing."""

    node: Node
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Way:
    """An edge: `path` is the value of the attribute `d`; its label begins at `x` and `y`."""

    edge: Edge
    path: str
    label: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Drawing:
    """Containers come before what is in them."""

    boxes: tuple[Box, ...]
    ways: tuple[Way, ...]
    width: float
    height: float


def places_of(document: Any) -> dict[str, Place]:
    """The places of nodes in the `graph` of a document, relative to their containers; odd ones are left out."""
    found = {}
    nodes = document.get("nodes") if isinstance(document, Mapping) else None
    for node in nodes if isinstance(nodes, list) else ():
        if isinstance(node, Mapping) and isinstance(at := node.get("position"), Mapping):
            x, y = at.get("x"), at.get("y")
            if _fits(x) and _fits(y):
                found[str(node.get("id"))] = (float(x), float(y))  # type: ignore[arg-type]
    return found


def _fits(value: object) -> bool:
    return isinstance(value, int | float) and isfinite(value) and abs(value) <= FARTHEST


def drawn(graph: Graph, places: Mapping[str, Place]) -> Drawing | None:
    """The drawing of a graph; None for one that is too large to be read."""
    if len(graph.nodes) > DRAWN:
        return None
    boxes = _boxes(graph, None, places)
    at = {box.node.id: box for box in boxes}
    ways = [way for scope in graph.scopes.values() for way in _ways(scope, at)]
    width, height = _extent(boxes)
    return Drawing(tuple(boxes), tuple(ways), width, height)


def _boxes(graph: Graph, owner: str | None, places: Mapping[str, Place]) -> list[Box]:
    scope = graph.scopes[owner]
    inner = {id: _boxes(graph, id, places) for id in scope.nodes if graph.nodes[id].type in CONTAINERS}
    sizes = {id: _size(graph.nodes[id], inner.get(id)) for id in scope.nodes}
    at = _from_file(scope, sizes, places) or _in_layers(scope, sizes)
    boxes = []
    for id in scope.nodes:
        (x, y), (width, height) = at[id], sizes[id]
        boxes.append(Box(graph.nodes[id], x, y, width, height))
        boxes += [replace(box, x=box.x + x + PAD, y=box.y + y + HEAD) for box in inner.get(id, ())]
    return boxes


def _extent(boxes: Sequence[Box]) -> Place:
    return max((box.x + box.width for box in boxes), default=0.0), max(
        (box.y + box.height for box in boxes), default=0.0
    )


def _size(node: Node, inner: Sequence[Box] | None) -> Place:
    if node.type in INNER_STARTS:
        return DOT, DOT
    if inner is None:
        return WIDTH, HEIGHT
    width, height = _extent(inner)
    return max(WIDTH, width + 2 * PAD), HEAD + height + PAD


def _from_file(scope: Scope, sizes: Mapping[str, Place], places: Mapping[str, Place]) -> dict[str, Place] | None:
    """The places of a file, from 0 on; None where one is missing, or where nodes would lie on each other."""
    if len(scope.nodes) > PLACED or not all(id in places for id in scope.nodes):
        return None
    left = min((places[id][0] for id in scope.nodes), default=0.0)
    top = min((places[id][1] for id in scope.nodes), default=0.0)
    at = {id: (places[id][0] - left, places[id][1] - top) for id in scope.nodes}
    overlap = any(_overlap(at[one], sizes[one], at[two], sizes[two]) for one, two in combinations(scope.nodes, 2))
    return None if overlap else at


def _overlap(one: Place, size: Place, two: Place, other: Place) -> bool:
    return all(one[axis] < two[axis] + other[axis] and two[axis] < one[axis] + size[axis] for axis in (0, 1))


def _in_layers(scope: Scope, sizes: Mapping[str, Place]) -> dict[str, Place]:
    """Each node right of all that lead to it, at about their height."""
    at: dict[str, Place] = {}
    x = 0.0
    for layer in _layers(scope):
        wanted = {id: _height_of_sources(scope, id, at, sizes) for id in layer}
        bottom = 0.0
        for id in sorted(layer, key=lambda id: wanted[id]):
            y = max(bottom, wanted[id] - sizes[id][1] / 2)
            at[id] = (x, y)
            bottom = y + sizes[id][1] + DOWN
        x += max(sizes[id][0] for id in layer) + ACROSS
    return at


def _height_of_sources(scope: Scope, id: str, at: Mapping[str, Place], sizes: Mapping[str, Place]) -> float:
    middles = [at[e.source][1] + sizes[e.source][1] / 2 for e in scope.incoming.get(id, ()) if e.source in at]
    return sum(middles) / len(middles) if middles else 0.0


def _layers(scope: Scope) -> list[list[str]]:
    """The nodes by the length of the longest way to them; of a circle, the first in the file comes first."""
    known = set(scope.nodes)
    waiting = {id: sum(edge.source in known for edge in scope.incoming.get(id, ())) for id in scope.nodes}
    depth = dict.fromkeys(scope.nodes, 0)
    ready = deque(id for id in scope.nodes if not waiting[id])
    while waiting:
        id = ready.popleft() if ready else next(iter(waiting))
        if waiting.pop(id, None) is None:
            continue
        for edge in scope.outgoing.get(id, ()):
            if edge.target in waiting:
                depth[edge.target] = max(depth[edge.target], depth[id] + 1)
                waiting[edge.target] -= 1
                if not waiting[edge.target]:
                    ready.append(edge.target)
    layers: dict[int, list[str]] = {}
    for id in scope.nodes:
        layers.setdefault(depth[id], []).append(id)
    return [layers[number] for number in sorted(layers)]


def _ways(scope: Scope, at: Mapping[str, Box]) -> list[Way]:
    found = []
    for edges in scope.outgoing.values():
        for number, edge in enumerate(edges):
            if edge.source in at and edge.target in at:
                found.append(_way(at[edge.source], at[edge.target], edge, (number + 1) / (len(edges) + 1)))
    return found


def _way(source: Box, target: Box, edge: Edge, share: float) -> Way:
    """A curve from the right side of a node, at a share of its height, to the left side of the next."""
    x, y = source.x + source.width, source.y + source.height * share
    to_x, to_y = target.x, target.y + target.height / 2
    bend = max(30.0, abs(to_x - x) / 2)
    path = f"M{x:.1f} {y:.1f}C{x + bend:.1f} {y:.1f} {to_x - bend:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}"
    label = "" if edge.handle == SOURCE else branch(source.node, edge.handle)
    return Way(edge, path, label, x + 6, y - 4)
