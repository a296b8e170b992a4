"""JSON that a model writes: arguments of a call of a tool, and structured answers."""

from __future__ import annotations

import json
from typing import Any


def bare(answer: str) -> str:
    """The JSON text of an answer, without a fence around it."""
    text = answer.strip()
    return text[3:-3].removeprefix("json").strip() if text.startswith("```") and text.endswith("```") else text


def arguments_of(text: str) -> dict[str, Any]:
    """The arguments in the text of a JSON object.

    Raises: ValueError, with a reason for the model, for another text, and for an object with a key twice: some models
    write two calls as one.
    """
    try:
        found = json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("The arguments are nested too deep.") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"The arguments are not JSON: {error}.") from None
    if not isinstance(found, dict):
        raise ValueError("The arguments are no JSON object.")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"The arguments have {twice!r} twice: make one call for each.")
    return found
