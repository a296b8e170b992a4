"""Ports of moderation: filters outside of this process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from handlers.ports.models import Client

Side = Literal["input", "output"]


class Finding(NamedTuple):
    """The verdict on texts: `texts` are those that the filter changed, by name; none where it says only that they are
    flagged."""

    flagged: bool
    texts: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Check:
    """Texts to check: of the input `query` and `inputs.<name>`, of the output `text`, a part of an answer."""

    app: str
    where: Side
    texts: Mapping[str, str] = field(default_factory=dict)


class Filter(Client, Protocol):
    async def check(self, check: Check) -> Finding:
        """Check the texts by one request; the caller sets a time limit. Raises: ModelError."""
        ...
