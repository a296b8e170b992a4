"""An index of several versions: each dataset is written and searched where its route leads."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
from psycopg import AsyncConnection, AsyncCursor, IsolationLevel, OperationalError, errors
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from adapters.pgvector.build import PgvectorBuild, building
from adapters.pgvector.encoding import HalfvecDumper, encode
from adapters.pgvector.rows import delete, put, remove
from adapters.pgvector.statements import statements
from adapters.pgvector.tables import key, make_version
from handlers.fusion import fused
from handlers.ports import Entry, Hit, Kept, Mode, Moved, Span, Unavailable
from projections.words import words

CANDIDATES = 100
"""Hits that each leg of a search brings to the fusion, so that asking for more does not change the first."""

LONGEST_QUERY = 64
"""Different words of a query that are looked up."""

TRIES = 5
"""How often it is looked up again where a dataset is searched, when it was moved meanwhile."""

REMEMBERED = 10_000
"""Datasets whose version is remembered; every search makes sure that it is still the one."""

CHUNK = 5000
"""Segments that `contents` gives at a time."""

Connection = AsyncConnection[TupleRow]
Cursor = AsyncCursor[TupleRow]


class Version(NamedTuple):
    number: int
    model: str


class PgvectorIndex:
    """An index in a database where `set_up` has been called; use it as a context manager."""

    def __init__(self, url: str, *, connections: int = 8, timeout_s: float = 10.0, exact: int | None = None) -> None:
        """A vector is compared with every one of up to `exact` segments, by default where that is quicker than HNSW."""
        self.url = url
        self._pool = AsyncConnectionPool(
            url,
            kwargs={"autocommit": True, "connect_timeout": 10},
            min_size=1,
            max_size=connections,
            timeout=timeout_s,
            configure=_configure,
            open=False,
        )
        self._timeout = timeout_s
        self._exact = exact
        self._versions: dict[tuple[str, str], Version] = {}
        # Writes hold a connection for long; searches must always find one, and so must the build that writes wait for.
        self._writers = asyncio.Semaphore(max(1, connections // 2))
        self._builders = asyncio.Semaphore(max(1, connections // 4))

    async def __aenter__(self) -> Self:
        await self._pool.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pool.close()

    async def models(self, tenant: str, datasets: Sequence[str]) -> dict[str, str]:
        return {dataset: version.model for dataset, version in (await self._routes(tenant, datasets)).items()}

    async def write(
        self, tenant: str, dataset: str, document: str, entries: Sequence[Entry], *, model: str, version: int
    ) -> None:
        if not entries:
            return
        encoded = await asyncio.to_thread(encode, tenant, dataset, document, entries, version)
        async with self._writers, self._changing(tenant, dataset, document, held=True) as cursor:
            to = await self._route(cursor, tenant, dataset, document, model, encoded.dimension)
            if to:
                await put(cursor, to.number, tenant, dataset, document, encoded, version)

    async def remove(self, tenant: str, dataset: str, document: str, ids: Sequence[str], *, version: int) -> None:
        if ids:
            async with self._writers, self._changing(tenant, dataset, document) as cursor:
                await remove(cursor, tenant, dataset, document, ids, version)

    async def delete(self, tenant: str, dataset: str, document: str | None = None, *, version: int) -> None:
        async with self._writers, self._changing(tenant, dataset, document, held=document is None) as cursor:
            await delete(cursor, tenant, dataset, document)

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
        weight = weight if mode == "hybrid" else None
        parameters: dict[str, object] = {
            "tenant": tenant,
            "words": asked,
            "vector": near,
            "candidates": max(CANDIDATES, top_k),
            "top_k": top_k,
            "mode": mode,
            "weight": weight,
            "exact": self._exact,
        }
        if documents is not None:
            parameters["documents"] = list(documents)

        def statement(number: int) -> bytes:
            return statements(number).search if documents is None else statements(number).search_within

        parts = await self._ask(tenant, datasets, statement, parameters, model=model)
        found = [[Hit(*row) for row in rows] for rows in parts]
        if mode == "semantic" or weight is not None:
            return sorted((hit for hits in found for hit in hits), key=lambda hit: (-hit.score, hit.id))[:top_k]
        return fused(found, top_k)

    async def texts(self, tenant: str, wanted: Sequence[Span]) -> list[Kept]:
        parameters: dict[str, object] = {
            "tenant": tenant,
            "of": [span.dataset for span in wanted],
            "documents": [span.document for span in wanted],
            "first": [span.first for span in wanted],
            "last": [span.last for span in wanted],
        }
        datasets = list({span.dataset for span in wanted})
        parts = await self._ask(tenant, datasets, lambda number: statements(number).texts, parameters)
        kept = [Kept(*row) for rows in parts for row in rows]
        return sorted(kept, key=lambda entry: (entry.dataset, entry.document, entry.position, entry.id))

    async def _ask(
        self,
        tenant: str,
        datasets: Sequence[str],
        statement: Callable[[int], bytes],
        parameters: dict[str, object],
        *,
        model: str | None = None,
    ) -> list[list[TupleRow]]:
        """The rows of each version that some of the datasets are in: one statement a version.

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
            asking = [self._rows(statement(number), parameters, of) for number, of in members.items()]
            found = [rows for rows in await asyncio.gather(*asking) if rows is not None]
            if len(found) == len(members):
                return found
        raise Unavailable(f"The datasets were moved {TRIES} times while they were searched.")

    @asynccontextmanager
    async def build(self, tenant: str | None = None, dataset: str | None = None) -> AsyncIterator[PgvectorBuild]:
        async with building(self.url, self._connection, self._building, tenant, dataset) as build:
            yield build
        self._versions.clear()

    async def contents(self) -> AsyncGenerator[list[tuple[str, str, str]]]:
        async with self._connection() as connection, connection.transaction():
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            # Locked, so that none is dropped meanwhile.
            found = await connection.execute("SELECT number FROM headrace_index.versions FOR KEY SHARE")
            parts = [_CONTENTS.replace("{n}", str(number)) for (number,) in await found.fetchall()]
            if not parts:
                return
            async with connection.cursor("contents") as cursor:
                await cursor.execute(f"{' UNION ALL '.join(parts)} ORDER BY 1, 2, 3".encode())
                while rows := await cursor.fetchmany(CHUNK):
                    yield [(tenant, str(dataset), str(id)) for tenant, dataset, id in rows]

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        """Raises: Unavailable."""
        try:
            async with self._pool.connection() as connection:
                yield connection
        except OperationalError as error:
            raise Unavailable(f"The index does not answer: {error}") from error
        except (errors.UndefinedTable, errors.InvalidSchemaName) as error:
            raise _Dropped(f"A table of the index is gone ({error}): run `headrace index rebuild`.") from error

    @asynccontextmanager
    async def _changing(
        self, tenant: str, dataset: str, document: str | None, *, held: bool = False
    ) -> AsyncIterator[Cursor]:
        """A transaction that changes a document alone, or a dataset alone; `held` up while one of them is moved.

        The locks are taken before anything is read, so that what is read afterwards holds until the commit.
        """
        async with self._connection() as connection, connection.transaction(), connection.cursor() as cursor:
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

    async def _rows(
        self, statement: bytes, parameters: dict[str, object], datasets: list[str]
    ) -> list[TupleRow] | None:
        """What is found in one version; None when not all of the datasets are searched there any more."""
        try:
            async with self._connection() as connection, connection.cursor(binary=True) as cursor:
                async with asyncio.timeout(self._timeout):
                    await cursor.execute(statement, parameters | {"datasets": datasets}, prepare=True)
                    rows = await cursor.fetchall()
        except TimeoutError as error:
            raise Unavailable(f"The index did not answer within {self._timeout} s.") from error
        except _Dropped:
            return None
        if rows[0][0] < len(datasets):
            return None
        return [row[1:] for row in rows if row[1] is not None]

    async def _routes(self, tenant: str, datasets: Sequence[str], *, anew: bool = False) -> dict[str, Version]:
        """The versions of the datasets that have one, as last seen or looked up anew."""
        if anew:
            self._versions = {place: version for place, version in self._versions.items() if place[0] != tenant}
        missing = [id for id in dict.fromkeys(datasets) if (tenant, id) not in self._versions]
        if missing:
            async with self._connection() as connection:
                rows = await (await connection.execute(_ROUTES, [tenant, missing])).fetchall()
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

        Raises: Moved, ValueError when it is to be made and no dimension is known.
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
            number = row[0] if row else await make_version(cursor, model, dimension or 0, live=True)
            await cursor.execute(_FIRST_ROUTE, scope | {"version": number})
            _, number, routed = await _where(cursor, scope)
        assert number is not None
        if routed != model:
            self._remember({(tenant, dataset): Version(number, routed)})
            raise Moved
        return Version(number, model)


