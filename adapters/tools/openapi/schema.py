"""Schemas of an API's document as JSON Schemas of 2020-12 that stand alone. Runs in a contained process."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from adapters.tools.openapi.document import Unreadable, resolved, target

LONGEST = 32 * 1024
"""Maximum length of the schema of a tool, as JSON."""

LONGEST_DESCRIPTION = 1000
"""Maximum length of the description of an argument, in characters."""

NODES = 5_000
"""Maximum number of parts of a schema."""

LEFT_OUT = "Inner parts are left out here."

Warn = Callable[[str], None]


class TooComplex(Exception):
    """The schema has too many parts."""


class Bounds(NamedTuple):
    """Maximum number of times that a reference is followed within itself, and of levels."""

    cycles: int
    levels: int


BOUNDS = (Bounds(4, 30), Bounds(2, 12), Bounds(1, 6), Bounds(1, 3), Bounds(1, 2), Bounds(1, 1))
"""Tried in this order, until the schema of a tool is small enough."""

_TYPES = ("string", "number", "integer", "boolean", "array", "object", "null")

_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_COUNTS = (
    *("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
    *("minContains", "maxContains"),
)
_TEXTS = ("format", "contentEncoding", "contentMediaType")
_ONE = (
    *("items", "additionalProperties", "not", "contains", "propertyNames", "if", "then", "else"),
    *("unevaluatedItems", "unevaluatedProperties"),
)
_MANY = ("oneOf", "anyOf", "prefixItems")
_NAMED = ("properties", "patternProperties", "dependentSchemas")
_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties", "minContains")
_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties", "maxContains")


class Schemas:
    """Converts the schemas of one document within bounds: `left` is the number of parts that it may still make."""

    def __init__(self, root: Mapping[str, Any], warn: Warn, bounds: Bounds) -> None:
        self._root = root
        self._warn = warn
        self._bounds = bounds
        self._open: list[str] = []
        self.left = NODES

    def __call__(self, node: object, level: int = 0) -> dict[str, Any]:
        """Raises: TooComplex."""
        self._count()
        if node is False:
            return {"not": {}}
        if not isinstance(node, dict):
            return {}
        if level > self._bounds.levels:
            return self._cut(node)
        if "$ref" in node:
            return self._referred(node, level)
        if isinstance(node.get("allOf"), list):
            return self._merged(node, level)
        return self._plain(node, level)

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise TooComplex

    def _cut(self, node: dict[str, Any]) -> dict[str, Any]:
        try:
            types = _types(resolved(self._root, node))
        except Unreadable:
            types = []
        return {**_of_types(types), "description": LEFT_OUT}

    def _referred(self, node: dict[str, Any], level: int) -> dict[str, Any]:
        reference = node["$ref"]
        try:
            found = target(self._root, reference)
        except Unreadable as error:
            self._warn(f"{error}: anything is taken there.")
            found = {}
        if self._open.count(str(reference)) >= self._bounds.cycles:
            return self._cut(node)
        self._open.append(str(reference))
        schema = self(found, level)
        self._open.pop()
        rest = {name: value for name, value in node.items() if name != "$ref"}
        return both(schema, self(rest, level)) if rest else schema

    def _merged(self, node: dict[str, Any], level: int) -> dict[str, Any]:
        rest = {name: value for name, value in node.items() if name not in ("allOf", "nullable")}
        schema: dict[str, Any] = {}
        for part in [*node["allOf"], rest]:
            schema = both(schema, self(part, level))
        return _nullable(schema) if node.get("nullable") is True else schema

    def _plain(self, node: dict[str, Any], level: int) -> dict[str, Any]:
        found: dict[str, Any] = _of_types(_types(node))
        found |= self._texts(node)
        found |= self._numbers(node)
        for key in ("enum", "const", "default"):
            if key in node and (key != "enum" or (isinstance(node[key], list) and node[key])):
                found[key] = self._data(node[key])
        found |= self._inner(node, level)
        if isinstance(node.get("required"), list):
            hidden = self._read_only(node)
            found["required"] = [name for name in dict.fromkeys(map(str, node["required"])) if name not in hidden]
        if isinstance(node.get("uniqueItems"), bool):
            found["uniqueItems"] = node["uniqueItems"]
        types = found.get("type", [])
        if "array" in (types if isinstance(types, list) else [types]):
            found.setdefault("items", {})  # which some servers of models ask for
        return _nullable(found) if node.get("nullable") is True else found

    def _texts(self, node: dict[str, Any]) -> Iterator[tuple[str, str]]:
        yield from ((key, node[key]) for key in _TEXTS if isinstance(node.get(key), str))
        described = node.get("description")
        described = described if isinstance(described, str) else ""
        pattern = node.get("pattern")
        if isinstance(pattern, str):
            if _understood(pattern):
                yield "pattern", pattern
            else:
                described = f"{described} Pattern: {pattern[:200]}".strip()
        example = node.get("example", next(iter(_list(node.get("examples"))), None))
        if isinstance(example, str | int | float) and len(str(example)) <= 100:
            described = f"{described} Example: {example}".strip()
        if described:
            yield "description", described[:LONGEST_DESCRIPTION]

    def _numbers(self, node: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        for key in _NUMBERS:
            if (number := _number(node.get(key))) is not None and (key != "multipleOf" or number > 0):
                yield key, number
        for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
            if node.get(exclusive) is True and (number := _number(node.get(bound))) is not None:  # as in OpenAPI 3.0
                yield exclusive, number
        for key in _COUNTS:
            number = _number(node.get(key))
            if isinstance(number, int) and number >= 0:
                yield key, number

    def _inner(self, node: dict[str, Any], level: int) -> Iterator[tuple[str, Any]]:
        for key in _ONE:
            value = node.get(key)
            if isinstance(value, bool):
                yield key, value
            elif isinstance(value, dict):
                yield key, self(value, level + 1)
        for key in _MANY:
            if parts := _list(node.get(key)):
                yield key, [self(part, level + 1) for part in parts]
        for key in _NAMED:
            value = node.get(key)
            if isinstance(value, dict):
                hidden = self._read_only(node) if key == "properties" else ()
                kept = {name: each for name, each in value.items() if name not in hidden}
                kept = {name: each for name, each in kept.items() if key != "patternProperties" or _understood(name)}
                yield key, {name: self(each, level + 1) for name, each in kept.items()}

    def _read_only(self, node: dict[str, Any]) -> set[str]:
        """Properties that only answers have."""
        properties = node.get("properties")
        found = set()
        for name, each in properties.items() if isinstance(properties, dict) else ():
            try:
                if resolved(self._root, each).get("readOnly") is True:
                    found.add(name)
            except Unreadable:
                continue
        return found

    def _data(self, value: object, level: int = 0) -> Any:
        """A value as JSON has it."""
        self._count()
        if level > 20:
            raise TooComplex
        if isinstance(value, dict):
            return {str(name): self._data(each, level + 1) for name, each in value.items()}
        if isinstance(value, list):
            return [self._data(each, level + 1) for each in value]
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            number = _number(value)
            return str(value) if number is None else number
        return str(value)[:LONGEST]


def fitted(make: Callable[[Bounds], dict[str, Any]]) -> tuple[dict[str, Any], bool]:
    """The schema of a tool within the first bounds that make it small enough, and whether these are the widest.

    Raises: Unreadable.
    """
    for bounds in BOUNDS:
        try:
            schema = make(bounds)
        except (TooComplex, RecursionError):
            continue
        if len(json.dumps(schema, ensure_ascii=False)) <= LONGEST:
            return schema, bounds is BOUNDS[0]
    raise Unreadable("its schema is too large")


def both(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """A schema of the values that two schemas take; where that cannot be said in one, the second one's word counts."""
    found = dict(first)
    for key, value in second.items():
        known: Any = found.get(key)
        if key not in found or known == value:
            found[key] = value
        elif key in _NAMED:
            found[key] = {**known, **{name: _both(known.get(name), each) for name, each in value.items()}}
        elif key == "required":
            found[key] = list(dict.fromkeys([*known, *value]))
        elif key == "enum":
            found[key] = [each for each in known if each in value] or value
        elif key == "type":
            found.pop("type")
            found |= _of_types(_common(_list(known) or [known], _list(value) or [value]) or _list(value) or [value])
        elif key in _LOWER:
            found[key] = max(known, value)
        elif key in _UPPER:
            found[key] = min(known, value)
        elif key in _ONE:
            found[key] = _both(known, value)
        elif key in _MANY:
            found.setdefault("allOf", []).append({key: value})
        else:
            found[key] = value
    return found


