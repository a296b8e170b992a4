"""Credentials by the form of a package of Dify."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from domain.tools.dify import Field

_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "secret-input": str,
    "text-input": str,
    "select": str,
    "radio": str,
    "boolean": (bool, str),
    "switch": (bool, str),
}


def form_fault(fields: Sequence[Field], text: str) -> str | None:
    """The rule of a form that credentials, as a JSON object, break; None for valid ones."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        return "It must be a JSON object with the fields of the form."
    known = {each["name"]: each for each in fields}
    if unknown := sorted(given.keys() - known.keys()):
        names = ", ".join(known) or "none"
        return f"The form has no field {unknown[0][:100]}; it has {names}."
    for name, field in known.items():
        value = given.get(name, field["default"])
        if value in (None, ""):
            if field["required"] and all(given.get(other) == wanted for other, wanted in field["when"].items()):
                return f"The field {name} is required."
            continue
        kind = _TYPES.get(field["type"])
        if kind and not isinstance(value, kind):
            return f"The field {name} must be a text."
        if field["options"] and value not in field["options"]:
            return f"The field {name} must be one of {', '.join(field['options'][:20])}."
    return None
