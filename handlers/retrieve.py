"""Retrieves what a question may be answered from, and puts on record what was found and what was made of it."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple, cast

from domain.app import Configuration
from domain.dataset import Dataset
from domain.document import Document
from domain.retrieval import Candidate, Retrieval
from handlers.fusion import fused
from handlers.model_calls import Cause, ModelCalls, milliseconds
from handlers.ports import EmbeddingModels, Hit, Index, Mode, Unavailable, Vectors, commit_id
from handlers.repository import Repository

SPARE = 2
"""Hits are asked for so many times over, since some may belong to what was just deleted."""


class Retrieved:
    """The hits, best first, and the names of their documents by id."""

    def __init__(
        self, hits: list[Hit], names: dict[str, str], record: Callable[[], Coroutine[Any, Any, None]] | None = None
    ) -> None:
        self.hits = hits
        self.names = names
        self._record = record
        self._recorded: asyncio.Future[None] | None = None

    def record(self) -> asyncio.Future[None]:
        """Begin to put it on record, which is done once; await it before the answer is concluded."""
        if self._recorded is None:
            self._recorded = asyncio.ensure_future(self._record() if self._record else asyncio.sleep(0))
        return self._recorded


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
        """At most `top_k` hits in living documents, none below the threshold.

        Raises: Unavailable, and whatever a search may; the record says so, too.
        """
        if not configuration["datasets"]:
            return Retrieved([], {})
        began = time.perf_counter()
        try:
            found, names = await self._find(cause, configuration, query)
        except Exception as error:
            code = "unreachable" if isinstance(error, Unavailable) else "internal_error"
            reason = f"{type(error).__name__}: {error}"[:1000]
            with suppress(Unavailable):  # it is to be tried again anyway
                await self._record(cause, configuration, query, [], milliseconds(began), code, reason)
            raise
        how = configuration["retrieval"]
        candidates = judged(found, names, how["top_k"], how["score_threshold"])
        kept = {candidate["segment"] for candidate in candidates if candidate["rank"]}
        record = partial(self._record, cause, configuration, query, candidates, milliseconds(began))
        return Retrieved([hit for hit in found if hit.id in kept], names, record)

    async def _find(self, cause: Cause, configuration: Configuration, query: str) -> tuple[list[Hit], dict[str, str]]:
        """All that was found, best first, and the names of the living documents among those that may be needed."""
        tenant, retrieval = cause.metadata.tenant, configuration["retrieval"]
        asked = _Asked(cause, query, cast("Mode", retrieval["mode"]), retrieval["top_k"] * SPARE)
        datasets: defaultdict[str, list[str]] = defaultdict(list)
        for dataset, model in (await self._index.models(tenant, configuration["datasets"])).items():
            datasets[model].append(dataset)
        found = fused(await asyncio.gather(*(self._search(asked, *item) for item in datasets.items())))
        return found, await self._names(tenant, {hit.document for hit in found})

    async def _record(
        self,
        cause: Cause,
        configuration: Configuration,
        query: str,
        hits: list[Candidate],
        duration_ms: float,
        code: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Put it on record, once for an attempt. Raises: Unavailable."""
        id, at, how = cause.call("retrieve"), datetime.now(UTC), configuration["retrieval"]

        def decide(retrieval: Retrieval | None) -> Retrieval:
            return retrieval or Retrieval.make(
                id,
                at,
                query=query,
                mode=how["mode"],
                datasets=configuration["datasets"],
                top_k=how["top_k"],
                score_threshold=how["score_threshold"],
                cause_noun=cause.noun,
                cause_id=cause.id,
                attempt=cause.attempt,
                hits=hits,
                duration_ms=duration_ms,
                code=code,
                reason=reason,
            )

        metadata = cause.metadata.caused(commit_id(cause.metadata.id, f"{id}:made"))
        await self._repository.change(Retrieval, id, metadata, decide, new=True)

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


def judged(
    found: Sequence[Hit], names: Mapping[str, str], top_k: int, score_threshold: float | None
) -> list[Candidate]:
    """What becomes of each hit: its final rank, or why it is dropped; `names` are those of living documents."""
    candidates, kept = [], 0
    for hit in found:
        dropped = None
        if hit.document not in names:
            dropped = "deleted"
        elif hit.score < (score_threshold or 0.0):
            dropped = "below_threshold"
        elif kept == top_k:
            dropped = "beyond_top_k"
        else:
            kept += 1
        candidates.append(
            Candidate(
                segment=hit.id,
                dataset=hit.dataset,
                document=hit.document,
                position=hit.position,
                page=hit.page,
                heading=hit.heading,
                score=hit.score,
                semantic_rank=hit.semantic_rank,
                full_text_rank=hit.full_text_rank,
                rank=None if dropped else kept,
                dropped=dropped,
            )
        )
    return candidates
