"""Abilities of models to take files."""

from __future__ import annotations

from collections.abc import Mapping

from domain.builtin import BUILTIN

SENSES = {"image": "see images", "audio": "hear recordings"}
"""Functions of models by the types of files that need them, which are the names of their abilities, too."""

EXTRACTIVE = {"image": False, "audio": False}
"""Abilities of the built-in chat model."""


def incapable(able: Mapping[str, bool], provider: str, model: str, type: str) -> str | None:
    """Why a model with these abilities cannot be sent a file; None when it can, or when this is unknown."""
    if type not in SENSES or able.get(type) is not False:
        return None
    source = "it answers from texts" if provider == BUILTIN else "by its check or its entry in the catalogue"
    return f"The model {provider}/{model} does not {SENSES[type]}, {source}; choose another model for the app."
