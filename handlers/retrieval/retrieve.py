"""Retrieves passages for a question, and records the hits and what was made of them."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import zip_longest
from typing import Any, NamedTuple, cast

from domain.chat.app import Configuration, MetadataFilter, ModelSettings, RetrievalSettings
from domain.knowledge.dataset import Dataset
from domain.knowledge.document import Document
from domain.knowledge.retrieval import Candidate, Fault, Retrieval
from domain.log import commit_id
from handlers.cause import Cause
from handlers.models.embeddings import Embedding, Embeddings
from handlers.models.model_calls import milliseconds, shielded
from handlers.ports.documents import Documents, Vectors
from handlers.ports.index import Hit, Index, Mode
from handlers.ports.log import TooLarge, Unavailable
from handlers.ports.models import ModelError
from handlers.repository import Repository
from handlers.retrieval.extract_filter import ExtractFilter, Type
from handlers.retrieval.fusion import fused
from handlers.retrieval.rerank import Rerank
from handlers.retrieval.select import Selection, choose, distinct, passage, rerank, select

CALLS = ("embed", "filter", "rerank")
"""The steps of a search that call a model."""

SPARE = 2
"""Factor by which more hits are searched than given, since some may be dropped."""

KNOWN = 0.5
"""Minimum share of a query's tokens that the embedding model must know for its vector to count in a hybrid search."""

MOST = 400
"""Maximum number of hits that are searched, where many of them lead to the same text."""


class Retrieved:
    """Passages for the model, best first, and the names of their documents by id."""

    def __init__(
        self, hits: list[Hit], names: Mapping[str, str], record: Callable[[], Coroutine[Any, Any, None]] | None = None
    ) -> None:
        self.hits = hits
        self.names = names
        self._record = record
        self._recorded: asyncio.Future[None] | None = None

    def join(self, hits: Sequence[Hit], names: Mapping[str, str]) -> None:
        """Add passages of files, best first: they and those of datasets take turns."""
        pairs = zip_longest(hits, self.hits)
        self.hits = [hit for pair in pairs for hit in pair if hit]
        self.names = {**self.names, **names}

    def record(self) -> asyncio.Future[None]:
        """Start to record the retrieval, once; await the result before the answer is concluded."""
        if self._recorded is None:
            self._recorded = asyncio.ensure_future(self._record() if self._record else asyncio.sleep(0))
        return self._recorded


class Prepared(NamedTuple):
    """The datasets that are searched with one model, by its full name; the model itself is None for a search by words
    alone."""

    model: str
    datasets: list[str]
    embedding: Embedding | None


Preparation = asyncio.Future[list[Prepared]]


class Question(NamedTuple):
    """A query of datasets; `id` is the retrieval's, `model` the app's, which may extract a filter."""

    id: str
    cause: Cause
    query: str
    datasets: list[str]
    how: RetrievalSettings
    model: ModelSettings | None = None
    preparation: Preparation | None = None


class _Subquery(NamedTuple):
    """The datasets that are searched with one model, and the query's vector."""

    model: str
    datasets: list[str]
    vector: Vectors | None


@dataclass(slots=True)
class _Found:
    candidates: list[Candidate] = field(default_factory=list)
    passages: list[Hit] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    filter: MetadataFilter | None = None
    documents: list[str] | None = None
    faults: list[Fault] = field(default_factory=list)
    calls: list[Coroutine[Any, Any, None]] = field(default_factory=list)
    """They record the ends of calls."""
    ended_at: datetime = field(init=False)
    duration_ms: float = field(init=False)

    def gone_without(self, step: str, code: str | None) -> None:
        if code:
            self.faults.append(Fault(step=step, code=code))


