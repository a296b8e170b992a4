"""Documents of Swagger 2 in the form of OpenAPI 3. Runs in a contained process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from adapters.tools.openapi.document import Unreadable, resolved

FORM, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"

METHODS = ("get", "head", "options", "put", "post", "patch", "delete")

_STYLES = {
    "multi": {"style": "form", "explode": True},
    "ssv": {"style": "spaceDelimited", "explode": False},
    "pipes": {"style": "pipeDelimited", "explode": False},
}
_COMMAS = {"explode": False}

_NOT_SCHEMA = ("name", "in", "required", "description", "collectionFormat", "allowEmptyValue", "schema")


def modern(root: Mapping[str, Any]) -> dict[str, Any]:
    """The document, where its definitions keep their places, since references name them."""
    schemes = root.get("schemes")
    schemes = schemes if isinstance(schemes, list) and schemes else ["https"]
    scheme = "https" if "https" in schemes else schemes[0]
    base = root.get("basePath") or "/"
    host = root.get("host")
    paths = root.get("paths")
    return {
        **root,
        "openapi": "3.0.3",
        "servers": [{"url": f"{scheme}://{host}{base}" if host else base}],
        "paths": {path: _item(root, item) for path, item in paths.items()} if isinstance(paths, dict) else paths,
    }


def _item(root: Mapping[str, Any], item: object) -> object:
    """A path; one that cannot be read stays as it is, and is refused later."""
    try:
        found = resolved(root, item)
    except Unreadable:
        return item
    shared = found.get("parameters")
    return {
        **{key: value for key, value in found.items() if key != "parameters"},
        **{
            method: _operation(root, found[method], shared if isinstance(shared, list) else [])
            for method in METHODS
            if isinstance(found.get(method), dict)
        },
    }


def _operation(root: Mapping[str, Any], operation: dict[str, Any], shared: list[Any]) -> dict[str, Any]:
    own = operation.get("parameters")
    given = list(_resolved(root, [*shared, *(own if isinstance(own, list) else [])]))
    named = {(str(each.get("in")), str(each.get("name"))): each for each in given}
    parameters = list(named.values())
    consumes = operation.get("consumes", root.get("consumes"))
    media_types = consumes if isinstance(consumes, list) and consumes else []
    found = {**operation, "parameters": [_parameter(each) for each in parameters if each.get("in") not in _BODIES]}
    fields = [each for each in parameters if each.get("in") == "formData"]
    for body in (each for each in parameters if each.get("in") == "body"):
        content = {str(name): {"schema": body.get("schema", {})} for name in media_types or ["application/json"]}
        about = body.get("description", "")
        found["requestBody"] = {"content": content, "required": body.get("required"), "description": about}
    if fields:
        found["requestBody"] = _form(fields, media_types)
    return found


_BODIES = ("body", "formData")


def _resolved(root: Mapping[str, Any], parameters: list[Any]) -> Iterator[dict[str, Any]]:
    """The parameters; one that cannot be read stays as it is."""
    for each in parameters:
        try:
            yield resolved(root, each)
        except Unreadable:
            yield each if isinstance(each, dict) else {}


def _parameter(parameter: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in parameter:
        return parameter
    found: dict[str, Any] = {
        key: parameter[key] for key in ("name", "in", "required", "description") if key in parameter
    }
    style = _STYLES.get(str(parameter.get("collectionFormat")), _COMMAS)
    return {**found, **(style if found.get("in") == "query" else {}), "schema": _schema(parameter)}


def _schema(parameter: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in parameter.items() if key not in _NOT_SCHEMA}


def _form(fields: list[dict[str, Any]], media_types: list[Any]) -> dict[str, Any]:
    files = any(field.get("type") == "file" for field in fields)
    media_type = MULTIPART if files or (MULTIPART in media_types and FORM not in media_types) else FORM
    properties = {}
    for field in fields:
        binary = {"format": "binary"} if field.get("type") == "file" else {}
        properties[str(field.get("name"))] = {**_schema(field), **binary, "description": field.get("description", "")}
    required = [str(field.get("name")) for field in fields if field.get("required") is True]
    schema = {"type": "object", "properties": properties, "required": required}
    return {"content": {media_type: {"schema": schema}}, "required": bool(required)}
