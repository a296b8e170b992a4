"""The inputs of a run: converted, or refused with the field and the rule."""

from __future__ import annotations

from typing import Any

import pytest

from domain.aggregate import Rejection
from domain.workflows.graph import load
from domain.workflows.start_form import accept
from domain.workflows.values import File

PICTURE = File(type="image", filename="p.png", extension=".PNG")
PAGE = File(type="document", filename="a.txt", extension=".txt", transfer_method="remote_url")


def taken(given: Any, **field: Any) -> Any:
    start = {"id": "s", "data": {"type": "start", "variables": [{"variable": "v", **field}]}}
    graph = load({"app": {"mode": "workflow"}, "workflow": {"graph": {"nodes": [start]}}})
    return accept(graph, {"v": given, "other": 1})["v"]


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        (None, {"type": "text-input"}, None),
        (None, {"type": "text-input", "default": "d"}, "d"),
        ("", {"type": "paragraph", "default": "d"}, ""),
        ("x" * 900, {"type": "paragraph"}, "x" * 900),
        ("5", {"type": "number"}, 5),
        ("1.5", {"type": "number"}, 1.5),
        ("", {"type": "number"}, None),
        ("Yes", {"type": "checkbox"}, True),
        (0, {"type": "checkbox"}, False),
        ({"a": 1}, {"type": "json_object"}, {"a": 1}),
        ("b", {"type": "select", "options": ["a", "b"]}, "b"),
        (PICTURE, {"type": "file", "allowed_file_types": ["image"]}, PICTURE),
        (PICTURE, {"type": "file", "allowed_file_types": ["custom"], "allowed_file_extensions": ["png"]}, PICTURE),
        ([PAGE], {"type": "file-list", "allowed_file_upload_methods": ["remote_url"]}, [PAGE]),
    ],
)
def test_inputs_are_converted(given: Any, field: dict[str, Any], value: Any) -> None:
    assert taken(given, **field) == value


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (None, {"type": "text-input", "required": True}),
        (5, {"type": "text-input"}),
        ("x" * 49, {"type": "text-input"}),
        ("abcd", {"type": "paragraph", "max_length": 3}),
        ("c", {"type": "select", "options": ["a"]}),
        ("five", {"type": "number"}),
        (True, {"type": "number"}),
        ("perhaps", {"type": "checkbox"}),
        ([], {"type": "json_object"}),
        ("x", {"type": "file"}),
        (PAGE, {"type": "file", "allowed_file_types": ["image", "custom"], "allowed_file_extensions": [".pdf"]}),
        (PAGE, {"type": "file", "allowed_file_upload_methods": ["local_file"]}),
        ([PAGE, PAGE], {"type": "file-list", "max_length": 1}),
        ([1], {"type": "file-list"}),
    ],
)
def test_what_breaks_a_rule_is_refused_by_name(given: Any, field: dict[str, Any]) -> None:
    with pytest.raises(Rejection) as refused:
        taken(given, **field)
    assert refused.value.field == "inputs.v"
