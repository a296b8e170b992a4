"""Embedding of segments: vectors from the cache, and missing ones from the model, by recorded calls."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from domain.knowledge.dataset import Dataset
from domain.knowledge.document import segment_id
from domain.knowledge.segments import Segment, decode_segments
from handlers.cause import Cause
from handlers.files import Files
from handlers.models.model_calls import ModelCalls
from handlers.ports.documents import Digest, Embedder, Embedding, EmbeddingCache, EmbeddingModels, Vectors
from handlers.ports.index import Entry, Index

TokenIds = Sequence[int]


async def model_of(dataset: Dataset, tenant: str, index: Index, models: EmbeddingModels) -> str:
    """The name of the embedding model that the dataset is searched with, or will be. Raises: Unavailable."""
    searched = await index.models(tenant, [dataset.id])
    return searched.get(dataset.id) or dataset.intended_model or models.default


@dataclass(frozen=True, slots=True)
class LoadedRevision:
    """A document's segments, the digest of their blob, and the model they were split for."""

    digest: str
    model: str
    segments: list[Segment]

    @classmethod
    async def read(cls, files: Files, tenant: str, person: str | None, digest: str) -> Self:
        """Load the segments of a blob. Raises: errors of the files."""
        return cls(
            digest, *await asyncio.to_thread(decode_segments, await files.get(tenant, person, "segments", digest))
        )


class Embed:
    def __init__(self, calls: ModelCalls, cache: EmbeddingCache) -> None:
        self._calls = calls
        self._cache = cache

    async def __call__(
        self,
        cause: Cause,
        step: str,
        embedding: Embedding,
        document: str,
        revision: LoadedRevision,
        first: int,
        count: int,
    ) -> tuple[list[Entry], Awaitable[None]]:
        """Embed a part of a revision, as `segments` does. Raises: Unavailable."""
        part = revision.segments[first : first + count]
        placed = {segment_id(document, revision.digest, segment.position): segment for segment in part}
        return await self.segments(cause, step, embedding, revision.model, placed)

    async def segments(
        self, cause: Cause, step: str, embedding: Embedding, model: str, segments: Mapping[str, Segment]
    ) -> tuple[list[Entry], Awaitable[None]]:
        """Embed segments by id, which were split for `model`.

        Return entries for the index, and an awaitable that records the end of the call, if there was one.
        Parents are not embedded. Segments for another model are tokenised again, and truncated to this one's longest
        input. Raises: Unavailable.
        """
        matched = {id: segment for id, segment in segments.items() if not segment.is_parent}
        if model == embedding.segmenter.model:
            texts: Sequence[TokenIds] = [segment.token_ids for segment in matched.values()]
        else:
            texts = [embedding.segmenter.tokenize(segment.content) for segment in matched.values()]
        found, recorded = await self._vectors(cause, step, embedding.embedder, texts)
        vectors = dict(zip(matched, found, strict=True))
        entries = [
            Entry(
                id=id,
                position=segment.position,
                content=segment.content,
                page=segment.page,
                heading=segment.heading,
                vector=vectors.get(id),
                parent=segment.parent,
                answer=segment.answer,
            )
            for id, segment in segments.items()
        ]
        return entries, recorded

    async def _vectors(
        self, cause: Cause, step: str, embedder: Embedder, texts: Sequence[TokenIds]
    ) -> tuple[list[Vectors], Awaitable[None]]:
        tenant, identity = cause.metadata.tenant, embedder.identity
        digests = [_digest(text) for text in texts]
        known = await self._cache.get(tenant, identity, digests)
        missing = {digest: text for digest, text in zip(digests, texts, strict=True) if digest not in known}
        if not missing:
            return [known[digest] for digest in digests], asyncio.sleep(0)
        vectors, recorded = await self._calls.embed(cause, step, embedder, list(missing.values()))
        made = dict(zip(missing, vectors, strict=True))

        async def keep() -> None:
            # In this order: cached texts are not embedded again, so that an open call would stay open.
            await recorded
            if not cause.metadata.person:  # an erasure could not find what it must take out
                await self._cache.put(tenant, identity, made)

        known |= made
        return [known[digest] for digest in digests], keep()


def _digest(token_ids: TokenIds) -> Digest:
    return hashlib.sha256(np.asarray(token_ids, "<i4").tobytes()).digest()
