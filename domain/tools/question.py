"""A question that the server of a tool asks the user during a call: a form of plain fields."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Annotated, Any, Literal, TypedDict

Action = Literal["accept", "decline", "cancel"]


class Question(TypedDict):
    """A form. A session of an older server asks without a name."""

    name: Annotated[str, "Name that the server knows the question by; empty for none."]
    message: Annotated[str, "Question, for people."]
    form: Annotated[
        dict[str, Any], "JSON Schema of the answer: an object whose fields are texts, numbers, booleans or choices."
    ]


class Answer(TypedDict):
    """The answer to a question."""

    action: Annotated[str, "`accept`, `decline`, or `cancel`: neither of the two."]
    content: Annotated[dict[str, Any], "Fields of the form; empty unless it is accepted."]


MOST_FIELDS = 50
"""Maximum number of fields of a form."""


def is_form(schema: Mapping[str, Any]) -> bool:
    """True for a schema whose answers can be asked for and checked."""
    fields, required = schema.get("properties", {}), schema.get("required", [])
    if schema.get("type", "object") != "object" or not isinstance(fields, dict) or len(fields) > MOST_FIELDS:
        return False
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        return False
    return all(isinstance(field, dict) and str(field.get("type")) in _FAULTS for field in fields.values())


def choices(field: Mapping[str, Any]) -> list[str] | None:
    """The texts of which a field has one, or some; None for any."""
    of = field.get("items", {}) if field.get("type") == "array" else field
    if not isinstance(of, dict):
        return None
    found = of.get("enum")
    if isinstance(titled := of.get("oneOf") or of.get("anyOf"), list):
        found = [each.get("const") for each in titled if isinstance(each, dict)]
    return [str(each) for each in found] if isinstance(found, list) else None


def fault(schema: Mapping[str, Any], content: Mapping[str, Any]) -> str | None:
    """The first fault of an answer by the schema of its form; None for a valid one."""
    fields = schema.get("properties", {})
    if missing := [name for name in schema.get("required", ()) if name not in content]:
        return f"The field {missing[0]} is missing."
    for name, value in content.items():
        if (field := fields.get(name)) is None:
            return f"There is no field {name}; the fields are {', '.join(fields) or 'none'}."
        if why := _FAULTS[field["type"]](field, value):
            return f"The field {name} must be {why}."
    return None


def _text(field: Mapping[str, Any], value: object) -> str:
    if not isinstance(value, str):
        return "a text"
    if (allowed := choices(field)) is not None:
        return "" if value in allowed else _one_of(allowed)
    if why := _size(field, len(value), "minLength", "maxLength", "characters"):
        return why
    read, like = _FORMATS.get(str(field.get("format")), (None, ""))
    if read:
        try:
            read(value)
        except ValueError:
            return like
    return ""


def _number(field: Mapping[str, Any], value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "a number"
    if field["type"] == "integer" and value != int(value):
        return "a whole number"
    least, most = field.get("minimum"), field.get("maximum")
    if isinstance(least, int | float) and value < least:
        return f"at least {least}"
    return f"at most {most}" if isinstance(most, int | float) and value > most else ""


def _boolean(field: Mapping[str, Any], value: object) -> str:
    return "" if isinstance(value, bool) else "true or false"


def _several(field: Mapping[str, Any], value: object) -> str:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        return "a list of texts"
    allowed = choices(field)
    if allowed is not None and not set(value) <= set(allowed):
        return f"a list, each {_one_of(allowed)}"
    return _size(field, len(value), "minItems", "maxItems", "items")


_FAULTS: Mapping[str, Callable[[Mapping[str, Any], object], str]] = {
    "string": _text,
    "number": _number,
    "integer": _number,
    "boolean": _boolean,
    "array": _several,
}
"""By the type of a field, what its value must be; empty where it is."""


def _email(value: str) -> None:
    name, at, host = value.rpartition("@")
    if not (name and at and host) or any(char.isspace() for char in value):
        raise ValueError


def _uri(value: str) -> None:
    scheme, colon, rest = value.partition(":")
    if not (scheme.isascii() and scheme.isalnum() and colon and rest) or any(char.isspace() for char in value):
        raise ValueError


_FORMATS: Mapping[str, tuple[Callable[[str], object], str]] = {
    "email": (_email, "an address of e-mail"),
    "uri": (_uri, "an address, like https://host"),
    "date": (date.fromisoformat, "a date, like 2027-01-31"),
    "date-time": (datetime.fromisoformat, "a time, like 2027-01-31T12:00:00Z"),
}


def _size(field: Mapping[str, Any], size: int, least: str, most: str, what: str) -> str:
    if isinstance(field.get(least), int) and size < field[least]:
        return f"at least {field[least]:,} {what} long"
    return f"at most {field[most]:,} {what} long" if isinstance(field.get(most), int) and size > field[most] else ""


def _one_of(allowed: list[str]) -> str:
    return f"one of {', '.join(allowed)}"
