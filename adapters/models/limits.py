"""The limits of a key that headers of answers state."""

from __future__ import annotations

import re
from collections.abc import Mapping

HEADERS = {
    "requests_per_minute": ("x-ratelimit-limit-requests", "anthropic-ratelimit-requests-limit"),
    "tokens_per_minute": ("x-ratelimit-limit-tokens", "anthropic-ratelimit-tokens-limit"),
    "input_tokens_per_minute": ("anthropic-ratelimit-input-tokens-limit",),
    "output_tokens_per_minute": ("anthropic-ratelimit-output-tokens-limit",),
}
"""Headers by the limit that they state."""


def limits(headers: Mapping[str, str]) -> dict[str, int]:
    """The limits that the headers of an answer state, by name."""
    return {
        limit: int(stated)
        for limit, names in HEADERS.items()
        for name in names
        if re.fullmatch("[0-9]{1,12}", stated := headers.get(name, ""))
    }
