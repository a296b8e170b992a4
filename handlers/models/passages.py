"""Passages that prompts quote: each is recorded once, before the first prompt that quotes it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from domain.log import Metadata, commit_id
from domain.models.passage import Passage
from handlers.repository import Repository

KNOWN = 50_000
"""Maximum number of passages that a process knows to be recorded."""


class Passages:
    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._known: dict[tuple[str, str], None] = {}

    async def record(self, metadata: Metadata, passages: Mapping[str, str]) -> None:
        """Record the passages, by their ids, that this process does not know to be recorded.

        They are no words of the person who asks. Raises: TooLarge, Unavailable.
        """
        new = {id: text for id, text in passages.items() if (metadata.tenant, id) not in self._known}
        await asyncio.gather(*(self._record(metadata, id, text) for id, text in new.items()))
        self._known |= dict.fromkeys((metadata.tenant, id) for id in new)
        while len(self._known) > KNOWN:
            del self._known[next(iter(self._known))]

    async def _record(self, metadata: Metadata, id: str, text: str) -> None:
        at = datetime.now(UTC)
        own = replace(metadata.caused(commit_id(metadata.id, f"passage:{id}")), person=None)

        def decide(passage: Passage | None) -> Passage:
            return passage or Passage.begin(Passage.Recorded, id, at, text=text)

        await self._repository.change(Passage, id, own, decide, new=True)
