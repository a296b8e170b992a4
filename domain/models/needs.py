"""The abilities that a configuration of an app needs of its model, and those that the model is known to lack."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from domain.chat.app import AnswerSettings, AppWarning
from domain.models.model import ABILITIES, Ability, Model


def needs(settings: AnswerSettings) -> dict[Ability, str]:
    """The abilities that an app needs of its chat model, each with the field that asks for it."""
    found: dict[Ability, str] = {}
    parameters = settings["model"]["parameters"]
    if parameters.get("tools"):
        found["tools"] = "model.parameters.tools"
    choice: Any = parameters.get("tool_choice")
    if isinstance(choice, dict) or choice == "required":
        found["forced_tool"] = "model.parameters.tool_choice"
    form: Any = parameters.get("response_format")
    if isinstance(form, dict) and form.get("type") == "json_schema":
        found["schema"] = "model.parameters.response_format"
    if settings["features"]["response_schema"] is not None:
        found["schema"] = "features.response_schema"
    return found


def warnings(settings: AnswerSettings, model: Model) -> Iterator[AppWarning]:
    """The needs that the model does not meet, as far as that is known."""
    facts, name = model.facts, f"{model.provider}/{model.model}"
    if facts["type"] not in (None, "chat"):
        message = f"{name} is a model of type {facts['type']}, not of type chat."
        yield AppWarning(code="not_a_chat", field="model.name", message=message)
    for ability, field in needs(settings).items():
        if facts["abilities"].get(ability) is False:
            message = f"{name} lacks the ability {ability}: it was found that it never {ABILITIES[ability]}."
            yield AppWarning(code="ability_absent", field=field, message=message)
    window = facts["context_window"]
    if window is not None and settings["model"]["context_window"] > window:
        message = f"The window of {name} has {window:,} tokens; longer prompts are refused or cut."
        yield AppWarning(code="window_smaller", field="model.context_window", message=message)