class _Dropped(Unavailable):
    """A table is gone that was there a moment ago."""


async def _where(cursor: Cursor, scope: dict[str, str]) -> tuple[bool, int | None, str]:
    """Whether a document was deleted, and the version of its dataset with that version's model."""
    await cursor.execute(_WHERE, scope)
    buried, number, model = await cursor.fetchone() or (False, None, "")
    return buried, number, model


async def _configure(connection: Connection) -> None:
    connection.adapters.register_dumper(np.ndarray, HalfvecDumper)
    await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
    await connection.execute(_SETTINGS)


_ROUTES = """
SELECT dataset::text, version, model FROM headrace_index.routes JOIN headrace_index.versions ON number = version
WHERE tenant = %s AND dataset = ANY (%s::uuid[])
"""

_CONTENTS = """
SELECT tenant, dataset, id FROM headrace_index.segments_{n} JOIN headrace_index.routes USING (tenant, dataset)
WHERE version = {n}
"""

_WHERE = """
SELECT EXISTS (
    SELECT FROM headrace_index.tombstones
    WHERE tenant = %(tenant)s AND dataset = %(dataset)s AND (document = %(document)s OR document IS NULL)
), version, model
FROM (VALUES (1)) AS once LEFT JOIN (
    headrace_index.routes JOIN headrace_index.versions ON number = version
) ON tenant = %(tenant)s AND dataset = %(dataset)s
"""

_NEWEST = """
SELECT max(number) FROM headrace_index.versions
WHERE live AND model = %(model)s AND dimension = coalesce(%(dimension)s::integer, dimension) HAVING count(*) > 0
"""

_FIRST_ROUTE = """
INSERT INTO headrace_index.routes (tenant, dataset, version) VALUES (%(tenant)s, %(dataset)s, %(version)s)
ON CONFLICT DO NOTHING
"""

# One plan for all searches, made without looking at what the tables hold at that moment: only the indexes are to be
# used, whatever is asked for.
_SETTINGS = """
SELECT set_config(name, value, false) FROM (VALUES
    ('hnsw.iterative_scan', 'relaxed_order'), ('hnsw.ef_search', '200'), ('hnsw.max_scan_tuples', '100000'),
    ('hnsw.scan_mem_multiplier', '4'), ('plan_cache_mode', 'force_generic_plan'), ('enable_seqscan', 'off'),
    ('max_parallel_workers_per_gather', '0'), ('jit', 'off')
) AS settings (name, value)
"""
