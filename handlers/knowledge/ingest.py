"""Ingests a document: extract, segment, embed, index; each step is recorded, so that a crash costs one step at most."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from domain.knowledge.dataset import Dataset
from domain.knowledge.document import Document
from domain.knowledge.segmentation import Segmentation
from domain.knowledge.segments import encode_segments
from domain.log import Commit
from handlers.files import Files
from handlers.knowledge.embed import Embed, LoadedRevision, model_of
from handlers.models.embeddings import PATIENT, Embedding, Embeddings, is_later
from handlers.models.model_calls import ModelCalls
from handlers.ports.documents import Extractor, Text, Unreadable
from handlers.ports.index import Entry, Index
from handlers.ports.log import Unavailable
from handlers.ports.models import ModelError
from handlers.ports.people import Erased
from handlers.repository import Repository
from handlers.work.attempt import Attempt, Ended
from handlers.work.work import WORKS

SLICE = 128
"""Segments that are embedded, indexed and recorded together."""

AHEAD = 2
"""Slices of a document that are embedded, or wait for that, while one is indexed and recorded."""


class Embedded(NamedTuple):
    """A slice that is ready for the index, of a document's segments from position `first` on, with its model."""

    first: int
    model: str
    entries: Sequence[Entry]


@dataclass(frozen=True, slots=True)
class Ingest:
    repository: Repository
    calls: ModelCalls
    files: Files
    extractor: Extractor
    models: Embeddings
    embed: Embed
    index: Index

    async def __call__(self, commit: Commit) -> None:
        """Process a document that was uploaded, retried or reprocessed. Raises: Unavailable."""
        tenant, id = commit.subject.tenant, commit.subject.id
        document = await self.repository.get(Document, tenant, id)
        if document is None or document.ended:
            return
        attempt = Attempt[Document](self.repository, WORKS["ingest"], commit, id)
        dataset = await self.repository.get(Dataset, tenant, document.dataset)
        with suppress(Ended, Erased):  # what an erased person uploaded is about to be deleted
            if dataset is None or dataset.deleted:
                await attempt.begin(lambda document, at: document.delete(at))
                return
            await self._ingest(attempt, document, dataset)

    async def _ingest(self, attempt: Attempt[Document], document: Document, dataset: Dataset) -> None:
        """Process the document; a file that cannot be read, or a model that refuses it, is an outcome."""
        revision = await self._known_revision(attempt.tenant, document)
        stage = "indexing" if revision else "parsing"
        await attempt.begin(lambda document, at: document.start(at, stage=stage))
        try:
            if not revision:
                revision = await self._split(attempt, dataset, await self._extract(attempt))
            await self._index_all(attempt, dataset, revision)
        except Unreadable as unreadable:
            await self._fail(attempt, unreadable.code, str(unreadable))
        except ModelError as error:
            if is_later(error) and attempt.number < PATIENT:
                raise Unavailable(error.reason) from error
            await self._fail(attempt, error.code, error.reason)

    async def _fail(self, attempt: Attempt[Document], code: str, reason: str) -> None:
        await attempt.step(
            "fail", lambda document, at: document.fail(at, stage=document.stage, code=code, reason=reason[:1000])
        )

    async def _known_revision(self, tenant: str, document: Document) -> LoadedRevision | None:
        """The segments that an earlier attempt made."""
        digest = document.segments
        return await LoadedRevision.read(self.files, tenant, document.person, digest) if digest else None

    async def _embedding(self, dataset: Dataset, tenant: str) -> tuple[str, Embedding]:
        """The model of the dataset, by its full name and ready for use."""
        name = await model_of(dataset, tenant, self.index, self.models)
        return name, await self.models.get(name)

    async def _extract(self, attempt: Attempt[Document]) -> Text:
        document = attempt.aggregate
        try:
            data = await self.files.get(attempt.tenant, document.person, "file", document.digest)
        except Erased:
            raise
        except KeyError:
            raise Unreadable("missing_file", f"The blob {document.digest} is not in the object store.") from None
        text = await self.extractor.extract(attempt.tenant, data, document.media_type, document.name)

        def parsed(document: Document, at: datetime) -> None:
            document.parsed(at, pages=text.pages, characters=text.characters, title=text.title, warnings=text.warnings)

        await attempt.step("parse", parsed)
        return text

    async def _split(self, attempt: Attempt[Document], dataset: Dataset, text: Text) -> LoadedRevision:
        _, embedding = await self._embedding(dataset, attempt.tenant)
        segmenter = embedding.segmenter
        rules = await self._rules(attempt)
        segments = await segmenter.segment(attempt.tenant, text, rules)
        if not segments:
            raise Unreadable("no_text", "The file holds no text.")
        data = await asyncio.to_thread(encode_segments, segmenter.model, segments)
        digest = await self.files.put(attempt.tenant, attempt.aggregate.person, "segments", data)
        tokens = sum(segment.tokens for segment in segments if not segment.is_parent)
        model = embedding.identity
        await attempt.step(
            "split",
            lambda document, at: document.split(
                at,
                segments=digest,
                count=len(segments),
                tokens=tokens,
                model=model,
                segmentation=rules.plain(),
            ),
        )
        return LoadedRevision(digest, segmenter.model, segments)

    async def _rules(self, attempt: Attempt[Document]) -> Segmentation:
        """Return the current rules. A later change that asks for the document to be reprocessed is recorded as such."""
        dataset = await self.repository.get(Dataset, attempt.tenant, attempt.aggregate.dataset)
        return Segmentation.of(attempt.aggregate.segmentation or (dataset.segmentation if dataset else None))

    async def _index_all(self, attempt: Attempt[Document], dataset: Dataset, revision: LoadedRevision) -> None:
        """Index and record the slices one after the other, while those that follow are embedded.

        So a slice is written once the one before is recorded, and a crash costs no more than those in flight.
        """
        firsts = deque(range(attempt.aggregate.done, len(revision.segments), SLICE))
        for first in list(firsts)[: AHEAD + 1]:
            await self.calls.take_over(attempt.cause, f"embed:{first}")
        ahead: deque[asyncio.Task[Embedded]] = deque()
        try:
            slice: Embedded | None = None
            while firsts or ahead or slice:
                while firsts and len(ahead) < AHEAD:
                    ahead.append(asyncio.create_task(self._embed_slice(attempt, dataset, revision, firsts.popleft())))
                if slice:
                    await self._index_slice(attempt, slice)
                slice = await ahead.popleft() if ahead else None
        except asyncio.CancelledError:
            for task in ahead:
                task.cancel()
            raise
        finally:
            # A call of the model that is broken off would stay open.
            await asyncio.gather(*ahead, return_exceptions=True)

    async def _embed_slice(
        self, attempt: Attempt[Document], dataset: Dataset, revision: LoadedRevision, first: int
    ) -> Embedded:
        model, embedding = await self._embedding(dataset, attempt.tenant)
        dimension = await self.index.dimension(attempt.tenant, dataset.id)
        entries, recorded = await self.embed(
            attempt.cause, f"embed:{first}", embedding, attempt.aggregate.id, revision, first, SLICE, dimension
        )
        await recorded
        return Embedded(first, model, entries)

    async def _index_slice(self, attempt: Attempt[Document], slice: Embedded) -> None:
        first, model, entries = slice
        document = attempt.aggregate
        if not document.hidden:
            await self.index.write(
                attempt.tenant, document.dataset, document.id, entries, model=model, version=attempt.sequence
            )
        await attempt.step(f"index:{first}", lambda document, at: document.indexed(at, first=first, count=len(entries)))
