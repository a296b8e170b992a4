"""An index of several versions: each dataset is written and searched where its route leads."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
import numpy.typing as npt
from psycopg import AsyncCursor, IsolationLevel, OperationalError, errors
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from adapters.opensearch.build import OpenSearchBuild, building
from adapters.opensearch.client import Access, connected
from adapters.opensearch.routes import delete, hold, index_name, key, make_version, newer, point, prefix_of, remove
from adapters.opensearch.segments import PAGE, Found, Segments, place
from handlers.fusion import fused
from handlers.ports import Entry, Hit, Kept, Mode, Moved, Span, Unavailable
from projections.words import words

CANDIDATES = 100
"""Hits that each leg of a search brings to the fusion, so that asking for more does not change the first."""

SPARE = 50
"""Hits that may be deleted between being found and being read."""

LONGEST_QUERY = 64
"""Different words of a query that are looked up."""

TRIES = 5
"""How often it is looked up again where a dataset is searched, when it was moved meanwhile."""

REMEMBERED = 10_000
"""Datasets whose version is remembered; every search makes sure that it is still the one."""

RRF = 60

Cursor = AsyncCursor[TupleRow]
T = TypeVar("T")


class Version(NamedTuple):
    number: int
    model: str


class OpenSearchIndex:
    """An index where `set_up` has been called; use it as a context manager."""

    def __init__(self, url: str, access: Access, *, connections: int = 16, timeout_s: float = 10.0) -> None:
        """`url` is that of PostgreSQL."""
        self.url = url
        self._access = access
        self._pool = AsyncConnectionPool(
            url,
            kwargs={"autocommit": True, "connect_timeout": 10},
            min_size=1,
            max_size=connections,
            timeout=timeout_s,
            configure=_configure,
            open=False,
        )
        self._open = AsyncExitStack()
        self._versions: dict[tuple[str, str], Version] = {}
        # Writes hold a connection for long; searches must always find one, and so must the build that writes wait for.
        self._writers = asyncio.Semaphore(max(1, connections // 2))
        self._builders = asyncio.Semaphore(max(1, connections // 4))

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opening:
            await self._pool.open()
            opening.push_async_callback(self._pool.close)
            self._segments = Segments(await opening.enter_async_context(connected(self._access)))
            opening.push_async_callback(self._segments.close)
            async with self._transaction() as cursor:
                self._prefix = await prefix_of(cursor)
            self._open = opening.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    async def models(self, tenant: str, datasets: Sequence[str]) -> dict[str, str]:
        return {dataset: version.model for dataset, version in (await self._routes(tenant, datasets)).items()}

    async def write(
        self, tenant: str, dataset: str, document: str, entries: Sequence[Entry], *, model: str, version: int
    ) -> None:
        if not entries:
            return
        kept = {entry.id: entry for entry in entries}
        async with self._writers, self._changing(tenant, dataset, document, held=True) as cursor:
            to = await self._route(cursor, tenant, dataset, document, model, _dimension(entries))
            if to is None:
                # A write that nobody waited for any more may have come in after the deletion: it goes, as this does.
                await delete(cursor, self._segments, self._prefix, tenant, dataset, document)
                return
            name = index_name(self._prefix, to.number)
            await hold(cursor, to.number, tenant, dataset)
            gone = await newer(cursor, tenant, dataset, document, list(kept), version)
            left = [entry for id, entry in kept.items() if id not in gone]
            await self._segments.put(name, tenant, dataset, document, left, version)
            await self._segments.refresh(name)

    async def remove(self, tenant: str, dataset: str, document: str, ids: Sequence[str], *, version: int) -> None:
        if ids:
            async with self._writers, self._changing(tenant, dataset, document) as cursor:
                await remove(cursor, self._segments, self._prefix, tenant, dataset, document, list(ids), version)

    async def delete(self, tenant: str, dataset: str, document: str | None = None, *, version: int) -> None:
        async with self._writers, self._changing(tenant, dataset, document, held=document is None) as cursor:
            await delete(cursor, self._segments, self._prefix, tenant, dataset, document)

    async def search(
        self,
        tenant: str,
        datasets: Sequence[str],
        query: str,
        vector: npt.NDArray[np.float32] | None,
        *,
        model: str,
        mode: Mode,
        top_k: int,
        weight: float | None = None,
        documents: Sequence[str] | None = None,
    ) -> list[Hit]:
        asked = [] if mode == "semantic" else list(words(query))[:LONGEST_QUERY]
        near = None if mode == "full_text" else vector
        if top_k < 1 or not datasets or (near is None and not asked) or (documents is not None and not documents):
            return []
        share = weight if mode == "hybrid" else None

        async def search(number: int, members: list[str]) -> list[Hit]:
            name, candidates = index_name(self._prefix, number), max(CANDIDATES, top_k + SPARE)
            semantic, full_text = await self._segments.legs(name, tenant, members, documents, near, asked, candidates)
            if mode == "semantic":
                scores = {it.key: it.score for it in semantic}
            elif mode == "full_text":
                scores = {it.key: it.score for it in full_text}
            elif share is None:
                scores = _by_rank(semantic, full_text)
            else:
                known = {it.key: it.score for it in semantic}
                if near is not None and (others := [it for it in full_text if it.key not in known]):
                    known |= await self._segments.products(name, tenant, others, near)
                scores = _by_weight(share, known, full_text)
            return await self._hits(name, scores, semantic, full_text, top_k)

        found = await self._ask(tenant, datasets, search, model=model)
        if mode == "semantic" or share is not None:
            return sorted((hit for hits in found for hit in hits), key=lambda hit: (-hit.score, hit.id))[:top_k]
        return fused(found, top_k)

    async def texts(self, tenant: str, wanted: Sequence[Span]) -> list[Kept]:
        async def read(number: int, members: list[str]) -> list[Kept]:
            spans = [(place(tenant, it.dataset), *it[1:]) for it in dict.fromkeys(wanted) if it.dataset in members]
            read = self._segments.places(index_name(self._prefix, number), spans)
            return [_kept(source) async for source in read]

        found = await self._ask(tenant, list({span.dataset for span in wanted}), read)
        entries = (entry for part in found for entry in part)
        return sorted(entries, key=lambda entry: (entry.dataset, entry.document, entry.position, entry.id))

    @asynccontextmanager
    async def build(self, tenant: str | None = None, dataset: str | None = None) -> AsyncIterator[OpenSearchBuild]:
        async with building(
            self.url, self._segments, self._prefix, self._transaction, self._building, tenant, dataset
        ) as build:
            yield build
        self._versions.clear()

    async def contents(self) -> AsyncGenerator[list[tuple[str, str, str]]]:
        async with self._transaction() as cursor:
            # Locked, so that none is dropped meanwhile.
            await cursor.execute("SELECT number FROM headrace_opensearch.versions FOR KEY SHARE")
            names = [index_name(self._prefix, number) for (number,) in await cursor.fetchall()]
            if not names:
                return
            moment, routed = None, await _places(cursor, self._prefix)
            try:
                while moment is None:
                    moment = await self._segments.moment(names)
                    if routed != (again := await _places(cursor, self._prefix)):
                        await self._segments.forget(moment)
                        moment, routed = None, again
                chunk: list[tuple[str, str, str]] = []
                async with aclosing(self._segments.keys(moment, routed)) as keys:
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
                        await self._segments.forget(moment)

    async def _hits(
        self, name: str, scores: dict[str, float], semantic: Sequence[Found], full_text: Sequence[Found], top_k: int
    ) -> list[Hit]:
        best = sorted(scores, key=lambda key: (-scores[key], key.rpartition(" ")[2]))
        near = {it.key: rank for rank, it in enumerate(semantic, 1)}
        worded = {it.key: rank for rank, it in enumerate(full_text, 1)}
        found = {it.key: it for it in (*semantic, *full_text)}
        sources: dict[str, dict[str, Any]] = {}
        while best and len(sources) < top_k:
            few, best = best[: top_k - len(sources)], best[top_k - len(sources) :]
            sources |= await self._segments.sources(name, [found[key] for key in few])
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

    async def _ask(
        self,
        tenant: str,
        datasets: Sequence[str],
        ask: Callable[[int, list[str]], Awaitable[T]],
        *,
        model: str | None = None,
    ) -> list[T]:
        """The answer of each version that some of the datasets are in, which they are in afterwards still.

        Raises: Moved when one is not searched with the `model`, Unavailable.
        """
        for attempt in range(TRIES):
            routes = await self._routes(tenant, datasets, anew=attempt > 0)
            if model is not None and any(version.model != model for version in routes.values()):
                if attempt:
                    raise Moved
                continue
            members = defaultdict(list)
            for dataset, version in routes.items():
                members[version.number].append(dataset)
            try:
                answers = await asyncio.gather(*(ask(number, of) for number, of in members.items()))
            except Unavailable:  # as when it was dropped meanwhile, after a swap
                if await self._routes(tenant, datasets, anew=True) == routes:
                    raise
                continue
            if await self._routes(tenant, datasets, anew=True) == routes:
                return answers
        raise Unavailable(f"The datasets were moved {TRIES} times while they were searched.")

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Cursor]:
        """Raises: Unavailable."""
        try:
            async with self._pool.connection() as connection, connection.transaction(), connection.cursor() as cursor:
                yield cursor
        except OperationalError as error:
            raise Unavailable(f"PostgreSQL does not answer: {error}") from error
        except (errors.UndefinedTable, errors.InvalidSchemaName) as error:
            raise Unavailable(f"A table of the index is gone ({error}): run `headrace index rebuild`.") from error

    @asynccontextmanager
    async def _changing(
        self, tenant: str, dataset: str, document: str | None, *, held: bool = False
    ) -> AsyncIterator[Cursor]:
        """A transaction that changes a document alone, or a dataset alone; `held` up while one of them is moved.

        The locks are taken before anything is read, so that what is read afterwards holds until the commit.
        """
        async with self._transaction() as cursor:
            if held:
                keys = [key("write"), key("write", tenant, dataset)]
                await cursor.execute("SELECT pg_advisory_xact_lock_shared(%s), pg_advisory_xact_lock_shared(%s)", keys)
            if document is None:
                await cursor.execute("SELECT pg_advisory_xact_lock(%s)", [key(tenant, dataset)])
            else:
                keys = [key(tenant, dataset), key(tenant, dataset, document)]
                await cursor.execute("SELECT pg_advisory_xact_lock_shared(%s), pg_advisory_xact_lock(%s)", keys)
            yield cursor

    @asynccontextmanager
    async def _building(self, tenant: str, dataset: str, document: str | None) -> AsyncIterator[Cursor]:
        async with self._builders, self._changing(tenant, dataset, document) as cursor:
            yield cursor

    async def _routes(self, tenant: str, datasets: Sequence[str], *, anew: bool = False) -> dict[str, Version]:
        """The versions of the datasets that have one, as last seen or looked up anew."""
        if anew:
            for dataset in datasets:
                self._versions.pop((tenant, dataset), None)
        missing = [id for id in dict.fromkeys(datasets) if (tenant, id) not in self._versions]
        if missing:
            async with self._transaction() as cursor:
                await cursor.execute(_ROUTES, [tenant, missing])
                rows = await cursor.fetchall()
            self._remember({(tenant, dataset): Version(number, model) for dataset, number, model in rows})
        found = {id: self._versions.get((tenant, id)) for id in datasets}
        return {id: version for id, version in found.items() if version}

    def _remember(self, versions: dict[tuple[str, str], Version]) -> None:
        if len(self._versions) + len(versions) > REMEMBERED:
            self._versions.clear()
        self._versions |= versions

    async def _route(
        self, cursor: Cursor, tenant: str, dataset: str, document: str, model: str, dimension: int | None
    ) -> Version | None:
        """The version that a document is written to, None when it was deleted; the first write chooses it.

        Raises: Moved.
        """
        scope = {"tenant": tenant, "dataset": dataset, "document": document, "model": model}
        buried, number, routed = await _where(cursor, scope)
        if buried:
            return None
        if number is None:
            await cursor.execute("SELECT pg_advisory_xact_lock(%s)", [key("versions")])
            await cursor.execute(_NEWEST, {"model": model, "dimension": dimension})
            row = await cursor.fetchone()
            if row is None and dimension is None:
                raise ValueError("The first that is written for a model must hold a vector.")
            new = row[0] if row else await self._make(cursor, model, dimension or 0)
            await cursor.execute(_FIRST_ROUTE, scope | {"version": new})
            if row is None:
                await point(cursor, self._segments, self._prefix)
            _, number, routed = await _where(cursor, scope)
        assert number is not None
        if routed != model:
            self._remember({(tenant, dataset): Version(number, routed)})
            raise Moved
        return Version(number, model)

    async def _make(self, cursor: Cursor, model: str, dimension: int) -> int:
        return await make_version(cursor, self._segments, self._prefix, model, dimension, live=True)


def _dimension(entries: Sequence[Entry]) -> int | None:
    return next((len(entry.vector) for entry in entries if entry.vector is not None), None)


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


async def _where(cursor: Cursor, scope: dict[str, str]) -> tuple[bool, int | None, str]:
    """Whether a document was deleted, and the version of its dataset with that version's model."""
    await cursor.execute(_WHERE, scope)
    buried, number, model = await cursor.fetchone() or (False, None, "")
    return buried, number, model


async def _configure(connection: Any) -> None:
    await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)


_ROUTES = """
SELECT dataset::text, version, model
FROM headrace_opensearch.routes JOIN headrace_opensearch.versions ON number = version
WHERE tenant = %s AND dataset = ANY (%s::uuid[])
"""

_WHERE = """
SELECT EXISTS (
    SELECT FROM headrace_opensearch.tombstones
    WHERE tenant = %(tenant)s AND dataset = %(dataset)s AND (document = %(document)s OR document IS NULL)
), version, model
FROM (VALUES (1)) AS once LEFT JOIN (
    headrace_opensearch.routes JOIN headrace_opensearch.versions ON number = version
) ON tenant = %(tenant)s AND dataset = %(dataset)s
"""

_NEWEST = """
SELECT max(number) FROM headrace_opensearch.versions
WHERE live AND model = %(model)s AND dimension = coalesce(%(dimension)s::integer, dimension) HAVING count(*) > 0
"""

_FIRST_ROUTE = """
INSERT INTO headrace_opensearch.routes (tenant, dataset, version) VALUES (%(tenant)s, %(dataset)s, %(version)s)
ON CONFLICT DO NOTHING
"""
