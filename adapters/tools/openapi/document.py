"""A document that describes an API: its text as data, and what its references name. Runs in a contained process."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import yaml

HOPS = 20
"""Maximum number of references that name one another."""

DEEP = "It is nested too deep."


class Unreadable(Exception):
    """The document, or a part of it, cannot be read; the message is the reason."""


def parsed(data: bytes) -> dict[str, Any]:
    """The data of a JSON or YAML document. Raises: Unreadable."""
    text = data.decode("utf-8-sig", "replace")
    try:
        found = _parsed(text)
    except RecursionError:
        raise Unreadable(DEEP) from None
    if not isinstance(found, dict):
        raise Unreadable("It is no JSON or YAML object.")
    return found


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        fault = f"It is no JSON: {error}"
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError) as error:
        said = fault if text.lstrip().startswith("{") else f"It is no YAML: {' '.join(str(error).split())}"
        raise Unreadable(said[:500]) from None


class _Loader(yaml.CSafeLoader):  # type: ignore[misc]  # it has no types
    """The core schema of YAML 1.2, with text for keys: `no` and dates are text, and so is a status such as 200."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # as the interface

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[str, Any]:
        self.flatten_mapping(node)
        return {
            key.value: self.construct_object(value, deep=deep)
            for key, value in node.value
            if isinstance(key, yaml.ScalarNode)
        }


_DIGITS = "[0-9]{1,30}"
_FLOAT = rf"[-+]?(?:{_DIGITS}\.[0-9]{{0,30}}|\.{_DIGITS}|{_DIGITS}(?=[eE]))(?:[eE][-+]?[0-9]{{1,3}})?\Z"

for _tag, _pattern, _first in (
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)\Z", list("tTfF")),
    ("null", r"(?:~|null|Null|NULL)?\Z", ["~", "n", "N", ""]),
    ("int", r"[-+]?(?:0|[1-9][0-9]{0,18})\Z", list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
    ("merge", r"<<\Z", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


def target(root: Mapping[str, Any], reference: object) -> Any:
    """The part of a document that a reference names. Raises: Unreadable."""
    if not isinstance(reference, str):
        raise Unreadable("a reference is no text")
    if not reference.startswith("#"):
        raise Unreadable(f"{reference[:100]!r} is in another document, which is not read")
    node: Any = root
    for part in unquote(reference[1:]).split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, list) and name.isdecimal() and int(name[:9]) < len(node):
            node = node[int(name[:9])]
        elif isinstance(node, dict) and name in node:
            node = node[name]
        else:
            raise Unreadable(f"{reference[:100]!r} is not in the document")
    if node is root:
        raise Unreadable(f"{reference[:100]!r} is no part of the document")
    return node


def resolved(root: Mapping[str, Any], node: object) -> dict[str, Any]:
    """An object, in place of a reference to one; what is next to the reference goes before. Raises: Unreadable."""
    for _ in range(HOPS):
        if not isinstance(node, dict):
            raise Unreadable("there is no object")
        if "$ref" not in node:
            return node
        found = target(root, node["$ref"])
        rest = {name: value for name, value in node.items() if name != "$ref"}
        node = {**found, **rest} if rest and isinstance(found, dict) else found
    raise Unreadable("its references go in a circle")
