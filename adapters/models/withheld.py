"""Withholds the secrets that were sent to a server from what the server answers."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Collection
from typing import Any
from urllib.parse import quote, quote_plus

from adapters.models.reasoning import overlap

STARS = "***"

SHORTEST = 8
"""Minimum length of a secret that is withheld: shorter ones are ordinary words, such as `none`."""


class Withheld:
    """Puts stars in place of secrets, in all the ways in which they may be written."""

    def __init__(self, secrets: Collection[str]) -> None:
        forms = {form for secret in secrets if len(secret) >= SHORTEST for form in _forms(secret)}
        self._forms = sorted(forms, key=len, reverse=True)

    def text(self, text: str) -> str:
        for form in self._forms:
            text = text.replace(form, STARS)
        return text

    def bytes(self, data: bytes) -> bytes:
        """Bytes of a file, as many as before."""
        for form in map(str.encode, self._forms):
            data = data.replace(form, b"*" * len(form))
        return data

    def json(self, value: Any) -> Any:
        match value:
            case str():
                return self.text(value)
            case dict():
                return {self.json(name): self.json(each) for name, each in value.items()}
            case list():
                return [self.json(each) for each in value]
        return value


def _forms(secret: str) -> set[str]:
    """A secret as it is, within JSON, in an address, and in base64."""
    as_json = [json.dumps(secret, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)]
    return {secret, *as_json, quote(secret, safe=""), quote_plus(secret), base64(secret)}


def base64(text: str) -> str:
    return b64encode(text.encode()).decode()


class Pieces:
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
