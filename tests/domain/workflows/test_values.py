"""Values: their types, what a selector reaches, and how they are written."""

from __future__ import annotations

from typing import Any

import pytest

from domain.workflows import values
from domain.workflows.rendering import as_markdown, as_text, parse, render
from domain.workflows.values import File, Value, WrongType, infer, within

PICTURE = File(type="image", filename="p.png", extension=".png", size=1, related_id="f2", url="http://files/f2")


@pytest.mark.parametrize(
    ("data", "type"),
    [
        ("a", "string"),
        (True, "boolean"),
        (1, "number"),
        (1.5, "number"),
        (None, "none"),
        ({}, "object"),
        (PICTURE, "file"),
        ([], "array[any]"),
        ([1, 2.5], "array[number]"),
        (["a"], "array[string]"),
        ([True], "array[boolean]"),
        ([1, True], "array[any]"),
        ([[1]], "array[any]"),
        ([None], "array[any]"),
        ([PICTURE], "array[file]"),
    ],
)
def test_a_type_is_seen_by_the_data(data: Any, type: str) -> None:
    assert infer(data).type == type


def test_a_selector_reaches_keys_of_objects_and_attributes_of_files_only() -> None:
    value = infer({"f": PICTURE, "n": None, "l": [1], "d": {"e": 1}})
    assert within(value, ["d", "e"]) == infer(1)
    assert within(value, ["n"]) == values.NULL
    assert within(value, ["f", "name"]) == infer("p.png")
    assert [within(value, path) for path in (["q"], ["l", "0"], ["n", "x"], ["f", "colour"])] == [None] * 4


def test_a_declared_type_is_checked() -> None:
    assert values.declared("array[string]", []) == Value("array[string]", [])
    assert values.declared("secret", "s").type == "secret"
    for type, data in (("number", "5"), ("array[string]", [1]), ("string", None)):
        with pytest.raises(WrongType):
            values.declared(type, data)


def test_a_recorded_value_comes_back() -> None:
    objects = [infer({"f": PICTURE, "n": [1, None]}), infer({"$file": {"type": "no file"}}), infer({"$object": 1})]
    for value in (infer([PICTURE]), Value("array[string]", []), *objects):
        assert values.from_json(values.to_json(value)) == value


def test_what_the_pattern_does_not_match_keeps_its_braces() -> None:
    long = "n" * 31
    for text in ("{{#url#}}", "{{ #s.v# }}", "{{#n-1.v#}}", "{{#s.1a#}}", f"{{{{#s.{long}#}}}}", "{{#节.v#}}"):
        assert render(text, lambda _: infer("!")) == text
    assert render("[{{#s.v#}}]", lambda _: None) == "[s.v]"
    assert len(parse("{{#s.v#}}{{#s.v#}}")) == 2


@pytest.mark.parametrize(
    ("data", "text", "answer"),
    [
        (None, "", ""),
        (2.0, "2.0", "2.0"),
        (1e20, "1e+20", "1e+20"),
        (True, "True", "True"),
        ({"a": None, "b": "é"}, '{"a": null, "b": "é"}', '{\n  "a": null,\n  "b": "é"\n}'),
        (["a", "é"], '["a", "é"]', "- a\n- é"),
        ([{"a": None, "b": True}], "[{'a': None, 'b': True}]", "- {'a': None, 'b': True}"),
        ([], "", ""),
        (PICTURE, "", "![p.png](http://files/f2)"),
        ([PICTURE], "", "![p.png](http://files/f2)"),
    ],
)
def test_values_are_written(data: Any, text: str, answer: str) -> None:
    assert as_text(infer(data)) == text
    assert as_markdown(infer(data)) == answer
