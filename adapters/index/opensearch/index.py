"""The index in OpenSearch: both legs of a search in one request, and the fusion here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from functools import partial
from typing import Any, TypeVar

from adapters.index.opensearch.client import Access
from adapters.index.opensearch.segments import PAGE, Found, place
from adapters.index.opensearch.store import OpenSearchStore, index_name, stored
from adapters.index.opensearch.tables import prefix_of
from adapters.index.versions import CANDIDATES, Cursor, Question, VersionedIndex, locked_versions
from handlers.ports.index import Hit, Kept, Span
from handlers.ports.log import Unavailable

SPARE = 50
"""Hits that may be deleted between being found and being read."""

RRF = 60

T = TypeVar("T")


class OpenSearchIndex(VersionedIndex[OpenSearchStore]):
    """An index where `set_up` has been called; use it as a context manager."""

    def __init__(self, url: str, access: Access, *, connections: int = 16, timeout_s: float = 10.0) -> None:
        """`url` is that of PostgreSQL."""
        super().__init__(url, partial(stored, access), connections=connections, timeout_s=timeout_s)

    async def _find(self, question: Question, number: int, datasets: list[str]) -> list[Hit] | None:
        return await self._while_there(question.tenant, number, datasets, partial(self._hits, question, datasets))

    async def _read(self, tenant: str, wanted: Sequence[Span], number: int, datasets: list[str]) -> list[Kept] | None:
        return await self._while_there(tenant, number, datasets, partial(self._entries, tenant, wanted, datasets))

    async def contents(self) -> AsyncGenerator[list[tuple[str, str, str]]]:
        segments = self._store.segments
        async with self._transaction() as cursor:
            numbers = await locked_versions(cursor, self._store)
            if not numbers:
                return
            prefix = await prefix_of(cursor)
            moment, routed = None, await _places(cursor, prefix)
            try:
                while moment is None:
                    moment = await segments.moment([index_name(prefix, number) for number in numbers])
                    if routed != (again := await _places(cursor, prefix)):
                        await segments.forget(moment)
                        moment, routed = None, again
                chunk: list[tuple[str, str, str]] = []
                async with aclosing(segments.keys(moment, routed)) as keys:
                    async for found in keys:
                        tenant, dataset, id = found.split(" ")
                        chunk.append((tenant, dataset, id))
                        if len(chunk) == PAGE:
                            yield chunk
                            chunk = []
                if chunk:
                    yield chunk
            finally:
                if moment is not None:
                    with suppress(Unavailable):
                        await segments.forget(moment)

    async def _while_there(
        self, tenant: str, number: int, datasets: list[str], ask: Callable[[str], Awaitable[list[T]]]
    ) -> list[T] | None:
        """The answer of a version, by the name of its index; None when not all of the datasets are searched there
        still."""
        async with self._connection() as connection:
            name = await self._store.name(connection.cursor(), number)
        try:
            found = await ask(name)
        except Unavailable:  # as when it was dropped meanwhile, after a swap
            if await self._there(tenant, number, datasets):
                raise
            return None
        return found if await self._there(tenant, number, datasets) else None

    async def _there(self, tenant: str, number: int, datasets: list[str]) -> bool:
        routes = await self._routes(tenant, datasets, anew=True)
        return len(routes) == len(datasets) and all(version.number == number for version in routes.values())

    async def _entries(self, tenant: str, wanted: Sequence[Span], datasets: list[str], name: str) -> list[Kept]:
        spans = [(place(tenant, it.dataset), *it[1:]) for it in dict.fromkeys(wanted) if it.dataset in datasets]
        return [_kept(source) async for source in self._store.segments.places(name, spans)]

    async def _hits(self, question: Question, datasets: list[str], name: str) -> list[Hit]:
        segments, near, top_k = self._store.segments, question.vector, question.top_k
        candidates = max(CANDIDATES, top_k + SPARE)
        semantic, full_text = await segments.legs(
            name, question.tenant, datasets, question.documents, near, question.words, candidates
        )
        if question.mode == "semantic":
            scores = {it.key: it.score for it in semantic}
        elif question.mode == "full_text":
            scores = {it.key: it.score for it in full_text}
        elif question.weight is None:
            scores = _by_rank(semantic, full_text)
        else:
            known = {it.key: it.score for it in semantic}
            if near is not None and (others := [it for it in full_text if it.key not in known]):
                known |= await segments.products(name, question.tenant, others, near)
            scores = _by_weight(question.weight, known, full_text)
        return await self._best(name, scores, semantic, full_text, top_k)

    async def _best(
        self, name: str, scores: dict[str, float], semantic: Sequence[Found], full_text: Sequence[Found], top_k: int
    ) -> list[Hit]:
        best = sorted(scores, key=lambda key: (-scores[key], key.rpartition(" ")[2]))
        near = {it.key: rank for rank, it in enumerate(semantic, 1)}
        worded = {it.key: rank for rank, it in enumerate(full_text, 1)}
        found = {it.key: it for it in (*semantic, *full_text)}
        sources: dict[str, dict[str, Any]] = {}
        while best and len(sources) < top_k:
            few, best = best[: top_k - len(sources)], best[top_k - len(sources) :]
            sources |= await self._store.segments.sources(name, [found[key] for key in few])
        return [
            Hit(
                source["id"],
                source["place"].partition(" ")[2],
                source["document"],
                source["position"],
                source["content"],
                source.get("page"),
                source.get("heading"),
                scores[key],
                near.get(key),
                worded.get(key),
                source.get("parent"),
                source.get("answer"),
            )
            for key, source in sorted(sources.items(), key=lambda it: (-scores[it[0]], it[1]["id"]))
        ]


def _by_rank(*legs: Sequence[Found]) -> dict[str, float]:
    """Reciprocal rank fusion."""
    scores: dict[str, float] = defaultdict(float)
    for leg in legs:
        for rank, it in enumerate(leg, 1):
            scores[it.key] += 1 / (RRF + rank)
    return scores


def _by_weight(share: float, products: dict[str, float], full_text: Sequence[Found]) -> dict[str, float]:
    """The weighted sum of inner products and of BM25, as a share of the best."""
    best = full_text[0].score if full_text else 1.0
    worded = {it.key: it.score / best for it in full_text}
    return {
        key: share * products.get(key, 0.0) + (1 - share) * worded.get(key, 0.0) for key in products.keys() | worded
    }


def _kept(source: dict[str, Any]) -> Kept:
    return Kept(
        source["id"],
        source["place"].partition(" ")[2],
        source["document"],
        source["position"],
        source["content"],
        source.get("page"),
        source.get("heading"),
        source.get("answer"),
    )


async def _places(cursor: Cursor, prefix: str) -> dict[str, list[str]]:
    """What is searched in each index."""
    await cursor.execute("SELECT tenant, dataset::text, version FROM headrace_opensearch.routes ORDER BY 1, 2")
    found = defaultdict(list)
    for tenant, dataset, number in await cursor.fetchall():
        found[index_name(prefix, number)].append(place(tenant, dataset))
    return dict(found)
