"""Secrets of the environment: a run holds marks in their place, which are replaced where a call is sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any


def mark(run: str, name: str, sealed: str) -> str:
    """The mark of a secret: no one who does not know the sealed secret can write it."""
    proof = sha256(f"{run} {name} {sealed}".encode()).hexdigest()[:24]
    return f"secret:{name}:{proof}"


@dataclass(frozen=True, slots=True)
class Secrets:
    """The secrets of a run, by their marks."""

    marks: Mapping[str, str] = field(default_factory=dict)

    def revealed(self, data: Any, written: Callable[[str], str] = str) -> Any:
        """Data with the secrets in place of the marks; `written` escapes a secret for where it stands."""
        return self._replaced(data, [(mark, written(secret)) for mark, secret in self.marks.items()])

    def withheld(self, data: Any) -> Any:
        """Data with the marks in place of the secrets."""
        return self._replaced(data, [(secret, mark) for mark, secret in self.marks.items() if secret])

    def _replaced(self, data: Any, pairs: list[tuple[str, str]]) -> Any:
        if not pairs:
            return data
        if isinstance(data, str):
            for old, new in pairs:
                data = data.replace(old, new)
            return data
        if isinstance(data, Mapping):
            return {self._replaced(key, pairs): self._replaced(value, pairs) for key, value in data.items()}
        if isinstance(data, list | tuple):
            return [self._replaced(each, pairs) for each in data]
        return data


def in_json(secret: str) -> str:
    """A secret as it stands within quotes of JSON."""
    return json.dumps(secret, ensure_ascii=False)[1:-1]
