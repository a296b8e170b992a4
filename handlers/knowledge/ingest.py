"""Ingests a document: extract, segment, embed, index; each step on record, so that a death costs one step at most."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple

import structlog

from domain.knowledge.dataset import Dataset
from domain.knowledge.document import Document
from domain.knowledge.segmentation import Segmentation
from domain.knowledge.segments import encode_segments
from domain.log import Commit, commit_id
from handlers.knowledge.embed import Embed, LoadedRevision
from handlers.models.model_calls import Cause, ModelCalls
from handlers.ports.documents import Embedding, EmbeddingModels, Extractor, Text, Unreadable
from handlers.ports.index import Entry, Index
from handlers.ports.log import Blobs, Unavailable
from handlers.repository import Repository
from handlers.work.steps import Ended, step

log = structlog.get_logger(__name__)

SLICE = 128
"""Segments that are embedded, indexed and put on record together."""

AHEAD = 2
"""Slices of a document that are embedded, or wait for that, while one is indexed and put on record."""


class Embedded(NamedTuple):
    """A slice that is ready for the index, of a document's segments from position `first` on, with its model."""

    first: int
    model: str
    entries: Sequence[Entry]


class Ingest:
    def __init__(
        self,
        repository: Repository,
        calls: ModelCalls,
        blobs: Blobs,
        extractor: Extractor,
        models: EmbeddingModels,
        embed: Embed,
        index: Index,
    ) -> None:
        self._repository = repository
        self._calls = calls
        self._blobs = blobs
        self._extractor = extractor
        self._models = models
        self._embed = embed
        self._index = index

    async def __call__(self, commit: Commit) -> None:
        """React to a document that was uploaded, or is to be tried again or processed anew.

        Raises: Unavailable, to be called again.
        """
        opens = Document.Uploaded | Document.Retried | Document.Reprocessed
        if not any(isinstance(event, opens) for event in commit.events):
            return
        tenant, id = commit.subject.tenant, commit.subject.id
        document = await self._repository.get(Document, tenant, id)
        if document is None or document.ended:
            return
        work = _Work(self._repository, commit, document)
        dataset = await self._repository.get(Dataset, tenant, document.dataset)
        with suppress(Ended):
            if dataset is None or dataset.deleted:
                await work.step("delete", lambda document, at: document.delete(at))
                return
            await self._ingest(work, dataset)

    async def _ingest(self, work: _Work, dataset: Dataset) -> None:
        revision = await self._known_revision(work)
        work.stage = "indexing" if revision else "parsing"
        await work.step("start", lambda document, at: document.start(at, stage=work.stage))
        try:
            if not revision:
                revision = await self._split(work, dataset, await self._extract(work))
            work.stage = "indexing"
            await self._index_all(work, dataset, revision)
        except (Ended, Unavailable):
            raise
        except Unreadable as error:
            await work.fail(error.code, str(error))
        except Exception as error:
            log.exception("ingest failed", document=work.document.id, stage=work.stage)
            await work.fail("internal_error", f"{type(error).__name__}: {error}")

    async def _known_revision(self, work: _Work) -> LoadedRevision | None:
        """The segments of an earlier attempt."""
        digest = work.document.segments
        return await LoadedRevision.read(self._blobs, work.tenant, digest) if digest else None

    async def _embedding(self, dataset: Dataset, tenant: str) -> tuple[str, Embedding]:
        """The model that the dataset is searched with, or will be."""
        searched = await self._index.models(tenant, [dataset.id])
        name = searched.get(dataset.id) or dataset.intended_model or self._models.default
        return name, await self._models.get(name)

    async def _extract(self, work: _Work) -> Text:
        document = work.document
        try:
            data = await self._blobs.get(work.tenant, document.digest)
        except KeyError:
            raise Unreadable("missing_file", f"The blob {document.digest} is not in the object store.") from None
        text = await self._extractor.extract(data, document.media_type, document.name)

        def parsed(document: Document, at: datetime) -> None:
            document.parsed(at, pages=text.pages, characters=text.characters, title=text.title)

        await work.step("parse", parsed)
        work.stage = "splitting"
        return text

    async def _split(self, work: _Work, dataset: Dataset, text: Text) -> LoadedRevision:
        _, (segmenter, embedder) = await self._embedding(dataset, work.tenant)
        rules = await self._rules(work)
        segments = await asyncio.to_thread(segmenter.segment, text, rules)
        if not segments:
            raise Unreadable("no_text", "The file holds no text.")
        digest = await self._blobs.put(work.tenant, await asyncio.to_thread(encode_segments, segmenter.model, segments))
        tokens = sum(segment.tokens for segment in segments if not segment.is_parent)
        model = embedder.identity
        await work.step(
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

    async def _rules(self, work: _Work) -> Segmentation:
        """As they are now: whoever changes them later, and wants the document processed anew, has that noted."""
        dataset = await self._repository.get(Dataset, work.tenant, work.document.dataset)
        return Segmentation.of(work.document.segmentation or (dataset.segmentation if dataset else None))

    async def _index_all(self, work: _Work, dataset: Dataset, revision: LoadedRevision) -> None:
        """Slices go into the index and on record one after the other, while those that follow are embedded.

        So a slice is written when the one before is on record, and a death costs no more than those in flight.
        """
        firsts = deque(range(work.document.done, len(revision.segments), SLICE))
        for first in list(firsts)[: AHEAD + 1]:
            await self._calls.lose(work.cause, f"embed:{first}")
        ahead: deque[asyncio.Task[Embedded]] = deque()
        try:
            slice: Embedded | None = None
            while firsts or ahead or slice:
                while firsts and len(ahead) < AHEAD:
                    ahead.append(asyncio.create_task(self._embed_slice(work, dataset, revision, firsts.popleft())))
                if slice:
                    await self._index_slice(work, slice)
                slice = await ahead.popleft() if ahead else None
        except asyncio.CancelledError:
            for task in ahead:
                task.cancel()
            raise
        finally:
            # A call of the model that is broken off would stay open.
            await asyncio.gather(*ahead, return_exceptions=True)

    async def _embed_slice(self, work: _Work, dataset: Dataset, revision: LoadedRevision, first: int) -> Embedded:
        model, embedding = await self._embedding(dataset, work.tenant)
        entries, recorded = await self._embed(
            work.cause, f"embed:{first}", embedding, work.document.id, revision, first, SLICE
        )
        await recorded
        return Embedded(first, model, entries)

    async def _index_slice(self, work: _Work, slice: Embedded) -> None:
        first, model, entries = slice
        document = work.document
        if not document.hidden:
            await self._index.write(
                work.tenant, document.dataset, document.id, entries, model=model, version=work.version
            )
        await work.step(f"index:{first}", lambda document, at: document.indexed(at, first=first, count=len(entries)))


class _Work:
    """A document in hand: why, as it stands, and at which stage."""

    def __init__(self, repository: Repository, commit: Commit, document: Document) -> None:
        self._repository = repository
        self.metadata = commit.metadata
        self.version = commit.position.sequence
        self.document = document
        self.tenant = commit.metadata.tenant
        self.stage = "parsing"

    @property
    def cause(self) -> Cause:
        return Cause(self.metadata, "document", self.document.id, self.document.attempt)

    async def step(self, name: str, verb: Callable[[Document, datetime], None]) -> None:
        """Put a step on record. Raises: Ended when the document takes no more, or is to be processed anew, Unavailable.

        What is written into the index then says how things stood at that place in the log, and no later.
        """
        cause = commit_id(self.metadata.id, f"{self.document.id}:{name}:{self.document.attempt}")
        metadata = self.metadata.caused(cause)
        change = await step(self._repository, Document, self.document.id, metadata, lambda known: known.ended, verb)
        self.document, self.version = change.aggregate, max(self.version, change.position.sequence)
        if self.document.status == "waiting":
            raise Ended

    async def fail(self, code: str, reason: str) -> None:
        stage = self.stage
        await self.step("fail", lambda document, at: document.fail(at, stage=stage, code=code, reason=reason[:1000]))
