"""Erases a person: uploaded documents are deleted, and what is left of the words where they are not sealed goes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

from domain.access.end_user import EndUser
from domain.knowledge.document import Document
from domain.log import Commit, Position, Subject
from handlers.ports.people import People
from handlers.repository import Repository

Scrub = Callable[[str, str, Position], Awaitable[None]]
"""Takes the words of a person (tenant, id), whose erasure stands at this position, out of one place for good.

Raises: Unavailable, to be called again.
"""


Uploads = Callable[[str, str, Position], Awaitable[Sequence[str]]]
"""Finds the documents that a person (tenant, id) has ever uploaded, whose erasure stands at this position.

Raises: Unavailable, to be called again.
"""


class Erase:
    def __init__(self, people: People, repository: Repository, uploads: Uploads, *scrubs: Scrub) -> None:
        self._people = people
        self._repository = repository
        self._uploads = uploads
        self._scrubs = scrubs

    async def __call__(self, commit: Commit) -> None:
        """React to an erasure, one place after the other; each may be done again. Raises: Unavailable."""
        tenant, person = commit.subject.tenant, commit.subject.id
        for event in commit.events:
            if isinstance(event, EndUser.Erased):
                await self._people.erase(tenant, person)
                for document in await self._uploads(tenant, person, commit.position):
                    await self._delete(commit, document)
                for scrub in self._scrubs:
                    await scrub(tenant, person, commit.position)

    async def _delete(self, commit: Commit, id: str) -> None:
        cause, at = commit.metadata.on(Subject(commit.subject.tenant, Document.TOPIC, id)), datetime.now(UTC)

        def decide(document: Document | None) -> Document:
            assert document is not None
            document.delete(at)
            return document

        await self._repository.change(Document, id, cause, decide)
