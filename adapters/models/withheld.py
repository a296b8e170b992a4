"""Withholds the key that was sent to a server from what the server answers."""

from __future__ import annotations

import json

from adapters.models.reasoning import overlap

STARS = "***"

SHORTEST = 8
"""Minimum length of a key that is withheld: shorter ones are ordinary words, such as `none`."""


class Withheld:
    """A text that comes in pieces, with stars in place of the key, also where that is split between pieces."""

    def __init__(self, key: str) -> None:
        self._key = key if len(key) >= SHORTEST else ""
        self._kept = ""

    def __call__(self, piece: str) -> str:
        """The next piece, without an end that may be the beginning of the key."""
        if not self._key:
            return piece
        text = (self._kept + piece).replace(self._key, STARS)
        kept = overlap(text, self._key)
        self._kept = text[len(text) - kept :]
        return text[: len(text) - kept]

    def rest(self) -> str:
        """The text that was kept back, which is no key."""
        kept, self._kept = self._kept, ""
        return kept


def withheld(text: str, key: str) -> str:
    """A JSON text with stars in place of the key."""
    if len(key) < SHORTEST:
        return text
    for secret in {key, json.dumps(key)[1:-1]}:
        text = text.replace(secret, STARS)
    return text
