"""JSON Schemas of answers that an app may set: such that a check of an answer takes bounded time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

DEEPEST = 16
"""Maximum depth of a schema, with its references in place."""

MOST_PARTS = 1000
"""Maximum number of subschemas, with references in place: a check takes each for each part of an answer at most."""

LONGEST_PATTERN = 200
"""Maximum length of a pattern, in characters."""

_ONE = ("additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_MAPS = ("$defs", "dependentSchemas", "patternProperties", "properties")
_REFUSED = (
    *("$anchor", "$dynamicAnchor", "$dynamicRef", "$id", "$recursiveAnchor", "$recursiveRef", "$vocabulary"),
    *("definitions", "dependencies", "unevaluatedItems", "unevaluatedProperties"),
)
_REFERENCE = "#/$defs/"


class _Invalid(Exception):
    """The schema breaks a rule."""


def schema_fault(schema: dict[str, Any]) -> str | None:
    """The rule that a schema breaks, None for a schema that may be set.

    References lead to `$defs` of the schema itself, without circles, so that a check takes bounded time.
    """
    if schema.get("type") != "object":
        return "Must be a schema with type object"
    try:
        definitions = schema.get("$defs", {})
        if not isinstance(definitions, dict):
            raise _Invalid("Its $defs must be an object")
        _Size(definitions).of(schema, 0, ())
        for definition in definitions.values():
            _Size(definitions).of(definition, 1, ())
    except _Invalid as invalid:
        return str(invalid)
    from jsonschema import Draft202012Validator  # takes a third of a second
    from jsonschema.exceptions import SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        path = ".".join(map(str, error.absolute_path))
        return f"Must be a JSON Schema: {path or 'it'}: {error.message[:200]}"
    return None


class _Size:
    """Counts subschemas, with references in place."""

    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self._definitions = definitions
        self._parts = 0

    def of(self, schema: Any, depth: int, open: tuple[str, ...]) -> None:
        """`open` are the references that this schema is in. Raises: _Invalid."""
        if isinstance(schema, bool):
            return
        if not isinstance(schema, dict):
            raise _Invalid("Each subschema must be an object or a boolean")
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise _Invalid(f"Must have at most {MOST_PARTS:,} subschemas, with references in place")
        if depth > DEEPEST:
            raise _Invalid(f"Must be at most {DEEPEST} levels deep, with references in place")
        for keyword in _REFUSED:
            if keyword in schema:
                raise _Invalid(f"Must not have {keyword}")
        for pattern in _patterns(schema):
            _check_pattern(pattern)
        for inner in _inner(schema):
            self.of(inner, depth + 1, open)
        if "$ref" in schema:
            self._referred(schema["$ref"], depth, open)

    def _referred(self, reference: object, depth: int, open: tuple[str, ...]) -> None:
        name = reference.removeprefix(_REFERENCE) if isinstance(reference, str) else ""
        if reference != _REFERENCE + name or name not in self._definitions:
            raise _Invalid(f"A reference must lead to one of its $defs, like {_REFERENCE}name")
        if name in open:
            raise _Invalid(f"References must not go in circles, as those to {name} do")
        self.of(self._definitions[name], depth + 1, (*open, name))


def _inner(schema: Mapping[str, Any]) -> Iterator[Any]:
    """Subschemas, without definitions, which count where they are referred to. Raises: _Invalid."""
    yield from (schema[keyword] for keyword in _ONE if keyword in schema)
    for keyword in (*_LISTS, *_MAPS):
        found = schema.get(keyword, [] if keyword in _LISTS else {})
        if not isinstance(found, list if keyword in _LISTS else dict):
            raise _Invalid(f"Its {keyword} must be {'a list' if keyword in _LISTS else 'an object'}")
        if keyword != "$defs":
            yield from found.values() if isinstance(found, dict) else found


def _patterns(schema: Mapping[str, Any]) -> Iterator[object]:
    if "pattern" in schema:
        yield schema["pattern"]
    named = schema.get("patternProperties")
    yield from named if isinstance(named, dict) else ()


def _repeats_a_repeat(pattern: str) -> bool:
    """True if a group that has a repeat is repeated, as in `(a+)+`."""
    parts = pattern.split(")")
    return any(
        after.startswith(("*", "+", "{")) and set(before.rpartition("(")[2]) & set("*+}")
        for before, after in pairwise(parts)
    )


def _check_pattern(pattern: object) -> None:
    """Checks run in a process with a time limit; what is sure to exceed it is refused here. Raises: _Invalid."""
    if not isinstance(pattern, str) or len(pattern) > LONGEST_PATTERN:
        raise _Invalid(f"A pattern must be a text of at most {LONGEST_PATTERN} characters")
    if _repeats_a_repeat(pattern):
        raise _Invalid("A pattern must not repeat a group that has a repeat")
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise _Invalid(f"A pattern must be a regular expression: {str(error)[:100]}") from None
