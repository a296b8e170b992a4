"""Versions as indexes of OpenSearch: both subqueries of a search in one request, and the fusion here."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from typing import TypeVar

from adapters.index.opensearch.client import Access, connected
from adapters.index.opensearch.ranking import SPARE, by_rank, by_weight
from adapters.index.opensearch.segments import PAGE, Document, Found, Prepared, Segments, place, prepared
from adapters.index.opensearch.tables import SCHEMA, prefix_of
from adapters.index.versions.changes import locked_versions
from adapters.index.versions.database import Connection, Cursor, Database
from adapters.index.versions.index import VersionedIndex
from adapters.index.versions.schema import Scope
from adapters.index.versions.store import CANDIDATES, Placed, Question
from handlers.ports.index import Entry, Hit, Span
from handlers.ports.log import Unavailable

T = TypeVar("T")


@asynccontextmanager
async def opensearch_index(
    url: str, access: Access, *, connections: int = 16, timeout_s: float = 10.0
) -> AsyncIterator[VersionedIndex]:
    """The index in a cluster for which `set_up` has been called; `url` is that of PostgreSQL."""
    async with (
        opensearch_store(access) as store,
        VersionedIndex(url, store, connections=connections, timeout_s=timeout_s) as index,
    ):
        yield index


@asynccontextmanager
async def opensearch_store(access: Access) -> AsyncIterator[OpenSearchStore]:
    async with connected(access) as client:
        segments = Segments(client)
        try:
            yield OpenSearchStore(segments)
        finally:
            await segments.close()


class OpenSearchStore:
    schema = SCHEMA
    longest = 16_000

    def __init__(self, segments: Segments) -> None:
        self.segments = segments

    async def configure(self, connection: Connection) -> None:
        """Searches run in OpenSearch: nothing to prepare."""

    async def name(self, cursor: Cursor, number: int) -> str:
        """The name of a version's index, looked up each time: an installation without its rows gets a new prefix."""
        return index_name(await prefix_of(cursor), number)

    def holding(self, number: int) -> str:
        return f"SELECT tenant, dataset FROM headrace_opensearch.held WHERE version = {number}"

    async def make(self, cursor: Cursor, number: int, dimension: int, *, live: bool) -> None:
        await self.segments.make(await self.name(cursor, number), dimension, live=live)

    async def finish(self, cursor: Cursor, number: int) -> None:
        await self.segments.finish(await self.name(cursor, number))

    async def complete(self, connection: Connection, number: int) -> None:
        await self.segments.merge(await self.name(connection.cursor(), number))

    async def drop(self, cursor: Cursor, numbers: Sequence[int]) -> None:
        prefix = await prefix_of(cursor)
        await cursor.execute("SELECT number FROM headrace_opensearch.versions")
        known = {index_name(prefix, number) for (number,) in await cursor.fetchall()}
        await self.segments.drop(name for name in await self.segments.names(f"{prefix}-*") if name not in known)

    async def point(self, cursor: Cursor) -> None:
        """By an alias, which is the prefix."""
        prefix = await prefix_of(cursor)
        await cursor.execute("SELECT DISTINCT version FROM headrace_opensearch.routes")
        await self.segments.alias(prefix, [index_name(prefix, number) for (number,) in await cursor.fetchall()])

    async def counts(self, cursor: Cursor, numbers: Sequence[int]) -> dict[int, int]:
        prefix = await prefix_of(cursor)
        names = {number: index_name(prefix, number) for number in numbers}
        counts = await self.segments.counts(list(names.values()))
        return {number: counts.get(name, 0) for number, name in names.items()}

    async def prepare(self, scope: Scope, entries: Sequence[Entry], sequence: int) -> Prepared:
        return await asyncio.to_thread(prepared, scope, entries, sequence)

    async def put(
        self, cursor: Cursor, number: int, scope: Scope, prepared: Prepared, sequence: int, *, found: bool = False
    ) -> None:
        """OpenSearch itself rejects writes over entries that were written later in the log."""
        name = await self.name(cursor, number)
        await cursor.execute(_HOLD, [number, scope.tenant, scope.dataset])
        await cursor.execute(_REMOVED_LATER, [*scope, list(prepared.actions), sequence])
        newer = {id for (id,) in await cursor.fetchall()}
        await self.segments.put(name, (action for id, action in prepared.actions.items() if id not in newer))
        if found:
            await self.segments.refresh(name)

    async def remove(self, cursor: Cursor, number: int, scope: Scope, ids: Sequence[str], sequence: int) -> None:
        if await _holds(cursor, number, scope):
            name = await self.name(cursor, number)
            await self.segments.remove(name, scope, ids, sequence)
            await self.segments.refresh(name)

    async def delete(self, cursor: Cursor, number: int, scope: Scope) -> None:
        if await _holds(cursor, number, scope):
            await self.segments.clear(await self.name(cursor, number), scope, good=True)
            if scope.document is None:
                await _let_go(cursor, number, scope)

    async def purge(self, cursor: Cursor, number: int, scope: Scope) -> None:
        await self.segments.clear(await self.name(cursor, number), scope)
        await _let_go(cursor, number, scope)

    # --- searches ------------------------------------------------------------------------------------------------

    async def search(
        self, database: Database, number: int, datasets: list[str], question: Question
    ) -> list[Hit] | None:
        ask = partial(self._hits, question, datasets)
        return await self._while_there(database, question.tenant, number, datasets, ask)

    async def read(
        self, database: Database, number: int, datasets: list[str], tenant: str, spans: Sequence[Span]
    ) -> list[Placed] | None:
        ask = partial(self._entries, tenant, spans, datasets)
        return await self._while_there(database, tenant, number, datasets, ask)

    async def contents(self, database: Database) -> AsyncGenerator[list[tuple[str, str, str]]]:
        segments = self.segments
        async with database.transaction() as cursor:
            numbers = await locked_versions(cursor, self)
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
        self,
        database: Database,
        tenant: str,
        number: int,
        datasets: list[str],
        ask: Callable[[str], Awaitable[list[T]]],
    ) -> list[T] | None:
        """The answer of a version, by the name of its index; None when not all datasets are searched there any more."""
        async with database.connection() as connection:
            name = await self.name(connection.cursor(), number)
        there = partial(_there, database, tenant, number, datasets)
        try:
            found = await ask(name)
        except Unavailable:  # such as Gone, when it was dropped after a swap
            if await there():
                raise
            return None
        return found if await there() else None

    async def _entries(self, tenant: str, wanted: Sequence[Span], datasets: list[str], name: str) -> list[Placed]:
        spans = [(place(tenant, span.dataset), *span[1:]) for span in wanted if span.dataset in datasets]
        return [_placed(source) async for source in self.segments.places(name, spans)]

    async def _hits(self, question: Question, datasets: list[str], name: str) -> list[Hit]:
        segments, near, top_k = self.segments, question.vector, question.top_k
        candidates = max(CANDIDATES, top_k + SPARE)
        scope = name, question.tenant, datasets, question.documents
        words, held = question.words, question.held
        semantic, full_text = await segments.subqueries(*scope, near, words, held, candidates)
        if question.mode == "semantic":
            scores = {it.key: it.score for it in semantic}
        elif question.mode == "full_text":
            scores = {it.key: it.score for it in full_text}
        elif question.weight is None:
            scores = by_rank(semantic, full_text)
        else:
            exact = await segments.exact(*scope, words, held) if full_text else []
            found = {it.key for it in full_text}
            full_text = [*full_text, *(it for it in exact if it.key not in found)]
            known = {it.key: it.score for it in semantic}
            if near is not None and (others := [it for it in full_text if it.key not in known]):
                known |= await segments.products(name, question.tenant, others, near)
            scores = by_weight(question.weight, known, full_text, exact)
        return await self._best(name, scores, semantic, full_text, top_k)

    async def _best(
        self, name: str, scores: dict[str, float], semantic: Sequence[Found], full_text: Sequence[Found], top_k: int
    ) -> list[Hit]:
        best = sorted(scores, key=lambda key: (-scores[key], key.rpartition(" ")[2]))
        near = {it.key: rank for rank, it in enumerate(semantic, 1)}
        worded = {it.key: rank for rank, it in enumerate(full_text, 1)}
        found = {it.key: it for it in (*semantic, *full_text)}
        sources: dict[str, Document] = {}
        while best and len(sources) < top_k:
            few, best = best[: top_k - len(sources)], best[top_k - len(sources) :]
            sources |= await self.segments.sources(name, [found[key] for key in few])
        ranked = sorted(sources.items(), key=lambda it: (-scores[it[0]], it[1]["id"]))
        return [Hit(*_placed(source), scores[key], near.get(key), worded.get(key)) for key, source in ranked]


