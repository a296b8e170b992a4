"""Retrieves what a question may be answered from."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from domain.app import Configuration
from domain.dataset import Dataset
from domain.document import Document
from handlers.fusion import fused
from handlers.model_calls import Cause, ModelCalls
from handlers.ports import EmbeddingModels, Hit, Index, Mode, Vectors
from handlers.repository import Repository

SPARE = 2
"""Hits are asked for so many times over, since some may belong to what was just deleted."""


@dataclass(frozen=True, slots=True)
class Retrieved:
    """The hits, best first, and the names of their documents by id."""

    hits: list[Hit] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)


class _Asked(NamedTuple):
    cause: Cause
    query: str
    mode: Mode
    top_k: int


class Retrieve:
    def __init__(self, repository: Repository, calls: ModelCalls, models: EmbeddingModels, index: Index) -> None:
        self._repository = repository
        self._calls = calls
        self._models = models
        self._index = index

    async def __call__(self, cause: Cause, configuration: Configuration, query: str) -> Retrieved:
        """At most `top_k` hits in living documents, none below the threshold. Raises: Unavailable."""
        tenant, retrieval = cause.metadata.tenant, configuration["retrieval"]
        if not configuration["datasets"]:
            return Retrieved()
        asked = _Asked(cause, query, cast("Mode", retrieval["mode"]), retrieval["top_k"] * SPARE)
        datasets: defaultdict[str, list[str]] = defaultdict(list)
        for dataset, model in (await self._index.models(tenant, configuration["datasets"])).items():
            datasets[model].append(dataset)
        found = fused(await asyncio.gather(*(self._search(asked, *item) for item in datasets.items())), asked.top_k)
        threshold = retrieval["score_threshold"] or 0.0
        names = await self._names(tenant, {hit.document for hit in found})
        hits = [hit for hit in found if hit.document in names and hit.score >= threshold]
        return Retrieved(hits[: retrieval["top_k"]], names)

    async def _search(self, asked: _Asked, model: str, datasets: list[str]) -> list[Hit]:
        """The hits in the datasets that are searched with a model."""
        cause, query, mode, top_k = asked
        tenant = cause.metadata.tenant
        living, (vector, recorded) = await asyncio.gather(self._living(tenant, datasets), self._vector(asked, model))
        searching = self._index.search(tenant, living, query, vector, model=model, mode=mode, top_k=top_k)
        hits, _ = await asyncio.gather(searching, recorded)
        return hits

    async def _vector(self, asked: _Asked, model: str) -> tuple[Vectors | None, Awaitable[None]]:
        """The query's vector, and what puts the end of the call for it on record."""
        if asked.mode == "full_text":
            return None, asyncio.sleep(0)
        segmenter, embedder = await self._models.get(model)
        step = "embed" if model == self._models.default else f"embed:{model}"
        token_ids = [segmenter.tokenize(asked.query)]
        vectors, recorded = await self._calls.embed(asked.cause, step, embedder, token_ids, urgent=True)
        return vectors[0], recorded

    async def _living(self, tenant: str, ids: list[str]) -> list[str]:
        datasets = await asyncio.gather(*(self._repository.get(Dataset, tenant, id) for id in ids))
        return [dataset.id for dataset in datasets if dataset and not dataset.deleted]

    async def _names(self, tenant: str, ids: set[str]) -> dict[str, str]:
        documents = await asyncio.gather(*(self._repository.get(Document, tenant, id) for id in ids))
        return {document.id: document.name for document in documents if document and not document.deleted}
