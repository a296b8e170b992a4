"""Ingests a document: extract, segment, embed, index; each step on record, so that a death costs one step at most."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

import structlog

from domain.dataset import Dataset
from domain.document import Document, segment_id
from domain.segments import Segment, decode_segments, encode_segments
from handlers.model_calls import Cause, ModelCalls
from handlers.ports import (
    Blobs,
    Commit,
    Embedder,
    Entry,
    Extractor,
    Index,
    Metadata,
    Segmenter,
    Text,
    Unavailable,
    Unreadable,
    commit_id,
)
from handlers.repository import Repository
from handlers.steps import Ended, step

log = structlog.get_logger(__name__)

SLICE = 128
"""Segments that are embedded, indexed and put on record together."""


class Ingest:
    def __init__(
        self,
        repository: Repository,
        calls: ModelCalls,
        blobs: Blobs,
        extractor: Extractor,
        segmenter: Segmenter,
        embedder: Embedder,
        index: Index,
    ) -> None:
        self._repository = repository
        self._calls = calls
        self._blobs = blobs
        self._extractor = extractor
        self._segmenter = segmenter
        self._embedder = embedder
        self._index = index

    async def __call__(self, commit: Commit) -> None:
        """React to a document that was uploaded or is to be tried again. Raises: Unavailable, to be called again."""
        if not any(isinstance(event, Document.Uploaded | Document.Retried) for event in commit.events):
            return
        tenant, id = commit.subject.tenant, commit.subject.id
        document = await self._repository.get(Document, tenant, id)
        if document is None or document.ended:
            return
        work = _Work(self._repository, commit.metadata, document)
        dataset = await self._repository.get(Dataset, tenant, document.dataset)
        with suppress(Ended):
            if dataset is None or dataset.deleted:
                await work.step("delete", lambda document, at: document.delete(at))
            await self._ingest(work)

    async def _ingest(self, work: _Work) -> None:
        segments = await self._known_segments(work)
        work.stage = "indexing" if segments else "parsing"
        await work.step("start", lambda document, at: document.start(at, stage=work.stage))
        try:
            if not segments:
                segments = await self._split(work, await self._extract(work))
            work.stage = "indexing"
            await self._calls.lose(work.cause, f"embed:{work.document.done}")
            while work.document.done < len(segments):
                await self._index_slice(work, segments)
        except (Ended, Unavailable):
            raise
        except Unreadable as error:
            await work.fail(error.code, str(error))
        except Exception as error:
            log.exception("ingest failed", document=work.document.id, stage=work.stage)
            await work.fail("internal_error", f"{type(error).__name__}: {error}")

    async def _known_segments(self, work: _Work) -> list[Segment]:
        """The segments of an earlier attempt, if they were cut for the model in use."""
        if work.document.segments is None:
            return []
        model, segments = decode_segments(await self._blobs.get(work.tenant, work.document.segments))
        return segments if model == self._segmenter.model else []

    async def _extract(self, work: _Work) -> Text:
        document = work.document
        try:
            data = await self._blobs.get(work.tenant, document.digest)
        except KeyError:
            raise Unreadable("missing_file", f"The blob {document.digest} is not in the object store.") from None
        text = await self._extractor.extract(data, document.media_type, document.name)
        await work.step("parse", lambda document, at: document.parsed(at, pages=text.pages, characters=text.characters))
        work.stage = "splitting"
        return text

    async def _split(self, work: _Work, text: Text) -> list[Segment]:
        segments = await asyncio.to_thread(self._segmenter.segment, text)
        if not segments:
            raise Unreadable("no_text", "The file holds no text.")
        digest = await self._blobs.put(work.tenant, encode_segments(self._segmenter.model, segments))
        tokens = sum(segment.tokens for segment in segments)
        model = self._embedder.identity
        await work.step(
            "split",
            lambda document, at: document.split(at, segments=digest, count=len(segments), tokens=tokens, model=model),
        )
        return segments

    async def _index_slice(self, work: _Work, segments: list[Segment]) -> None:
        first = work.document.done
        part = segments[first : first + SLICE]
        token_ids = [segment.token_ids for segment in part]
        vectors, recorded = await self._calls.embed(work.cause, f"embed:{first}", self._embedder, token_ids)
        entries = [
            Entry(
                id=segment_id(work.document.id, str(work.document.segments), segment.position),
                position=segment.position,
                content=segment.content,
                page=segment.page,
                heading=segment.heading,
                vector=vector,
            )
            for segment, vector in zip(part, vectors, strict=True)
        ]
        writing = self._index.write(work.tenant, work.document.dataset, work.document.id, entries)
        await asyncio.gather(writing, recorded)
        await work.step(f"index:{first}", lambda document, at: document.indexed(at, first=first, count=len(entries)))


class _Work:
    """A document in hand: why, as it stands, and at which stage."""

    def __init__(self, repository: Repository, metadata: Metadata, document: Document) -> None:
        self._repository = repository
        self.metadata = metadata
        self.document = document
        self.tenant = metadata.tenant
        self.stage = "parsing"

    @property
    def cause(self) -> Cause:
        return Cause(self.metadata, "document", self.document.id, self.document.attempt)

    async def step(self, name: str, verb: Callable[[Document, datetime], None]) -> None:
        """Put a step on record. Raises: Ended when the document takes no more, Unavailable."""
        cause = commit_id(self.metadata.id, f"{self.document.id}:{name}:{self.document.attempt}")
        metadata = self.metadata.caused(cause)
        self.document = await step(
            self._repository, Document, self.document.id, metadata, lambda known: known.ended, verb
        )

    async def fail(self, code: str, reason: str) -> None:
        stage = self.stage
        await self.step("fail", lambda document, at: document.fail(at, stage=stage, code=code, reason=reason[:1000]))
