"""Versions as sets of tables: segments put in and taken out, with what the statistics say of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any
from uuid import UUID

from adapters.index.pgvector.encoding import Encoded, encode
from adapters.index.pgvector.statements import statements
from adapters.index.pgvector.tables import SCHEMA, drop_tables, make_hnsw, make_tables, table
from adapters.index.versions import Connection, Cursor, Scope
from handlers.ports.index import Entry

SHARDS = 16
"""Rows over which the statistics of a dataset are spread, so that its writers seldom wait for one another."""


class PgvectorStore:
    schema = SCHEMA

    def holding(self, number: int) -> str:
        return f"SELECT tenant, dataset FROM {table('statistics', number)}"

    async def make(self, cursor: Cursor, number: int, dimension: int, *, live: bool) -> None:
        await make_tables(cursor, number, dimension)
        if live:
            await make_hnsw(cursor, number)

    async def finish(self, cursor: Cursor, number: int) -> None:
        await make_hnsw(cursor, number)

    async def complete(self, connection: Connection, number: int) -> None:
        async with connection.transaction(), connection.cursor() as cursor:
            await make_hnsw(cursor, number)
        await connection.execute(f"VACUUM (ANALYZE) {table('segments', number)}, {table('postings', number)}".encode())

    async def drop(self, cursor: Cursor, numbers: Sequence[int]) -> None:
        if numbers:
            await drop_tables(cursor, numbers)

    async def point(self, cursor: Cursor) -> None:
        """The view of all versions is made with their tables."""

    async def counts(self, cursor: Cursor, numbers: Sequence[int]) -> dict[int, int]:
        counts = {}
        for number in numbers:
            await cursor.execute(
                f"SELECT coalesce(sum(segments), 0)::bigint FROM {table('statistics', number)}".encode()
            )
            [counts[number]] = await cursor.fetchone() or [0]
        return counts

    async def prepare(self, scope: Scope, entries: Sequence[Entry], sequence: int) -> Encoded:
        return await asyncio.to_thread(encode, scope, entries, sequence)

    async def put(
        self, cursor: Cursor, number: int, scope: Scope, prepared: Encoded, sequence: int, *, found: bool = False
    ) -> None:
        known = statements(number)
        ids = [entry.id for entry in prepared.entries]
        await cursor.execute(known.make_room, scope._asdict() | {"sequence": sequence, "ids": ids})
        segments, length, newer = await cursor.fetchone() or (0, 0, [])
        if newer:
            left = [entry for entry in prepared.entries if entry.id not in newer]
            prepared = encode(scope, left, sequence)
        async with cursor.copy(known.copy_segments) as copy:
            await copy.write(prepared.segments)
        async with cursor.copy(known.copy_postings) as copy:
            await copy.write(prepared.postings)
        await _count(cursor, number, scope, prepared.matched - segments, prepared.length - length)

    async def remove(self, cursor: Cursor, number: int, scope: Scope, ids: Sequence[str], sequence: int) -> None:
        names = {"sequence": sequence, "ids": list(ids)}
        await _take_out(cursor, number, statements(number).remove_ids, scope, names)

    async def delete(self, cursor: Cursor, number: int, scope: Scope) -> None:
        if scope.document is None:
            await self.purge(cursor, number, scope)
        else:
            await _take_out(cursor, number, statements(number).remove_document, scope, {})

    async def purge(self, cursor: Cursor, number: int, scope: Scope) -> None:
        for statement in statements(number).delete_dataset:
            await cursor.execute(statement, scope._asdict())


def stored() -> AbstractAsyncContextManager[PgvectorStore]:
    return nullcontext(PgvectorStore())


async def _take_out(cursor: Cursor, number: int, statement: bytes, scope: Scope, names: dict[str, Any]) -> None:
    await cursor.execute(statement, scope._asdict() | names)
    segments, length = await cursor.fetchone() or (0, 0)
    if segments:
        await _count(cursor, number, scope, -segments, -length)


async def _count(cursor: Cursor, number: int, scope: Scope, segments: int, length: int) -> None:
    """Add to the statistics; last in its transaction, for it locks a row that other documents use."""
    tenant, dataset, document = scope
    assert document is not None
    shard = UUID(document).int % SHARDS
    await cursor.execute(statements(number).count, [tenant, dataset, shard, segments, length])
