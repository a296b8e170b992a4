"""Embedding of segments: vectors from the cache, and missing ones from the model, by recorded calls."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from domain.embedding import full_name
from domain.knowledge.dataset import Dataset
from domain.knowledge.document import segment_id
from domain.knowledge.segments import Segment, decode_segments
from handlers.cause import Cause
from handlers.files import Files
from handlers.models.embeddings import Embedding, Embeddings, Input
from handlers.ports.documents import Digest, EmbeddingCache, Vectors
from handlers.ports.index import Entry, Index, changed


async def model_of(dataset: Dataset, tenant: str, index: Index, models: Embeddings) -> str:
    """The full name of the embedding model that the dataset is searched with, or will be. Raises: Unavailable."""
    searched = await index.models(tenant, [dataset.id])
    if found := searched.get(dataset.id):
        return found
    chosen = dataset.intended_embedding
    return full_name(tenant, chosen) if chosen else models.default


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
    def __init__(self, cache: EmbeddingCache) -> None:
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
        dimension: int | None = None,
    ) -> tuple[list[Entry], Awaitable[None]]:
        """Embed a part of a revision, as `segments` does. Raises: ModelError, Unavailable."""
        part = revision.segments[first : first + count]
        placed = {segment_id(document, revision.digest, segment.position): segment for segment in part}
        return await self.segments(cause, step, embedding, revision.model, placed, dimension)

    async def segments(
        self,
        cause: Cause,
        step: str,
        embedding: Embedding,
        model: str,
        segments: Mapping[str, Segment],
        dimension: int | None = None,
    ) -> tuple[list[Entry], Awaitable[None]]:
        """Embed segments by id, which were split for `model`, into vectors of this length, any without one.

        Return entries for the index, and an awaitable that records the end of the call, if there was one.
        Parents are not embedded. Raises: ModelError, Unavailable.
        """
        matched = {id: segment for id, segment in segments.items() if not segment.is_parent}
        inputs = embedding.inputs(list(matched.values()), model)
        found, recorded = await self._vectors(cause, step, embedding, inputs, dimension)
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
        self, cause: Cause, step: str, embedding: Embedding, inputs: Sequence[Input], dimension: int | None
    ) -> tuple[list[Vectors], Awaitable[None]]:
        """Cached vectors of another length are made again: the server of the model runs another one than before."""
        tenant, identity = cause.metadata.tenant, embedding.identity
        digests = [_digest(each) for each in inputs]
        cached = await self._cache.get(tenant, identity, digests)
        known = {digest: vector for digest, vector in cached.items() if dimension in (None, len(vector))}
        missing = {digest: each for digest, each in zip(digests, inputs, strict=True) if digest not in known}
        if not missing:
            return [known[digest] for digest in digests], asyncio.sleep(0)
        vectors, recorded = await embedding.embed(cause, step, list(missing.values()))
        made = dict(zip(missing, vectors, strict=True))

        async def keep() -> None:
            # In this order: cached texts are not embedded again, so that an open call would stay open.
            await recorded
            if not cause.metadata.person:  # an erasure could not find what it must take out
                await self._cache.put(tenant, identity, made)

        given = vectors.shape[1]
        if dimension is not None and given != dimension:
            await recorded
            raise changed(identity, dimension, given)
        if any(len(vector) != given for vector in known.values()):
            await keep()
            return await self._vectors(cause, f"{step}:again", embedding, inputs, given)
        known |= made
        return [known[digest] for digest in digests], keep()


def _digest(input: Input) -> Digest:
    return hashlib.sha256(input.encode() if isinstance(input, str) else np.asarray(input, "<i4").tobytes()).digest()
