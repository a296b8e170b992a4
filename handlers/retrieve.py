"""Retrieves what a question may be answered from."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import cast

from domain.app import Configuration
from domain.dataset import Dataset
from domain.document import Document
from handlers.model_calls import Cause, ModelCalls
from handlers.ports import Embedder, Hit, Index, Mode, Segmenter, Vectors
from handlers.repository import Repository

SPARE = 2
"""Hits are asked for so many times over, since some may belong to what was just deleted."""


@dataclass(frozen=True, slots=True)
class Retrieved:
    """The hits, best first, and the names of their documents by id."""

    hits: list[Hit] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)


class Retrieve:
    def __init__(
        self, repository: Repository, calls: ModelCalls, segmenter: Segmenter, embedder: Embedder, index: Index
    ) -> None:
        self._repository = repository
        self._calls = calls
        self._segmenter = segmenter
        self._embedder = embedder
        self._index = index

    async def __call__(self, cause: Cause, configuration: Configuration, query: str) -> Retrieved:
        """At most `top_k` hits in living documents, none below the threshold. Raises: Unavailable."""
        tenant, retrieval = cause.metadata.tenant, configuration["retrieval"]
        if not configuration["datasets"]:
            return Retrieved()
        mode = cast("Mode", retrieval["mode"])
        datasets, (vector, recorded) = await asyncio.gather(
            self._living(tenant, configuration["datasets"]), self._vector(cause, mode, query)
        )
        searching = self._index.search(tenant, datasets, query, vector, mode=mode, top_k=retrieval["top_k"] * SPARE)
        found, _ = await asyncio.gather(searching, recorded)
        threshold = retrieval["score_threshold"] or 0.0
        names = await self._names(tenant, {hit.document for hit in found})
        hits = [hit for hit in found if hit.document in names and hit.score >= threshold]
        return Retrieved(hits[: retrieval["top_k"]], names)

    async def _vector(self, cause: Cause, mode: Mode, query: str) -> tuple[Vectors | None, Awaitable[None]]:
        """The query's vector, and what puts the end of the call for it on record."""
        if mode == "full_text":
            return None, asyncio.sleep(0)
        token_ids = [self._segmenter.tokenize(query)]
        vectors, recorded = await self._calls.embed(cause, "embed", self._embedder, token_ids, urgent=True)
        return vectors[0], recorded

    async def _living(self, tenant: str, ids: list[str]) -> list[str]:
        datasets = await asyncio.gather(*(self._repository.get(Dataset, tenant, id) for id in ids))
        return [dataset.id for dataset in datasets if dataset and not dataset.deleted]

    async def _names(self, tenant: str, ids: set[str]) -> dict[str, str]:
        documents = await asyncio.gather(*(self._repository.get(Document, tenant, id) for id in ids))
        return {document.id: document.name for document in documents if document and not document.deleted}
