"""Rows of a version: put in and taken out, with what the statistics say of them."""

from __future__ import annotations

from uuid import UUID

from psycopg import AsyncCursor
from psycopg.rows import TupleRow

from adapters.pgvector.encoding import Encoded
from adapters.pgvector.statements import statements

SHARDS = 16
"""Rows over which the statistics of a dataset are spread, so that its writers seldom wait for one another."""

Cursor = AsyncCursor[TupleRow]


async def put(
    cursor: Cursor, version: int, tenant: str, dataset: str, document: str, encoded: Encoded, *, first: bool = False
) -> None:
    """Write entries in place of those with the same ids, or of all of the document if they are its first."""
    known = statements(version)
    statement, ids = (known.remove_document, [document]) if first else (known.remove_same_ids, encoded.ids)
    segments, length = await _remove(cursor, statement, tenant, dataset, ids)
    async with cursor.copy(known.copy_segments) as copy:
        await copy.write(encoded.segments)
    async with cursor.copy(known.copy_postings) as copy:
        await copy.write(encoded.postings)
    change = (len(encoded.ids) - segments, encoded.length - length)
    await _count(cursor, version, tenant, dataset, document, *change)


async def purge(cursor: Cursor, version: int, tenant: str, dataset: str) -> None:
    """Take all of a dataset out of a version."""
    for statement in statements(version).delete_dataset:
        await cursor.execute(statement, {"tenant": tenant, "dataset": dataset})


async def delete(cursor: Cursor, tenant: str, dataset: str, document: str | None) -> None:
    """Take a document, or all of a dataset, out of every version, for good."""
    scope = {"tenant": tenant, "dataset": dataset, "document": document}
    await cursor.execute(_BURY, scope)
    # Locked, so that none is dropped meanwhile.
    await cursor.execute("SELECT number FROM headrace_index.versions ORDER BY number FOR KEY SHARE")
    for (version,) in await cursor.fetchall():
        if document is None:
            await purge(cursor, version, tenant, dataset)
        else:
            segments, length = await _remove(cursor, statements(version).remove_document, tenant, dataset, [document])
            if segments:
                await _count(cursor, version, tenant, dataset, document, -segments, -length)
    if document is None:
        await cursor.execute(_UNROUTE, scope)
        await cursor.execute(_BURIED_WITH_IT, scope)


async def _remove(cursor: Cursor, statement: bytes, tenant: str, dataset: str, ids: list[str]) -> tuple[int, int]:
    """Take segments and their postings out: how many there were, and their length in words."""
    await cursor.execute(statement, {"tenant": tenant, "dataset": dataset, "ids": ids})
    segments, length = await cursor.fetchone() or (0, 0)
    return segments, length


async def _count(
    cursor: Cursor, version: int, tenant: str, dataset: str, document: str, segments: int, length: int
) -> None:
    """Add to the statistics; last in its transaction, for it locks a row that other documents use."""
    shard = UUID(document).int % SHARDS
    await cursor.execute(statements(version).count, [tenant, dataset, shard, segments, length])


_BURY = """
INSERT INTO headrace_index.tombstones (tenant, dataset, document) VALUES (%(tenant)s, %(dataset)s, %(document)s)
ON CONFLICT DO NOTHING
"""

_UNROUTE = "DELETE FROM headrace_index.routes WHERE tenant = %(tenant)s AND dataset = %(dataset)s"

_BURIED_WITH_IT = """
DELETE FROM headrace_index.tombstones
WHERE tenant = %(tenant)s AND dataset = %(dataset)s AND document IS NOT NULL
"""
