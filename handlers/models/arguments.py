"""Arguments of a call of a tool, as a model writes them."""

from __future__ import annotations

import json
from typing import Any


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
