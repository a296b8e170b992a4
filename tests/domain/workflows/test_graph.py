"""Graphs: what is loaded, ignored with a warning, kept as a problem, and refused."""

from __future__ import annotations

from typing import Any

import pytest

from domain.aggregate import Rejection
from domain.workflows.graph import Graph, load


def document(*nodes: dict[str, Any], edges: list[dict[str, Any]] | None = None, **workflow: Any) -> dict[str, Any]:
    graph = {"nodes": list(nodes), "edges": edges or []}
    return {"app": {"mode": "workflow"}, "workflow": {"graph": graph, **workflow}}


def node(id: Any, type: str, **data: Any) -> dict[str, Any]:
    return {"id": id, "data": {"type": type, "title": str(id), **data}}


def test_ids_are_texts_and_handles_have_a_default() -> None:
    graph = load(document(node(1, "start"), node(2, "end"), edges=[{"source": 1, "target": 2, "sourceHandle": None}]))
    [edge] = graph.scopes[None].edges
    assert (graph.entry, edge.source, edge.handle, edge.target, edge.id) == ("1", "1", "source", "2", "1-2")


def test_edges_to_nowhere_are_ignored_and_equal_ids_are_made_different() -> None:
    edges = [
        {"id": "x", "source": "s", "target": "e"},
        {"id": "x", "source": "s", "target": "e", "sourceHandle": "other"},
        {"source": "gone", "target": "e"},
    ]
    graph = load(document(node("s", "start"), node("e", "end"), edges=edges))
    assert [each.id for each in graph.scopes[None].edges] == ["x", "x-2"]
    assert graph.warnings == ("Edge gone to e: there is no node gone; the edge is ignored.",)


def test_notes_are_no_nodes() -> None:
    note = {"id": "n", "type": "custom-note", "data": {"type": "", "text": "hello"}}
    assert list(load(document(node("s", "start"), note)).nodes) == ["s"]


def test_an_inner_node_names_its_container_in_many_ways() -> None:
    inner = [
        {**node("a", "code"), "parentId": "i"},
        node("b", "code", iteration_id="i"),
        node("c", "code", container_id="i", loop_id="gone"),
        node("d", "code", loop_id="gone"),
    ]
    graph = load(document(node("s", "start"), node("i", "iteration", start_node_id="a"), *inner))
    assert graph.scopes["i"].nodes == ("a", "b", "c")
    assert graph.scopes["i"].entry == "a"
    assert graph.nodes["d"].owner is None
    assert graph.warnings == ("Node d: its container gone is not there; it stands at the top.",)


def test_success_branch_is_the_handle_after_success() -> None:
    edges = [{"source": "c", "target": "e", "sourceHandle": "success-branch"}]
    graph = load(
        document(node("s", "start"), node("c", "code", error_strategy="fail-branch"), node("e", "end"), edges=edges)
    )
    assert graph.scopes[None].edges[0].handle == "source"


def test_what_only_a_run_needs_is_a_problem() -> None:
    graph = load(document(node("c", "code", error_strategy="ignore", retry_config=None)))
    assert [(each.node, each.field) for each in graph.problems] == [
        ("c", "error_strategy"),
        ("c", "retry_config"),
        (None, "graph.nodes"),
    ]


def test_cycles_and_edges_over_borders_load_with_a_warning() -> None:
    edges = [{"source": a, "target": b} for a, b in (("s", "a"), ("a", "b"), ("b", "a"), ("t", "e"))]
    graph = load(
        document(
            node("s", "start"),
            node("a", "code"),
            node("b", "code"),
            node("e", "end"),
            node("i", "iteration", start_node_id="t"),
            {**node("t", "code"), "parentId": "i"},
            edges=edges,
        )
    )
    assert any("never run: a, b, e" in each for each in graph.warnings)


def test_the_normalised_graph_loads_as_itself_without_secrets_and_screens() -> None:
    spec = document(
        {**node("s", "start"), "position": {"x": 1}},
        environment_variables=[{"name": "k", "value_type": "secret", "value": "hush"}],
    )
    graph = load(spec)
    again = load(graph.normalised)
    assert "hush" not in str(graph.normalised)
    assert "position" not in str(graph.normalised)
    assert again.digest == graph.digest
    assert _other(spec).digest != graph.digest


def _other(spec: dict[str, Any]) -> Graph:
    return load({**spec, "app": {"mode": "advanced-chat"}})


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"kind": "rag_pipeline"}, "kind"),
        ({"app": {"mode": "chat"}}, "app.mode"),
        ({"app": {"mode": "workflow"}}, "workflow"),
        ({"app": {"mode": "workflow"}, "workflow": {}}, "workflow.graph"),
        (document(node("a", "code"), node("a", "end")), "workflow.graph.nodes[1].id"),
        (document({"data": {"type": "code"}}), "workflow.graph.nodes[0].id"),
        (
            document(node("s", "start"), environment_variables=[{"name": "v"}]),
            "workflow.environment_variables[0].value_type",
        ),
    ],
)
def test_what_cannot_be_loaded_names_its_field(spec: dict[str, Any], field: str) -> None:
    with pytest.raises(Rejection) as refused:
        load(spec)
    assert refused.value.field == field


def test_a_file_without_end_is_refused() -> None:
    deep: Any = {}
    for _ in range(500):
        deep = {"a": deep}
    with pytest.raises(Rejection, match="levels deep"):
        load(document(node("s", "start", deep=deep)))
