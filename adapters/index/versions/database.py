"""Connections to the PostgreSQL database of an index, and the locks that keep its writers apart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from psycopg import AsyncConnection, AsyncCursor, IsolationLevel, OperationalError, errors
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from adapters.index.versions.schema import Schema, Scope
from handlers.ports.log import Unavailable

Connection = AsyncConnection[TupleRow]
Cursor = AsyncCursor[TupleRow]


class Gone(Unavailable):
    """A version is gone that was there a moment ago."""


@contextmanager
def answering() -> Iterator[None]:
    """Raises: Unavailable, where the database does not answer."""
    try:
        yield
    except OperationalError as error:
        raise Unavailable(f"PostgreSQL, which has the versions of the index, does not answer: {error}") from error


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    """A connection that commits every statement outside of a transaction. Raises: Unavailable."""
    with answering():
        async with await AsyncConnection.connect(url, autocommit=True, connect_timeout=10) as connection:
            yield connection


@asynccontextmanager
async def transaction(url: str) -> AsyncIterator[Cursor]:
    """A transaction on a connection of its own. Raises: Unavailable."""
    async with connected(url) as connection, connection.transaction(), connection.cursor() as cursor:
        yield cursor


class Database:
    """A pool of connections, which `configure` prepares; `pool` must be opened. Every method raises: Unavailable."""

    def __init__(
        self,
        url: str,
        schema: Schema,
        configure: Callable[[Connection], Awaitable[None]],
        *,
        connections: int,
        timeout_s: float,
    ) -> None:
        self.url = url
        self._key = schema.key
        self._configure = configure
        self.pool = AsyncConnectionPool(
            url,
            kwargs={"autocommit": True, "connect_timeout": 10},
            min_size=1,
            max_size=connections,
            timeout=timeout_s,
            configure=self._prepare,
            open=False,
        )
        # Writes hold a connection for long; searches must always find one, and so must the build that writes wait for.
        self._writers = asyncio.Semaphore(max(1, connections // 2))
        self._builders = asyncio.Semaphore(max(1, connections // 4))

    async def _prepare(self, connection: Connection) -> None:
        await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
        await self._configure(connection)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        try:
            with answering():
                async with self.pool.connection() as connection:
                    yield connection
        except (errors.UndefinedTable, errors.InvalidSchemaName) as error:
            raise Gone(f"A table of the index is gone: {error}. The index must be rebuilt.") from error

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Cursor]:
        async with self.connection() as connection, connection.transaction(), connection.cursor() as cursor:
            yield cursor

    @asynccontextmanager
    async def writing(self, scope: Scope, *, unmoved: bool = False) -> AsyncIterator[Cursor]:
        """A transaction that alone changes a document or a dataset; `unmoved`: no swap moves the dataset meanwhile."""
        async with self._writers, self._changing(scope, unmoved=unmoved) as cursor:
            yield cursor

    @asynccontextmanager
    async def building(self, scope: Scope) -> AsyncIterator[Cursor]:
        """A transaction that alone changes a document or a dataset, also while a swap holds up `writing`."""
        async with self._builders, self._changing(scope, unmoved=False) as cursor:
            yield cursor

    @asynccontextmanager
    async def _changing(self, scope: Scope, *, unmoved: bool) -> AsyncIterator[Cursor]:
        """The locks are taken before anything is read, so that what is read afterwards holds until the commit."""
        tenant, dataset, document = scope
        key = self._key
        async with self.transaction() as cursor:
            if unmoved:
                keys = [key("write"), key("write", tenant, dataset)]
                await cursor.execute("SELECT pg_advisory_xact_lock_shared(%s), pg_advisory_xact_lock_shared(%s)", keys)
            if document is None:
                await cursor.execute("SELECT pg_advisory_xact_lock(%s)", [key(tenant, dataset)])
            else:
                keys = [key(tenant, dataset), key(tenant, dataset, document)]
                await cursor.execute("SELECT pg_advisory_xact_lock_shared(%s), pg_advisory_xact_lock(%s)", keys)
            yield cursor
