"""Rows of a version: put in and taken out, with what the statistics say of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from psycopg import AsyncCursor
from psycopg.rows import TupleRow

from adapters.pgvector.encoding import Encoded, encode
from adapters.pgvector.statements import statements

SHARDS = 16
"""Rows over which the statistics of a dataset are spread, so that its writers seldom wait for one another."""

Cursor = AsyncCursor[TupleRow]
Scope = dict[str, Any]
"""What a statement is about, by the names of its parameters."""


async def put(
    cursor: Cursor,
    version: int,
    tenant: str,
    dataset: str,
    document: str,
    encoded: Encoded,
    sequence: int,
) -> None:
    """Write entries in place of those with the same ids, but for those that were written or removed later in the
    log."""
    known = statements(version)
    scope = {"tenant": tenant, "dataset": dataset, "document": document, "sequence": sequence}
    ids = [entry.id for entry in encoded.entries]
    await cursor.execute(known.make_room, scope | {"ids": ids})
    segments, length, newer = await cursor.fetchone() or (0, 0, [])
    if newer:
        left = [entry for entry in encoded.entries if entry.id not in newer]
        encoded = encode(tenant, dataset, document, left, sequence)
    async with cursor.copy(known.copy_segments) as copy:
        await copy.write(encoded.segments)
    async with cursor.copy(known.copy_postings) as copy:
        await copy.write(encoded.postings)
    change = (encoded.matched - segments, encoded.length - length)
    await _count(cursor, version, tenant, dataset, document, *change)


async def purge(cursor: Cursor, version: int, tenant: str, dataset: str) -> None:
    """Take all of a dataset out of a version."""
    for statement in statements(version).delete_dataset:
        await cursor.execute(statement, {"tenant": tenant, "dataset": dataset})


async def delete(cursor: Cursor, tenant: str, dataset: str, document: str | None) -> None:
    """Take a document, or all of a dataset, out of every version, for good."""
    scope: Scope = {"tenant": tenant, "dataset": dataset, "document": document}
    await cursor.execute(_BURY, scope)
    for version in await _versions(cursor):
        if document is None:
            await purge(cursor, version, tenant, dataset)
        else:
            await _take_out(cursor, version, statements(version).remove_document, scope)
    await cursor.execute(_FORGET_REMOVALS, scope)
    if document is None:
        await cursor.execute(_UNROUTE, scope)
        await cursor.execute(_BURIED_WITH_IT, scope)


async def remove(cursor: Cursor, tenant: str, dataset: str, document: str, ids: Sequence[str], sequence: int) -> None:
    """Take entries out of every version, unless they were written later in the log."""
    scope: Scope = {"tenant": tenant, "dataset": dataset, "document": document, "sequence": sequence, "ids": list(ids)}
    await cursor.execute(_NOTE_REMOVALS, scope)
    for version in await _versions(cursor):
        await _take_out(cursor, version, statements(version).remove_ids, scope)


async def _versions(cursor: Cursor) -> list[int]:
    """All of them, locked, so that none is dropped meanwhile."""
    await cursor.execute("SELECT number FROM headrace_index.versions ORDER BY number FOR KEY SHARE")
    return [number for (number,) in await cursor.fetchall()]


async def _take_out(cursor: Cursor, version: int, statement: bytes, scope: Scope) -> None:
    segments, length = await _remove(cursor, statement, scope)
    if segments:
        await _count(cursor, version, scope["tenant"], scope["dataset"], scope["document"], -segments, -length)


async def _remove(cursor: Cursor, statement: bytes, scope: Scope) -> tuple[int, int]:
    """Take segments and their postings out: how many of them could be found, and their length in words."""
    await cursor.execute(statement, scope)
    segments, length, *_ = await cursor.fetchone() or (0, 0)
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

_NOTE_REMOVALS = """
INSERT INTO headrace_index.removals AS known (tenant, dataset, document, id, sequence)
SELECT %(tenant)s, %(dataset)s::uuid, %(document)s::uuid, id, %(sequence)s FROM unnest(%(ids)s::uuid[]) AS given (id)
ON CONFLICT (tenant, dataset, document, id)
DO UPDATE SET sequence = greatest(known.sequence, excluded.sequence)
"""

_FORGET_REMOVALS = """
DELETE FROM headrace_index.removals
WHERE tenant = %(tenant)s AND dataset = %(dataset)s AND (%(document)s::uuid IS NULL OR document = %(document)s::uuid)
"""

_UNROUTE = "DELETE FROM headrace_index.routes WHERE tenant = %(tenant)s AND dataset = %(dataset)s"

_BURIED_WITH_IT = """
DELETE FROM headrace_index.tombstones
WHERE tenant = %(tenant)s AND dataset = %(dataset)s AND document IS NOT NULL
"""
