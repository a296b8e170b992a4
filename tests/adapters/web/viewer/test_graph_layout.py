"""The drawing of graphs: no two nodes lie on each other, and ways go from left to right."""

from __future__ import annotations

from itertools import combinations
from random import Random
from typing import Any

import pytest

from adapters.web.viewer.graph_layout import DRAWN, Box, Drawing, drawn, places_of
from domain.workflows.graph import Graph, load


def graph(nodes: list[dict[str, Any]], *edges: tuple[str, ...]) -> Graph:
    joined = [
        {"source": source, "target": target, "sourceHandle": rest[0] if rest else "source"}
        for source, target, *rest in edges
    ]
    of = {"graph": {"nodes": nodes, "edges": joined}}
    return load({"kind": "app", "app": {"mode": "workflow"}, "workflow": of})


def node(id: str, type: str = "code", parent: str | None = None, **data: Any) -> dict[str, Any]:
    return {"id": id, "data": {"type": type, "title": id, **data}, **({"parentId": parent} if parent else {})}


def of(drawing: Drawing, id: str) -> Box:
    return next(box for box in drawing.boxes if box.node.id == id)


def apart(drawing: Drawing, graph: Graph) -> None:
    for scope in graph.scopes.values():
        boxes = [of(drawing, id) for id in scope.nodes]
        for one, two in combinations(boxes, 2):
            aside = one.x + one.width <= two.x or two.x + two.width <= one.x
            assert aside or one.y + one.height <= two.y or two.y + two.height <= one.y, (one.node.id, two.node.id)
        if scope.owner:
            around = of(drawing, scope.owner)
            for box in boxes:
                assert around.x < box.x
                assert around.y < box.y
                assert box.x + box.width < around.x + around.width
                assert box.y + box.height < around.y + around.height
    for box in drawing.boxes:
        assert box.x >= 0
        assert box.y >= 0
        assert box.x + box.width <= drawing.width
        assert box.y + box.height <= drawing.height


FORK = [node("start", "start"), node("if", "if-else"), node("yes"), node("no"), node("end", "end")]
WAYS = (("start", "if"), ("if", "yes", "true"), ("if", "no", "false"), ("yes", "end"), ("no", "end"))


def test_a_node_is_right_of_all_that_lead_to_it() -> None:
    made = graph(FORK, *WAYS)
    drawing = drawn(made, {})
    assert drawing
    apart(drawing, made)
    x = {box.node.id: box.x for box in drawing.boxes}
    assert x["start"] < x["if"] < x["yes"] == x["no"] < x["end"]
    assert sorted(way.label for way in drawing.ways) == ["", "", "", "false", "true"]


def test_the_places_of_a_file_are_taken_where_they_fit() -> None:
    places = {"start": (900, -50), "if": (600, 100), "yes": (300, 0), "no": (300, 200), "end": (0, 100)}
    placed = [each | {"position": {"x": places[each["id"]][0], "y": places[each["id"]][1]}} for each in FORK]
    made = graph(placed, *WAYS)
    drawing = drawn(made, places_of({"nodes": placed}))
    assert drawing
    assert (of(drawing, "start").x, of(drawing, "start").y) == (900, 0)
    assert of(drawing, "end").x == 0
    near = drawn(made, places_of({"nodes": placed}) | {"end": (310.0, 10.0)})
    assert near
    assert of(near, "start").x == 0, "two nodes would lie on each other"


@pytest.mark.parametrize(
    "document", [None, [], {"nodes": 3}, {"nodes": [3, {"position": 4}, {"position": {"x": "1"}}]}]
)
def test_strange_places_are_left_out(document: Any) -> None:
    assert places_of(document) == {}
    assert places_of({"nodes": [{"id": "a", "position": {"x": float("nan"), "y": 1e300}}]}) == {}


def test_a_container_is_around_its_nodes() -> None:
    nodes = [
        node("start", "start"), node("each", "iteration"), node("in", "iteration-start", "each"),
        node("a", parent="each"), node("b", parent="each"), node("again", "loop", "each"),
        node("deep", parent="again"), node("end", "end"),
    ]  # fmt: skip
    ways = (("start", "each"), ("in", "a"), ("in", "b"), ("a", "again"), ("b", "again"), ("each", "end"))
    made = graph(nodes, *ways)
    drawing = drawn(made, {})
    assert drawing
    apart(drawing, made)
    assert [box.node.id for box in drawing.boxes][:2] == ["start", "each"], "containers come first"


@pytest.mark.parametrize("seed", range(20))
def test_any_graph_can_be_drawn(seed: int) -> None:
    random = Random(seed)
    names = [f"n{number}" for number in range(random.randrange(1, 40))]
    nodes = [node(name, random.choice(["code", "loop", "llm"])) for name in names]
    edges = {(random.choice(names), random.choice(names)) for _ in range(2 * len(names))}
    made = graph([node("s", "start"), *nodes], *sorted(edges))
    drawing = drawn(made, {name: (random.uniform(-9, 9), 0.0) for name in names})
    assert drawing
    apart(drawing, made)
    assert len(drawing.boxes) == len(names) + 1


def test_a_graph_that_no_one_could_read_is_not_drawn() -> None:
    assert drawn(graph([node(str(number)) for number in range(DRAWN + 1)]), {}) is None
