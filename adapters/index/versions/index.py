"""An index of several versions: each dataset is written and searched where its route leads."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Generic, NamedTuple, Self, TypeVar

import numpy as np
import numpy.typing as npt
from psycopg import IsolationLevel, errors
from psycopg_pool import AsyncConnectionPool

from adapters.index.versions.build import VersionedBuild, building
from adapters.index.versions.changes import delete, lock_versions, make_version, remove
from adapters.index.versions.connection import Connection, Cursor, answering
from adapters.index.versions.store import Gone, S, Scope, Stored
from handlers.ports.index import Entry, Hit, Kept, Mode, Moved, Span
from handlers.ports.log import Unavailable
from handlers.retrieval.fusion import fused
from projections.values.words import words

CANDIDATES = 100
"""Hits that each leg of a search brings to the fusion at least, so that asking for more does not change the first."""

LONGEST_QUERY = 64
"""Different words of a query that are looked up."""

TRIES = 5
"""How often it is looked up again where a dataset is searched, when it was moved meanwhile."""

REMEMBERED = 10_000
"""Datasets whose version is remembered; every search makes sure that it is still the one."""

T = TypeVar("T")


class Version(NamedTuple):
    number: int
    model: str


@dataclass(frozen=True, slots=True)
class Question:
    """What is looked for: words, or what is near a vector, or both; never nothing. A `weight` is of mode `hybrid`."""

    tenant: str
    words: list[str]
    vector: npt.NDArray[np.float32] | None
    mode: Mode
    weight: float | None
    documents: Sequence[str] | None
    top_k: int


class VersionedIndex(ABC, Generic[S]):
    """An index in a database that was set up for it; use it as a context manager."""

    def __init__(self, url: str, stored: Stored[S], *, connections: int, timeout_s: float) -> None:
        self.url = url
        self._stored = stored
        self._pool = AsyncConnectionPool(
            url,
            kwargs={"autocommit": True, "connect_timeout": 10},
            min_size=1,
            max_size=connections,
            timeout=timeout_s,
            configure=self._configure,
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
            self._store = await opening.enter_async_context(self._stored())
            self._schema = self._store.schema
            self._open = opening.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    async def _configure(self, connection: Connection) -> None:
        await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)

    async def models(self, tenant: str, datasets: Sequence[str]) -> dict[str, str]:
        return {dataset: version.model for dataset, version in (await self._routes(tenant, datasets)).items()}

    async def write(
        self, tenant: str, dataset: str, document: str, entries: Sequence[Entry], *, model: str, version: int
    ) -> None:
        if not entries:
            return
        scope = Scope(tenant, dataset, document)
        prepared = await self._store.prepare(scope, entries, version)
        async with self._writers, self._changing(scope, held=True) as cursor:
            number = await self._route(cursor, scope, model, prepared.dimension)
            if number is not None:
                await self._store.put(cursor, number, scope, prepared, version, found=True)
            else:
                # A write that nobody waited for any more may have come in after the deletion: it goes, as this does.
                await delete(cursor, self._store, scope)

    async def remove(self, tenant: str, dataset: str, document: str, ids: Sequence[str], *, version: int) -> None:
        if ids:
            scope = Scope(tenant, dataset, document)
            async with self._writers, self._changing(scope) as cursor:
                await remove(cursor, self._store, scope, ids, version)

    async def delete(self, tenant: str, dataset: str, document: str | None = None, *, version: int) -> None:
        scope = Scope(tenant, dataset, document)
        async with self._writers, self._changing(scope, held=document is None) as cursor:
            await delete(cursor, self._store, scope)

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
        weight = weight if mode == "hybrid" else None
        if top_k < 1 or not datasets or (near is None and not asked) or (documents is not None and not documents):
            return []
        question = Question(tenant, asked, near, mode, weight, documents, top_k)
        found = await self._ask(tenant, datasets, partial(self._find, question), model=model)
        if mode == "semantic" or weight is not None:
            return sorted((hit for hits in found for hit in hits), key=lambda hit: (-hit.score, hit.id))[:top_k]
        return fused(found, top_k)

    async def texts(self, tenant: str, wanted: Sequence[Span]) -> list[Kept]:
        datasets = list({span.dataset for span in wanted})
        found = await self._ask(tenant, datasets, partial(self._read, tenant, wanted))
        entries = (entry for part in found for entry in part)
        return sorted(entries, key=lambda entry: (entry.dataset, entry.document, entry.position, entry.id))

    @asynccontextmanager
    async def build(self, tenant: str | None = None, dataset: str | None = None) -> AsyncIterator[VersionedBuild]:
        async with building(self.url, self._store, self._connection, self._building, tenant, dataset) as build:
            yield build
        self._versions.clear()

    @abstractmethod
    def contents(self) -> AsyncGenerator[list[tuple[str, str, str]]]:
        """As the port has it."""

    @abstractmethod
    async def _find(self, question: Question, number: int, datasets: list[str]) -> list[Hit] | None:
        """The best hits in one version; None when not all of the datasets are searched there any more."""

    @abstractmethod
    async def _read(self, tenant: str, wanted: Sequence[Span], number: int, datasets: list[str]) -> list[Kept] | None:
        """The entries of these datasets in one version; None when not all of them are searched there any more."""

    async def _ask(
        self,
        tenant: str,
        datasets: Sequence[str],
        ask: Callable[[int, list[str]], Awaitable[list[T] | None]],
        *,
        model: str | None = None,
    ) -> list[list[T]]:
        """The answer of each version that some of the datasets are in.

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
            asking = [ask(number, of) for number, of in members.items()]
            answers = [answer for answer in await asyncio.gather(*asking) if answer is not None]
            if len(answers) == len(members):
                return answers
        raise Unavailable(f"The datasets were moved {TRIES} times while they were searched.")

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        """Raises: Unavailable."""
        try:
            with answering():
                async with self._pool.connection() as connection:
                    yield connection
        except (errors.UndefinedTable, errors.InvalidSchemaName) as error:
            raise Gone(f"A table of the index is gone ({error}): run `headrace index rebuild`.") from error

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Cursor]:
        async with self._connection() as connection, connection.transaction(), connection.cursor() as cursor:
            yield cursor

    @asynccontextmanager
    async def _changing(self, scope: Scope, *, held: bool = False) -> AsyncIterator[Cursor]:
        """A transaction that changes a document alone, or a dataset alone; `held` up while one of them is moved.

        The locks are taken before anything is read, so that what is read afterwards holds until the commit.
        """
        tenant, dataset, document = scope
        key = self._schema.key
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
    async def _building(self, scope: Scope) -> AsyncIterator[Cursor]:
        async with self._builders, self._changing(scope) as cursor:
            yield cursor

    async def _routes(self, tenant: str, datasets: Sequence[str], *, anew: bool = False) -> dict[str, Version]:
        """The versions of the datasets that have one, as last seen or looked up anew."""
        if anew:
            for dataset in datasets:
                self._versions.pop((tenant, dataset), None)
        missing = [id for id in dict.fromkeys(datasets) if (tenant, id) not in self._versions]
        if missing:
            async with self._connection() as connection:
                rows = await (await connection.execute(self._schema.sql(_ROUTES), [tenant, missing])).fetchall()
            self._remember({(tenant, dataset): Version(number, model) for dataset, number, model in rows})
        found = {id: self._versions.get((tenant, id)) for id in datasets}
        return {id: version for id, version in found.items() if version}

    def _remember(self, versions: dict[tuple[str, str], Version]) -> None:
        if len(self._versions) + len(versions) > REMEMBERED:
            self._versions.clear()
        self._versions |= versions

    async def _route(self, cursor: Cursor, scope: Scope, model: str, dimension: int | None) -> int | None:
        """The version that a document is written to, None when it was deleted; the first write chooses it.

        Raises: Moved, ValueError when it is to be made and no dimension is known.
        """
        buried, number, routed = await self._where(cursor, scope)
        if buried:
            return None
        if number is None:
            await lock_versions(cursor, self._store)
            await cursor.execute(self._schema.sql(_NEWEST), {"model": model, "dimension": dimension})
            row = await cursor.fetchone()
            if row is None and dimension is None:
                raise ValueError("The first that is written for a model must hold a vector.")
            new = row[0] if row else await make_version(cursor, self._store, model, dimension or 0, live=True)
            await cursor.execute(self._schema.sql(_FIRST_ROUTE), [scope.tenant, scope.dataset, new])
            if row is None:
                await self._store.point(cursor)
            _, number, routed = await self._where(cursor, scope)
        assert number is not None
        if routed != model:
            self._remember({(scope.tenant, scope.dataset): Version(number, routed)})
            raise Moved
        return number

    async def _where(self, cursor: Cursor, scope: Scope) -> tuple[bool, int | None, str]:
        """Whether a document was deleted, and the version of its dataset with that version's model."""
        await cursor.execute(self._schema.sql(_WHERE), scope._asdict())
        buried, number, model = await cursor.fetchone() or (False, None, "")
        return buried, number, model


_ROUTES = """
SELECT dataset::text, version, model FROM {schema}.routes JOIN {schema}.versions ON number = version
WHERE tenant = %s AND dataset = ANY (%s::uuid[])
"""

_WHERE = """
SELECT EXISTS (
    SELECT FROM {schema}.tombstones
    WHERE tenant = %(tenant)s AND dataset = %(dataset)s AND (document = %(document)s OR document IS NULL)
), version, model
FROM (VALUES (1)) AS once LEFT JOIN (
    {schema}.routes JOIN {schema}.versions ON number = version
) ON tenant = %(tenant)s AND dataset = %(dataset)s
"""

_NEWEST = """
SELECT max(number) FROM {schema}.versions
WHERE live AND model = %(model)s AND dimension = coalesce(%(dimension)s::integer, dimension) HAVING count(*) > 0
"""

_FIRST_ROUTE = "INSERT INTO {schema}.routes (tenant, dataset, version) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
