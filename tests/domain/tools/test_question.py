from __future__ import annotations

from typing import Any

import pytest

from domain.tools.question import choices, fault, is_form

FORM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 2, "maxLength": 5},
        "mail": {"type": "string", "format": "email"},
        "place": {"type": "string", "format": "uri"},
        "day": {"type": "string", "format": "date"},
        "at": {"type": "string", "format": "date-time"},
        "size": {"type": "integer", "minimum": 1, "maximum": 9},
        "price": {"type": "number"},
        "sure": {"type": "boolean"},
        "taste": {"type": "string", "enum": ["sweet", "sour"]},
        "topping": {"type": "array", "items": {"anyOf": [{"const": "nuts", "title": "Nuts"}]}, "maxItems": 1},
    },
    "required": ["size"],
}


@pytest.mark.parametrize(
    "content",
    [
        {"size": 3},
        {"size": 3.0, "price": 2.5, "sure": True, "taste": "sour", "topping": ["nuts"], "name": "Ada"},
        {"size": 1, "mail": "a@b.example", "place": "https://a.example", "day": "2027-01-31"},
        {"size": 1, "at": "2027-01-31T12:00:00Z", "topping": []},
    ],
)
def test_an_answer_keeps_to_its_form(content: dict[str, Any]) -> None:
    assert fault(FORM, content) is None


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ({}, "The field size is missing."),
        ({"size": 3, "color": "red"}, "There is no field color"),
        ({"size": "3"}, "The field size must be a number."),
        ({"size": True}, "a number"),
        ({"size": 1.5}, "a whole number"),
        ({"size": 0}, "at least 1"),
        ({"size": 10}, "at most 9"),
        ({"size": float("inf")}, "a number"),
        ({"size": 3, "name": 4}, "a text"),
        ({"size": 3, "name": "A"}, "at least 2 characters long"),
        ({"size": 3, "name": "Adalbert"}, "at most 5 characters long"),
        ({"size": 3, "mail": "ada"}, "an address of e-mail"),
        ({"size": 3, "place": "nowhere"}, "an address, like https://host"),
        ({"size": 3, "day": "Monday"}, "a date, like"),
        ({"size": 3, "at": "noon"}, "a time, like"),
        ({"size": 3, "sure": "yes"}, "true or false"),
        ({"size": 3, "taste": "salty"}, "one of sweet, sour"),
        ({"size": 3, "topping": "nuts"}, "a list of texts"),
        ({"size": 3, "topping": ["mud"]}, "a list, each one of nuts"),
        ({"size": 3, "topping": ["nuts", "nuts"]}, "at most 1 items long"),
    ],
)
def test_an_answer_that_is_none_names_field_and_rule(content: dict[str, Any], rule: str) -> None:
    found = fault(FORM, content)
    assert found
    assert rule in found


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (FORM, True),
        ({"properties": {}}, True),
        ({"type": "array"}, False),
        ({"properties": {"a": {"type": "object"}}}, False),
        ({"properties": {"a": {}}}, False),
        ({"properties": {}, "required": [[]]}, False),
        ({"properties": {"a": {"type": ["string"]}}}, False),
        ({"properties": {str(number): {"type": "string"} for number in range(51)}}, False),
    ],
)
def test_only_forms_of_plain_fields_are_asked(schema: dict[str, Any], expected: bool) -> None:
    assert is_form(schema) == expected


def test_a_field_without_choices_takes_any_text() -> None:
    assert choices({"type": "string"}) is None
    assert choices({"type": "string", "oneOf": [{"const": "a", "title": "A"}, {"const": "b"}]}) == ["a", "b"]