def _both(first: Any, second: Any) -> Any:
    """As `both`, of schemas that may be true, false or none."""
    if first in (None, True) or second is False:
        return second
    if second is True or first is False:
        return first
    return both(first, second)


def _common(first: list[str], second: list[str]) -> list[str]:
    wide = {"number": ("number", "integer")}
    taken = [each for name in first for each in wide.get(name, (name,))]
    found = [each for name in second for each in wide.get(name, (name,)) if each in taken]
    return [each for each in dict.fromkeys(found) if each != "integer" or "number" not in found]


def _types(node: dict[str, Any]) -> list[str]:
    """The types of a schema, also of one that leaves them out."""
    given = node.get("type")
    found = [each for each in _list(given) or [given] if each in _TYPES]
    if given == "file":
        return ["string"]
    if not found and "properties" in node:
        return ["object"]
    return ["array"] if not found and "items" in node else found


def _of_types(types: list[str]) -> dict[str, Any]:
    return {"type": types[0] if len(types) == 1 else types} if types else {}


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema that also takes null."""
    if "enum" in schema and None not in schema["enum"]:
        schema = {**schema, "enum": [*schema["enum"], None]}
    types = _list(schema.get("type")) or ([schema["type"]] if "type" in schema else [])
    if types and not any(key in schema for key in ("oneOf", "anyOf", "allOf", "const")):
        return {**schema, "type": list(dict.fromkeys([*types, "null"]))}
    described: dict[str, Any] = {key: schema[key] for key in ("description", "default") if key in schema}
    rest = {key: value for key, value in schema.items() if key not in described}
    return {**described, "anyOf": [rest, {"type": "null"}]} if rest else described


def _number(value: object) -> int | float | None:
    """A number that JSON of all servers has; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return float(value) if abs(value) < 10**300 else None
    return value if math.isfinite(value) else None


def _understood(pattern: str) -> bool:
    """True for a pattern that Python reads: that of OpenAPI is JavaScript's."""
    try:
        with warnings.catch_warnings(action="ignore"):
            re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        return False
    return True


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