def index_name(prefix: str, number: int) -> str:
    return f"{prefix}-{number}"


def _placed(source: Document) -> Placed:
    optional = {name: source.get(name) for name in ("page", "heading", "parent", "answer")}
    entry = Entry(source["id"], source["position"], source["content"], **optional)
    return Placed(source["place"].partition(" ")[2], source["document"], entry)


async def _places(cursor: Cursor, prefix: str) -> dict[str, list[str]]:
    """The places (see `place`) that are searched in each index."""
    await cursor.execute("SELECT tenant, dataset::text, version FROM headrace_opensearch.routes ORDER BY 1, 2")
    found = defaultdict(list)
    for tenant, dataset, number in await cursor.fetchall():
        found[index_name(prefix, number)].append(place(tenant, dataset))
    return dict(found)


async def _there(database: Database, tenant: str, number: int, datasets: list[str]) -> bool:
    """True when all of these datasets are searched in this version."""
    async with database.connection() as connection:
        [count] = await (await connection.execute(_THERE, [tenant, datasets, number])).fetchone() or [0]
    return bool(count == len(datasets))


async def _holds(cursor: Cursor, number: int, scope: Scope) -> bool:
    await cursor.execute(_HOLDS, [number, scope.tenant, scope.dataset])
    return bool(await cursor.fetchone())


async def _let_go(cursor: Cursor, number: int, scope: Scope) -> None:
    await cursor.execute(_LET_GO, [number, scope.tenant, scope.dataset])


_HOLD = "INSERT INTO headrace_opensearch.held (version, tenant, dataset) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"

_HOLDS = "SELECT 1 FROM headrace_opensearch.held WHERE version = %s AND tenant = %s AND dataset = %s"

_LET_GO = "DELETE FROM headrace_opensearch.held WHERE version = %s AND tenant = %s AND dataset = %s"

_THERE = """
SELECT count(*) FROM headrace_opensearch.routes WHERE tenant = %s AND dataset = ANY (%s::uuid[]) AND version = %s
"""

_REMOVED_LATER = """
SELECT id::text FROM headrace_opensearch.removals
WHERE tenant = %s AND dataset = %s AND document = %s AND id = ANY (%s::uuid[]) AND sequence > %s
"""
