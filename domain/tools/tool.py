"""Tools: what a toolset lists, and what a model is offered."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict

BUILTIN = "builtin"
"""The toolset that needs no registration."""

Approve = Literal["always", "destructive", "never"]
"""Calls that wait for a person: all, those that may change or delete something, or none."""


class Definition(TypedDict):
    """A tool as its toolset lists it. Whether it is destructive or idempotent may be the word of a server alone."""

    name: Annotated[str, "Name, unique in the toolset."]
    label: Annotated[str, "Name, for people; empty for none."]
    description: Annotated[str, "Description, for models."]
    parameters: Annotated[dict[str, Any], "JSON Schema of its arguments, an object."]
    destructive: Annotated[bool, "True unless it is known to change nothing outside."]
    idempotent: Annotated[bool, "True if a second call with the same arguments, or the same key, changes nothing more."]
    server: NotRequired[Annotated[str, "Address that it is called at, as `host:port`, where its toolset has several."]]
    how: NotRequired[Annotated[dict[str, Any], "The way it is called, in the terms of the kind of its toolset."]]


class Listed(TypedDict):
    """A tool of a toolset, without its schema."""

    name: Annotated[str, "Name, unique in the toolset."]
    description: Annotated[str, "Beginning of its description."]
    destructive: Annotated[bool, "True unless it is known to change nothing outside."]
    idempotent: Annotated[bool, "True if a second call changes nothing more."]


SHOWN = 200
"""Characters of a description that are listed."""


def listed(tool: Definition) -> Listed:
    return Listed(
        name=tool["name"],
        description=tool["description"][:SHOWN],
        destructive=tool["destructive"],
        idempotent=tool["idempotent"],
    )
