"""Parameters of tools of Dify as JSON Schemas, and arguments and settings as the tools take them."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from domain.tools.dify import DifyTool, Field, Parameter
from domain.tools.tool import Definition
from handlers.ports.tools import ToolError

FILES = ("file", "files")

_TYPES = {
    "string": "string",
    "number": "number",
    "boolean": "boolean",
    "checkbox": "boolean",
    "select": "string",
    "dynamic-select": "string",
    "secret-input": "string",
    "date": "string",
    "object": "object",
    "array": "array",
    "date-range": "object",
}

_KINDS = {"image": "image", "audio": "audio", "video": "video"}


def definition(tool: DifyTool) -> Definition:
    """A tool as a model is offered it: with the parameters that a model gives. It may change something outside."""
    given = [each for each in tool["parameters"] if each["form"] == "llm"]
    return Definition(
        name=tool["name"],
        label=tool["label"],
        description=tool["description"],
        parameters={
            "type": "object",
            "properties": {each["name"]: _schema(each) for each in given},
            "required": [each["name"] for each in given if each["required"] and each["default"] is None],
            "additionalProperties": False,
        },
        destructive=True,
        idempotent=False,
    )


def _schema(parameter: Parameter) -> dict[str, Any]:
    kind, description = parameter["type"], {"description": parameter["description"]}
    if kind in FILES:
        one = {
            "type": "string",
            "description": f"{parameter['description']} (address of a file, http or https)".strip(),
        }
        return one if kind == "file" else {"type": "array", "items": one, **description}
    if parameter["json_schema"]:
        return {**parameter["json_schema"], **description}
    if kind not in _TYPES:
        return description
    found: dict[str, Any] = {"type": _TYPES[kind]}
    if parameter["options"]:
        found["enum"] = parameter["options"]
    if kind == "number":
        bounds = {"minimum": parameter["minimum"], "maximum": parameter["maximum"]}
        found |= {name: bound for name, bound in bounds.items() if bound is not None}
    if parameter["multiple"]:
        found = {"type": "array", "items": found}
    return {**found, **description}


def arguments(tool: DifyTool, given: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a call: a model's arguments, the settings of the toolset, and defaults. Raises: ToolError."""
    found: dict[str, Any] = {}
    for parameter in tool["parameters"]:
        name, source = parameter["name"], given if parameter["form"] == "llm" else settings
        value = source.get(name)
        if value is None:
            value = parameter["default"]
        if value is None or value == "":
            if parameter["required"] and parameter["form"] != "llm":
                raise ToolError("invalid_arguments", f"The toolset has no setting {name} for {tool['name']}.")
            if value is None:
                continue
        found[name] = value_of(parameter, value)
    return found


def value_of(parameter: Parameter, value: Any) -> Any:
    """A value in the type of a parameter: settings and defaults may be texts. Raises: ToolError."""
    kind, name = parameter["type"], parameter["name"]
    if kind == "file":
        return file(value, name)
    if kind == "files":
        return [file(each, name) for each in (value if isinstance(value, list) else [value])]
    if kind in ("boolean", "checkbox") and isinstance(value, str):
        return value.strip().lower() in ("true", "1", "yes", "on")
    if kind == "number" and isinstance(value, str):
        try:
            return float(value) if "." in value else int(value)
        except ValueError:
            raise ToolError("invalid_arguments", f"{name} must be a number.") from None
    if kind in ("string", "select", "secret-input") and isinstance(value, int | float) and not parameter["multiple"]:
        return str(value)
    return value


def file(address: Any, name: str) -> dict[str, Any]:
    """A file at an address, as tools take it. Raises: ToolError."""
    parts = urlsplit(address) if isinstance(address, str) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ToolError("invalid_arguments", f"{name} must be the address of a file, http or https.")
    filename = unquote(PurePosixPath(parts.path).name) or "file"
    media_type = mimetypes.guess_type(filename)[0] or "application/octet-stream"
    return {
        "dify_model_identity": "__dify__file__",
        "url": address,
        "mime_type": media_type,
        "filename": filename,
        "extension": PurePosixPath(filename).suffix,
        "size": None,
        "type": _KINDS.get(media_type.partition("/")[0], "document"),
    }


def completed(fields: Sequence[Field], given: Mapping[str, Any]) -> dict[str, Any]:
    """Credentials, with the defaults of a form."""
    defaults = {each["name"]: each["default"] for each in fields if each["default"] is not None}
    return {**defaults, **given}
