"""Node types: each is documented, checked before a run, and one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import domain.workflows.nodes
from domain.workflows.graph import load
from domain.workflows.node_types import TYPES, problems

DOCS = (Path(__file__).parents[3] / "docs" / "workflows.md").read_text(encoding="utf-8")


def test_each_type_with_its_fields_and_outputs_is_in_the_table() -> None:
    rows = {line.split("|")[1].strip(" `"): line for line in DOCS.splitlines() if line.startswith("| `")}
    for name, kind in TYPES.items():
        for field, spec in {**kind.fields, **kind.outputs}.items():
            assert f"`{field}`: {spec}" in rows[name], f"{name}: {field}"


def test_a_type_runs_or_asks_and_concludes() -> None:
    for name, kind in TYPES.items():
        inside = name in ("iteration", "loop")
        assert inside or (kind.run is None) == (kind.prepare is not None) == (kind.conclude is not None), name


def test_each_file_has_a_type() -> None:
    files = {path.stem for path in Path(domain.workflows.nodes.__path__[0]).glob("*.py")} - {"__init__"}
    assert files == {name.replace("-", "_") for name in TYPES if not name.startswith("trigger-")} | {"trigger"}


@pytest.mark.parametrize(
    ("type", "data", "field"),
    [
        ("quantum", {}, "type"),
        ("code", {"code_language": "cobol", "outputs": {}}, "code_language"),
        ("code", {"code_language": "python3", "outputs": {"r": {"type": "array[any]"}}}, "outputs.r.type"),
        ("http-request", {"method": "brew"}, "method"),
        ("iteration", {"iterator_selector": "s.l", "output_selector": []}, "iterator_selector"),
        ("loop", {"loop_count": 0}, "loop_count"),
        ("answer", {"answer": 5}, "answer"),
        ("end", {"outputs": [{"value_selector": ["s", "a"]}]}, "outputs[0].variable"),
        ("template-transform", {"template": "", "variables": [{"variable": "v"}]}, "variables[0].value_selector"),
        ("if-else", {"cases": [{"case_id": "x", "conditions": []}]}, "cases[0].logical_operator"),
        ("list-operator", {"variable": ["s", "l"], "limit": {"enabled": "perhaps"}}, "limit.enabled"),
        ("assigner", {}, "write_mode"),
        ("human-input", {"user_actions": []}, "user_actions"),
        ("knowledge-retrieval", {"dataset_ids": []}, "dataset_ids"),
        ("agent", {"version": "2"}, "version"),
        ("tool", {"tool_parameters": {"p": {"type": "variable", "value": "s.a"}}}, "tool_parameters.p.value"),
        ("llm", {"prompt_template": [{"text": None}], "context": {}}, "prompt_template[0].text"),
        (
            "code",
            {
                "code_language": "python3",
                "error_strategy": "default-value",
                "default_value": [{"key": "r", "type": "number", "value": "five"}],
            },
            "default_value[0].value",
        ),
    ],
)
def test_what_keeps_a_node_from_running_names_node_and_field(type: str, data: dict[str, Any], field: str) -> None:
    nodes = [{"id": "s", "data": {"type": "start"}}, {"id": "n", "data": {"type": type, **data}}]
    graph = load({"app": {"mode": "workflow"}, "workflow": {"graph": {"nodes": nodes}}})
    assert ("n", field) in [(problem.node, problem.field) for problem in problems(graph)]


def test_items_that_run_at_once_assign_no_variable_of_the_conversation() -> None:
    item = {"variable_selector": ["conversation", "c"], "input_type": "variable", "operation": "clear"}
    for parallel in (True, False):
        container = {"iterator_selector": ["s", "l"], "output_selector": ["a", "x"], "is_parallel": parallel}
        nodes = [
            {"id": "s", "data": {"type": "start"}},
            {"id": "i", "data": {"type": "iteration", "start_node_id": "a", **container}},
            {"id": "a", "parentId": "i", "data": {"type": "assigner", "items": [item]}},
        ]
        graph = load({"app": {"mode": "workflow"}, "workflow": {"graph": {"nodes": nodes}}})
        assert [problem.field for problem in problems(graph)] == (["items"] if parallel else [])
