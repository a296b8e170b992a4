"""A cache of vectors in PostgreSQL, in a schema of its own that no rebuild touches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
from psycopg import AsyncConnection, OperationalError, errors
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from handlers.ports import Digest, Unavailable

Vector = npt.NDArray[np.float32]


class PostgresEmbeddingCache:
    """An EmbeddingCache; use it as a context manager. Its schema is made with the first vector, also after a drop."""

    def __init__(self, url: str, *, connections: int = 4, timeout_s: float = 10.0) -> None:
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

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pool.close()

    async def get(self, tenant: str, identity: str, digests: Sequence[Digest]) -> dict[Digest, Vector]:
        async with self._connection() as connection, connection.cursor(binary=True) as cursor:
            try:
                await cursor.execute(_GET, [tenant, identity, list(digests)])
            except errors.UndefinedTable:
                return {}
            rows = await cursor.fetchall()
        return {digest: np.frombuffer(vector, "<f2").astype(np.float32) for digest, vector in rows}

    async def put(self, tenant: str, identity: str, vectors: Mapping[Digest, Vector]) -> None:
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

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection[TupleRow]]:
        try:
            async with self._pool.connection() as connection:
                yield connection
        except OperationalError as error:
            raise Unavailable(f"The cache of vectors does not answer: {error}") from error


_GET = """
SELECT digest, vector FROM headrace_cache.embeddings
WHERE tenant = %s AND identity = %s AND digest = ANY (%s::bytea[])
"""

_PUT = """
INSERT INTO headrace_cache.embeddings (tenant, identity, digest, vector)
SELECT %s, %s, digest, vector FROM unnest(%s::bytea[], %s::bytea[]) AS put (digest, vector)
ON CONFLICT DO NOTHING
"""

# Of several that make it at once, the others wait for the first and find it made.
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
COMMIT;
"""
