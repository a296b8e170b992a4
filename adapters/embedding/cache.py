"""A cache of vectors in PostgreSQL, in a schema of its own that no rebuild touches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Self

import numpy as np
import numpy.typing as npt
from psycopg import AsyncConnection, OperationalError, errors
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from handlers.ports.documents import Digest
from handlers.ports.log import Unavailable

Vector = npt.NDArray[np.float32]


class PostgresEmbeddingCache:
    """An EmbeddingCache; use it as a context manager. Its schema is created at the first use, also after a drop.

    It has two tables: vectors are written to the young one, and so are those that are read from the old one. When the
    young one reaches half of the maximum size, the old one is dropped, with all vectors not used since, and the young
    one takes its place: that takes no time and leaves no holes, at any size.
    """

    def __init__(self, url: str, *, most: int = 2**32, connections: int = 4, timeout_s: float = 10.0) -> None:
        """`most`: maximum size in bytes, with indexes; 0 for no cache."""
        self._most = most
        self._pool = AsyncConnectionPool(
            url,
            kwargs={"autocommit": True, "connect_timeout": 10},
            min_size=0,
            max_size=connections,
            timeout=timeout_s,
            open=False,
        )

    async def __aenter__(self) -> Self:
        await self._pool.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.close()

    async def get(self, tenant: str, identity: str, digests: Sequence[Digest]) -> dict[Digest, Vector]:
        if not self._most:
            return {}
        async with self._connection() as connection, connection.cursor(binary=True) as cursor:
            try:
                await cursor.execute(_GET, {"tenant": tenant, "identity": identity, "digests": list(digests)})
            except errors.UndefinedTable:
                await connection.execute(_SCHEMA)
                return {}
            rows = await cursor.fetchall()
        return {digest: np.frombuffer(vector, "<f2").astype(np.float32) for digest, vector in rows}

    async def put(self, tenant: str, identity: str, vectors: Mapping[Digest, Vector]) -> None:
        if not self._most:
            return
        parameters = [
            tenant,
            identity,
            list(vectors),
            [vector.astype("<f2").tobytes() for vector in vectors.values()],
        ]
        async with self._connection() as connection:
            try:
                await connection.execute(_PUT, parameters)
            except errors.UndefinedTable:
                await connection.execute(_SCHEMA)
                await connection.execute(_PUT, parameters)
            if await self._is_full(connection):
                await self._grow_old(connection)

    async def _is_full(self, connection: AsyncConnection[TupleRow]) -> bool:
        row = await (await connection.execute(_SIZE)).fetchone()
        return bool(row and row[0] and row[0] > self._most / 2)

    async def _grow_old(self, connection: AsyncConnection[TupleRow]) -> None:
        async with connection.transaction():
            await connection.execute(_LOCK)
            if await self._is_full(connection):  # no other process was faster
                await connection.execute(_GROW_OLD)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection[TupleRow]]:
        try:
            async with self._pool.connection() as connection:
                yield connection
        except OperationalError as error:
            raise Unavailable(f"The cache of vectors does not answer: {error}") from error


_GET = """
WITH young AS (
    SELECT digest, vector FROM headrace_cache.embeddings
    WHERE tenant = %(tenant)s AND identity = %(identity)s AND digest = ANY (%(digests)s::bytea[])
), old AS (
    SELECT digest, vector FROM headrace_cache.embeddings_old
    WHERE tenant = %(tenant)s AND identity = %(identity)s AND digest = ANY (%(digests)s::bytea[])
), kept AS (
    INSERT INTO headrace_cache.embeddings (tenant, identity, digest, vector)
    SELECT %(tenant)s, %(identity)s, digest, vector FROM old
    ON CONFLICT DO NOTHING
)
SELECT digest, vector FROM young UNION ALL SELECT digest, vector FROM old
"""

_PUT = """
INSERT INTO headrace_cache.embeddings (tenant, identity, digest, vector)
SELECT %s, %s, digest, vector FROM unnest(%s::bytea[], %s::bytea[]) AS put (digest, vector)
ON CONFLICT DO NOTHING
"""

_SIZE = "SELECT pg_total_relation_size(to_regclass('headrace_cache.embeddings'))"

# In the order in which readers lock them.
_LOCK = "LOCK TABLE headrace_cache.embeddings, headrace_cache.embeddings_old"

_GROW_OLD = """
DROP TABLE headrace_cache.embeddings_old;
ALTER TABLE headrace_cache.embeddings RENAME TO embeddings_old;
CREATE TABLE headrace_cache.embeddings (LIKE headrace_cache.embeddings_old INCLUDING ALL);
COMMENT ON TABLE headrace_cache.embeddings IS 'Vectors of texts that were embedded, for when they are embedded again.';
COMMENT ON TABLE headrace_cache.embeddings_old IS 'Vectors that were put in earlier, and not asked for since.';
"""

# Processes that make it concurrently wait for the first, and find it made.
_SCHEMA = """
BEGIN;
SELECT pg_advisory_xact_lock(hashtextextended('headrace_cache', 0));
CREATE SCHEMA IF NOT EXISTS headrace_cache;
COMMENT ON SCHEMA headrace_cache IS 'What saves time and may be dropped at any moment.';
CREATE TABLE IF NOT EXISTS headrace_cache.embeddings (
    tenant text COLLATE "C" NOT NULL,
    identity text COLLATE "C" NOT NULL,
    digest bytea NOT NULL,
    vector bytea STORAGE PLAIN NOT NULL,
    PRIMARY KEY (tenant, identity, digest)
);
COMMENT ON TABLE headrace_cache.embeddings IS 'Vectors of texts that were embedded, for when they are embedded again.';
COMMENT ON COLUMN headrace_cache.embeddings.tenant IS 'The tenant whose text it was.';
COMMENT ON COLUMN headrace_cache.embeddings.identity IS 'The model, its backend and number type.';
COMMENT ON COLUMN headrace_cache.embeddings.digest IS 'SHA-256 of the token ids, as little-endian int32.';
COMMENT ON COLUMN headrace_cache.embeddings.vector IS 'The vector, as little-endian float16.';
CREATE TABLE IF NOT EXISTS headrace_cache.embeddings_old (LIKE headrace_cache.embeddings INCLUDING ALL);
COMMENT ON TABLE headrace_cache.embeddings_old IS 'Vectors that were put in earlier, and not asked for since.';
COMMIT;
"""
