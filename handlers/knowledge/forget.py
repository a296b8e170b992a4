"""Forgets what was deleted, for good, and what was replaced: takes it out of the index."""

from __future__ import annotations

from domain.knowledge.dataset import Dataset
from domain.knowledge.document import Document, segment_id
from domain.log import Commit, Subject
from handlers.ports.index import Index

AT_ONCE = 1000
"""Segments that are taken out together."""


class Forget:
    def __init__(self, index: Index) -> None:
        self._index = index

    async def __call__(self, commit: Commit) -> None:
        """React to a deleted document or dataset, and to segments of an earlier cut that others have replaced.

        Raises: Unavailable, to be called again.
        """
        version = commit.position.sequence
        for event in commit.events:
            if isinstance(event, Document.Deleted):
                await self._index.delete(commit.subject.tenant, event.dataset, commit.subject.id, version=version)
            elif isinstance(event, Document.Replaced):
                await self._replaced(commit.subject, event, version)
            elif isinstance(event, Dataset.Deleted):
                await self._index.delete(commit.subject.tenant, commit.subject.id, version=version)

    async def _replaced(self, subject: Subject, event: Document.Replaced, version: int) -> None:
        """All of the cut: a worker that died may have written more than is on record."""
        ids = [segment_id(subject.id, event.segments, position) for position in range(event.count)]
        for first in range(0, len(ids), AT_ONCE):
            part = ids[first : first + AT_ONCE]
            await self._index.remove(subject.tenant, event.dataset, subject.id, part, version=version)
