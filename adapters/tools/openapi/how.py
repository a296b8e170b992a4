"""The way that an operation is called, as the list of tools has it."""

from __future__ import annotations

from typing import Literal, TypedDict, cast

from domain.tools.tool import Definition
from handlers.ports.tools import ToolError

Place = Literal["path", "query", "header", "cookie"]


class Parameter(TypedDict):
    """A parameter, and the argument that has its value."""

    name: str
    argument: str
    place: Place
    style: str
    explode: bool
    reserved: bool
    """Reserved characters stay as they are."""
    json: bool
    """The value is sent as JSON."""


class Encoding(TypedDict, total=False):
    """The way that a property of a form is sent."""

    contentType: str
    style: str
    explode: bool


class Body(TypedDict):
    argument: str
    media_type: str
    encoding: dict[str, Encoding]
    files: list[str]
    """Properties of a form that are sent as files."""


class How(TypedDict):
    server: str
    """Address without a `/` at its end."""
    method: str
    path: str
    parameters: list[Parameter]
    body: Body | None
    key_header: str
    """Header that carries the id of the call, so that it is not made twice."""


def how(tool: Definition) -> How:
    """Raises: ToolError `not_found` when the list has no such operation."""
    if "how" not in tool:
        raise ToolError("not_found", f"There is no operation {tool['name']!r}.")
    return cast("How", tool["how"])
