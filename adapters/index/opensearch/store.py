"""Versions as indexes of OpenSearch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from adapters.index.opensearch.client import Access, connected
from adapters.index.opensearch.segments import Prepared, Segments, prepared
from adapters.index.opensearch.tables import SCHEMA, prefix_of
from adapters.index.versions import Connection, Cursor, Scope
from handlers.ports.index import Entry


class OpenSearchStore:
    schema = SCHEMA

    def __init__(self, segments: Segments) -> None:
        self.segments = segments

    async def name(self, cursor: Cursor, number: int) -> str:
        """That of a version's index, looked up each time: an installation whose rows were lost gets another prefix."""
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
        """What was written later in the log OpenSearch itself leaves alone."""
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


@asynccontextmanager
async def stored(access: Access) -> AsyncIterator[OpenSearchStore]:
    async with connected(access) as client:
        segments = Segments(client)
        try:
            yield OpenSearchStore(segments)
        finally:
            await segments.close()


def index_name(prefix: str, number: int) -> str:
    return f"{prefix}-{number}"


async def _holds(cursor: Cursor, number: int, scope: Scope) -> bool:
    await cursor.execute(_HOLDS, [number, scope.tenant, scope.dataset])
    return bool(await cursor.fetchone())


async def _let_go(cursor: Cursor, number: int, scope: Scope) -> None:
    await cursor.execute(_LET_GO, [number, scope.tenant, scope.dataset])


_HOLD = "INSERT INTO headrace_opensearch.held (version, tenant, dataset) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"

_HOLDS = "SELECT 1 FROM headrace_opensearch.held WHERE version = %s AND tenant = %s AND dataset = %s"

_LET_GO = "DELETE FROM headrace_opensearch.held WHERE version = %s AND tenant = %s AND dataset = %s"

_REMOVED_LATER = """
SELECT id::text FROM headrace_opensearch.removals
WHERE tenant = %s AND dataset = %s AND document = %s AND id = ANY (%s::uuid[]) AND sequence > %s
"""
