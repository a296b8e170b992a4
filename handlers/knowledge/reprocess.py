"""Reprocessing of every document of a dataset."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from domain.knowledge.document import Document
from domain.log import Commit, commit_id
from handlers.ports.documents import Documents
from handlers.repository import Repository

AT_ONCE = 16
"""Number of documents whose reprocessing is recorded concurrently."""


class Reprocess:
    def __init__(self, repository: Repository, documents: Documents) -> None:
        self._repository = repository
        self._documents = documents

    async def __call__(self, commit: Commit) -> None:
        """React to a request to reprocess a dataset's documents, except archived ones.

        Raises: Unavailable, to be retried.
        """
        tenant, dataset, sequence = commit.subject.tenant, commit.subject.id, commit.position.sequence
        turn = asyncio.Semaphore(AT_ONCE)

        async def one(id: str) -> None:
            async with turn:
                await self._one(commit, id)

        await asyncio.gather(*map(one, await self._documents.of(tenant, dataset, sequence)))

    async def _one(self, commit: Commit, id: str) -> None:
        at = datetime.now(UTC)

        def decide(document: Document | None) -> Document:
            assert document is not None
            if not document.deleted and not document.archived:
                document.reprocess(at)
            return document

        cause = commit.metadata.caused(commit_id(commit.metadata.id, f"{id}:reprocess"))
        await self._repository.change(Document, id, cause, decide)
