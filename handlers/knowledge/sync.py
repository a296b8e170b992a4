"""Syncs the index with the edits that people make to a document."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, Protocol

from domain.aggregate import new_id
from domain.knowledge.dataset import Dataset
from domain.knowledge.document import Document
from domain.knowledge.entries import affected, entries
from domain.knowledge.segments import Segment
from domain.log import Commit
from handlers.cause import Cause
from handlers.files import Files
from handlers.knowledge.embed import Embed, LoadedRevision, model_of
from handlers.knowledge.ingest import SLICE
from handlers.models.embeddings import Embedding, Embeddings, waits
from handlers.ports.index import Entry, Index
from handlers.ports.log import Unavailable
from handlers.ports.models import ModelError
from handlers.ports.people import Erased
from handlers.repository import Repository
from handlers.work.attempt import Attempt, Ended
from handlers.work.work import WORKS


class Put(Protocol):
    """Writes entries of the document into an index."""

    async def __call__(self, entries: Sequence[Entry]) -> None: ...


class TakeOut(Protocol):
    """Takes entries of the document out of an index."""

    async def __call__(self, ids: Sequence[str]) -> None: ...


class Difference(NamedTuple):
    """Effect of edits on the index: segments that must be there, tokenised for a model, and those that must not."""

    model: str
    found: Mapping[str, Segment]
    gone: list[str]


@dataclass(frozen=True, slots=True)
class Sync:
    repository: Repository
    files: Files
    models: Embeddings
    embed: Embed
    index: Index

    async def __call__(self, commit: Commit) -> None:
        """Bring the index in line with edits; the newest edit does it for those before. Raises: Unavailable."""
        tenant, id = commit.subject.tenant, commit.subject.id
        document, sequence = await self.repository.get_at(Document, tenant, id)
        if document is None or not document.needs_sync or not document.ended:
            return
        if document.sync["changed"] > commit.events[-1].originator_version:
            return
        attempt = Attempt[Document](self.repository, WORKS["sync"], commit, id).go_on(document, sequence)
        dataset = await self.repository.get(Dataset, tenant, document.dataset)
        with suppress(Ended, Erased):  # what an erased person uploaded is about to be deleted
            if dataset is None or dataset.deleted:
                await attempt.step("delete", Document.delete)
            else:
                await self._sync(attempt, dataset)

    async def _sync(self, attempt: Attempt[Document], dataset: Dataset) -> None:
        synced = attempt.aggregate.sync["changed"]
        try:
            await self._follow(attempt, dataset)
        except ModelError as error:
            code, reason = error.code, error.reason[:1000]
            if waits(error, attempt.commit.at):
                raise Unavailable(reason) from error
            await attempt.step("fail", lambda document, at: document.fail_sync(at, code=code, reason=reason))
        else:
            await attempt.step("sync", lambda document, at: document.mark_synced(at, settled=synced))

    async def _follow(self, attempt: Attempt[Document], dataset: Dataset) -> None:
        tenant, document, sequence = attempt.tenant, attempt.aggregate, attempt.sequence
        name = await model_of(dataset, tenant, self.index, self.models)

        async def put(entries: Sequence[Entry]) -> None:
            await self.index.write(tenant, dataset.id, document.id, entries, model=name, version=sequence)

        async def take_out(ids: Sequence[str]) -> None:
            await self.index.remove(tenant, dataset.id, document.id, ids, version=sequence)

        cause = Cause(attempt.metadata, "document", document.id, max(1, document.attempt))
        embedding = await self.models.get(name)
        difference = await differs(self.files, tenant, document, embedding, document.sync["synced"])
        dimension = await self.index.dimension(tenant, dataset.id)
        await follow(self.embed, cause, f"settle:{new_id()}", embedding, difference, put, take_out, dimension)


async def differs(files: Files, tenant: str, document: Document, embedding: Embedding, since: int) -> Difference:
    """Return the edits after a version of the document, tokenised for a model. Raises: as the files do."""
    tokenize, model = embedding.segmenter.tokenize, embedding.segmenter.model
    revisions = {
        revision["segments"]: await LoadedRevision.read(files, tenant, document.person, revision["segments"])
        for revision in document.revisions
    }
    segments = {digest: revision.segments for digest, revision in revisions.items()}
    foreign = any(revision.model != model for revision in revisions.values())
    placed = await asyncio.to_thread(entries, document, segments, tokenize)
    ids = await asyncio.to_thread(affected, document, segments, since)
    found = {id: segment for id, segment in placed.items() if id in ids}
    return Difference("" if foreign else model, found, sorted(ids - found.keys()))


async def follow(
    embed: Embed,
    cause: Cause,
    name: str,
    embedding: Embedding,
    difference: Difference,
    put: Put,
    take_out: TakeOut,
    dimension: int | None,
) -> int:
    """Bring an index in line; gives how many entries were written. Raises: ModelError, Unavailable."""
    if difference.gone:
        await take_out(difference.gone)
    remaining, written = iter(difference.found.items()), 0
    while part := dict(islice(remaining, SLICE)):
        made, recorded = await embed.segments(cause, f"{name}:{written}", embedding, difference.model, part, dimension)
        await asyncio.gather(put(made), recorded)
        written += len(part)
    return written
