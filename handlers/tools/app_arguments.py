"""The arguments of an app that is called as a tool: its question and its variables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from domain.chat.app import Variable

QUERY, CONVERSATION = "query", "conversation"

LONGEST_QUERY, LONGEST_INPUT = 100_000, 10_000
"""Maximum lengths of a question and of the value of a variable, in characters."""


def parameters(variables: Sequence[Variable], *, completion: bool, continues: bool = False) -> dict[str, Any]:
    """JSON Schema of the arguments. A completion app needs no question; with `continues`, a conversation may be named.

    A variable of one of these names is an argument `input_<name>`.
    """
    question = {"type": "string", "maxLength": LONGEST_QUERY, "description": "Question, in full sentences"}
    properties: dict[str, Any] = {QUERY: question if completion else {**question, "minLength": 1}}
    for variable in variables:
        value: dict[str, Any] = {"type": "string", "maxLength": LONGEST_INPUT}
        if variable["default"] is not None:
            value["default"] = variable["default"]
        properties[_argument(variable["name"])] = value
    if continues and not completion:
        described = "Conversation to continue, as an earlier call returned it; leave it out to begin one"
        properties[CONVERSATION] = {"type": "string", "description": described}
    needed = [_argument(each["name"]) for each in variables if each["required"] and each["default"] is None]
    required = needed if completion else [QUERY, *needed]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def inputs(variables: Sequence[Variable], arguments: Mapping[str, Any]) -> dict[str, str]:
    """The values of the variables among the arguments."""
    names = [(variable["name"], _argument(variable["name"])) for variable in variables]
    return {name: arguments[argument] for name, argument in names if argument in arguments}


def tool_name(name: str) -> str:
    """A name that models and MCP clients take, for an app of this name."""
    return re.sub(r"[^a-zA-Z0-9_-]+", "_", name).strip("_")[:48] or "ask_app"


def _argument(variable: str) -> str:
    return f"input_{variable}" if variable in (QUERY, CONVERSATION) else variable