@dataclass(frozen=True, slots=True)
class Retrieve:
    repository: Repository
    models: Embeddings
    index: Index
    documents: Documents
    reranks: Rerank
    extract: ExtractFilter

    def prepare(self, tenant: str, configuration: Configuration, query: str) -> Preparation:
        """Start what comes before the first call for a question; cancel it where there is no use for it."""
        datasets, how = configuration["datasets"], configuration["retrieval"]
        task = asyncio.ensure_future(self._prepare(tenant, datasets, how, query))
        task.add_done_callback(lambda it: it.cancelled() or it.exception())  # who awaits it hears of the exception
        return task

    async def __call__(
        self, cause: Cause, configuration: Configuration, query: str, preparation: Preparation | None = None
    ) -> Retrieved:
        """Return at most `top_k` passages of documents that are not deleted, none below the threshold.

        `preparation` is that of the same question, where it was started earlier.
        Raises: Unavailable, and whatever a search raises, after recording it.
        """
        datasets, how = configuration["datasets"], configuration["retrieval"]
        if not datasets:
            return Retrieved([], {})
        id, model = cause.call("retrieve"), configuration["model"]
        return await self.find(Question(id, cause, query, datasets, how, model, preparation))

    async def take_over(self, cause: Cause) -> Cause:
        """The cause with the calls that earlier attempts completed; those that they left open end as `lost`."""
        return await self.models.calls.take_over(cause, *CALLS)

    async def find(self, question: Question) -> Retrieved:
        """As `__call__`, for any question."""
        began = time.perf_counter()
        found = _Found()
        try:
            try:
                await self._find(question, found)
            finally:
                found.ended_at, found.duration_ms = datetime.now(UTC), milliseconds(began)
        except asyncio.CancelledError:
            await shielded(asyncio.gather(*found.calls))  # an open call would stay open
            raise
        except Exception as error:
            code, reason = _error(error)
            with suppress(Unavailable):  # it is retried anyway
                await self._record_all(question, found, code, reason)
            raise
        return Retrieved(found.passages, found.names, partial(self._record_all, question, found))

    async def _find(self, question: Question, found: _Found) -> None:
        tenant, how = question.cause.metadata.tenant, question.how
        prepared = await (question.preparation or self._prepare(tenant, question.datasets, how, question.query))
        ends = await asyncio.gather(
            self._narrow(question, found),
            *(self._subquery(question, each, found) for each in prepared),
            return_exceptions=True,
        )
        subqueries = [end for end in ends if isinstance(end, _Subquery)]
        if errors := [end for end in ends if isinstance(end, BaseException)]:
            raise errors[0]
        ordered, documents = await self._selected(question, found, subqueries)
        if how["rerank"]:
            hits = [selection.hit for selection in ordered if not selection.dropped]
            reranked = await self.reranks(question.cause, how["rerank"], question.query, hits)
            found.gone_without("rerank", reranked.code)
            if not reranked.code:
                ordered = rerank(ordered, reranked.hits)
        choose(ordered, how)
        found.candidates = [selection.candidate for selection in ordered]
        found.names = {id: document.name for id, document in documents.items() if not document.deleted}
        found.passages = await self._passages(tenant, ordered, documents)

    async def _narrow(self, question: Question, found: _Found) -> None:
        """Determine which documents to search, if not all."""
        tenant, how = question.cause.metadata.tenant, question.how["metadata_filter"]
        if how["mode"] == "disabled":
            return
        found.filter = how if how["mode"] == "manual" else await self._extracted(question, found)
        if found.filter:
            found.documents = await self.documents.matching(
                tenant,
                question.datasets,
                found.filter["conditions"],
                logical_operator=found.filter["logical_operator"],
            )

    async def _extracted(self, question: Question, found: _Found) -> MetadataFilter | None:
        """The filter that the app's model extracts from the question, over fields that all datasets define alike."""
        fields: dict[str, str] = {}
        for dataset in await self._datasets(question.cause.metadata.tenant, question.datasets):
            types = {name: known["type"] for name, known in dataset.metadata_fields.items()}
            fields = {name: type for name, type in {**types, **fields}.items() if types.get(name, type) == type}
        assert question.model is not None
        extracted = await self.extract(question.cause, question.model, cast("dict[str, Type]", fields), question.query)
        found.gone_without("filter", extracted.code)
        return extracted.filter

    async def _prepare(
        self, tenant: str, datasets: Sequence[str], how: RetrievalSettings, query: str
    ) -> list[Prepared]:
        members: defaultdict[str, list[str]] = defaultdict(list)
        for dataset, model in (await self.index.models(tenant, datasets)).items():
            members[model].append(dataset)

        async def of_model(model: str, ids: Sequence[str]) -> Prepared:
            living, embedding = await asyncio.gather(self._datasets(tenant, ids), self._embedding(model, how, query))
            return Prepared(model, [dataset.id for dataset in living], embedding)

        return await asyncio.gather(*(of_model(*item) for item in members.items()))

    async def _embedding(self, model: str, how: RetrievalSettings, query: str) -> Embedding | None:
        """The model of this name. A hybrid search has none, where the model knows too little of the query."""
        if how["mode"] == "full_text":
            return None
        embedding = await self.models.get(model)
        return embedding if how["mode"] == "semantic" or embedding.knows(query) >= KNOWN else None

    async def _subquery(self, question: Question, prepared: Prepared, found: _Found) -> _Subquery:
        model, datasets, embedding = prepared
        if embedding is None:
            return _Subquery(model, datasets, None)
        step = "embed" if model == self.models.default else f"embed:{model}"
        inputs = [embedding.input(question.query)]
        vectors, recorded = await embedding.embed(question.cause, step, inputs, urgent=True)
        found.calls.append(recorded)
        return _Subquery(model, datasets, vectors[0])

    async def _selected(
        self, question: Question, found: _Found, subqueries: Sequence[_Subquery]
    ) -> tuple[list[Selection], dict[str, Document]]:
        """The selections, of more and more hits until there are enough, and their documents by id."""
        how = question.how
        enough = how["rerank"]["top_n"] if how["rerank"] else how["top_k"]
        top_k = enough if how["rerank"] else enough * SPARE
        while True:
            parts = await asyncio.gather(
                *(self._search(question, subquery, found.documents, top_k) for subquery in subqueries)
            )
            hits = fused(parts)
            ids = list({hit.document: None for hit in hits})
            documents = await self.repository.all(Document, question.cause.metadata.tenant, ids)
            selections = select(hits, documents)
            if distinct(selections) >= enough or max(map(len, parts), default=0) < top_k or top_k >= MOST:
                return selections, documents
            top_k = min(4 * top_k, MOST)

    async def _search(
        self, question: Question, subquery: _Subquery, documents: list[str] | None, top_k: int
    ) -> list[Hit]:
        how = question.how
        return await self.index.search(
            question.cause.metadata.tenant,
            subquery.datasets,
            question.query,
            subquery.vector,
            model=subquery.model,
            mode=cast("Mode", how["mode"]),
            top_k=top_k,
            weight=how["weight"],
            documents=documents,
        )

    async def _passages(self, tenant: str, ordered: Sequence[Selection], documents: dict[str, Document]) -> list[Hit]:
        chosen = sorted((it for it in ordered if it.rank), key=lambda it: it.rank or 0)
        spans = [span for selection in chosen if (span := selection.wanted)]
        texts = dict(zip(spans, await self.index.texts(tenant, spans), strict=True)) if spans else {}
        return [passage(it, documents[it.hit.document], texts[it.wanted] if it.wanted else []) for it in chosen]

    async def _datasets(self, tenant: str, ids: Sequence[str]) -> list[Dataset]:
        """The datasets that are not deleted."""
        datasets = await self.repository.all(Dataset, tenant, ids)
        return [dataset for dataset in datasets.values() if not dataset.deleted]

    async def _record_all(
        self, question: Question, found: _Found, code: str | None = None, reason: str | None = None
    ) -> None:
        """Record the retrieval, and the ends of its calls. Raises: TooLarge, Unavailable."""
        await asyncio.gather(self._record(question, found, code, reason), *found.calls)

    async def _record(
        self, question: Question, found: _Found, code: str | None = None, reason: str | None = None
    ) -> None:
        """Record the retrieval at the time of its end, once per attempt; without its hits, where they do not fit.

        Raises: TooLarge, Unavailable.
        """
        id, cause = question.id, question.cause

        def decide(retrieval: Retrieval | None) -> Retrieval:
            return retrieval or Retrieval.begin(
                Retrieval.Made,
                id,
                found.ended_at,
                query=question.query,
                datasets=question.datasets,
                retrieval=question.how,
                filter=found.filter,
                documents=None if found.documents is None else len(found.documents),
                faults=found.faults,
                cause_noun=cause.noun,
                cause_id=cause.id,
                attempt=cause.attempt,
                hits=found.candidates,
                duration_ms=found.duration_ms,
                code=code,
                reason=reason,
            )

        metadata = cause.metadata.caused(commit_id(cause.metadata.id, f"{id}:made"))
        try:
            await self.repository.change(Retrieval, id, metadata, decide, new=True)
        except TooLarge as error:
            if not found.candidates:
                raise
            found.candidates = []
            reason = f"The hits cannot be recorded with their headings. {error}"
            await self._record(question, found, "too_large", reason)


def _error(error: Exception) -> tuple[str, str]:
    """The code and the reason of an error, as they are recorded."""
    if isinstance(error, ModelError):
        return error.code, error.reason[:1000]
    code = "unreachable" if isinstance(error, Unavailable) else "internal_error"
    return code, f"{type(error).__name__}: {error}"[:1000]
