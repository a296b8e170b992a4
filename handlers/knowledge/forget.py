"""Removal of deleted and replaced segments from the index."""

from __future__ import annotations

from domain.knowledge.dataset import Dataset
from domain.knowledge.document import Document, segment_id
from domain.log import Commit, Subject
from handlers.ports.index import Index

AT_ONCE = 1000
"""Number of segments that are removed together."""


class Forget:
    def __init__(self, index: Index) -> None:
        self._index = index

    async def __call__(self, commit: Commit) -> None:
        """React to a deleted document or dataset, and to a replaced revision.

        Raises: Unavailable, to be retried.
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
        """Remove the whole revision: a worker that died may have written more than is recorded."""
        ids = [segment_id(subject.id, event.segments, position) for position in range(event.count)]
        for first in range(0, len(ids), AT_ONCE):
            part = ids[first : first + AT_ONCE]
            await self._index.remove(subject.tenant, event.dataset, subject.id, part, version=version)
