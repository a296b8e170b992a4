"""Forgets what was deleted: takes it out of the index, for good."""

from __future__ import annotations

from domain.dataset import Dataset
from domain.document import Document
from handlers.ports import Commit, Index


class Forget:
    def __init__(self, index: Index) -> None:
        self._index = index

    async def __call__(self, commit: Commit) -> None:
        """React to a deleted document or dataset. Raises: Unavailable, to be called again."""
        for event in commit.events:
            if isinstance(event, Document.Deleted):
                await self._index.delete(commit.subject.tenant, event.dataset, commit.subject.id)
            elif isinstance(event, Dataset.Deleted):
                await self._index.delete(commit.subject.tenant, commit.subject.id)
