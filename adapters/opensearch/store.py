"""Versions as indexes of OpenSearch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

from adapters.opensearch.client import Access, connected
from adapters.opensearch.segments import Prepared, Segments, prepared
from adapters.opensearch.tables import SCHEMA, prefix_of
from adapters.versions import Connection, Cursor, Scope, Transaction
from handlers.ports import Entry


class OpenSearchStore:
    """`prefix` is what the names of this installation's indexes begin with, and the alias of those searched."""

    schema = SCHEMA

    def __init__(self, segments: Segments, prefix: str) -> None:
        self.segments = segments
        self._prefix = prefix

    def name(self, number: int) -> str:
        return f"{self._prefix}-{number}"

    def holding(self, number: int) -> str:
        return f"SELECT tenant, dataset FROM headrace_opensearch.held WHERE version = {number}"

    async def make(self, cursor: Cursor, number: int, dimension: int, *, live: bool) -> None:
        await self.segments.make(self.name(number), dimension, live=live)

    async def finish(self, cursor: Cursor, number: int) -> None:
        await self.segments.finish(self.name(number))

    async def complete(self, connection: Connection, number: int) -> None:
        await self.segments.merge(self.name(number))

    async def drop(self, cursor: Cursor, numbers: Sequence[int]) -> None:
        await cursor.execute("SELECT number FROM headrace_opensearch.versions")
        known = {self.name(number) for (number,) in await cursor.fetchall()}
        await self.segments.drop(name for name in await self.segments.names(f"{self._prefix}-*") if name not in known)

    async def point(self, cursor: Cursor) -> None:
        """By an alias."""
        await cursor.execute("SELECT DISTINCT version FROM headrace_opensearch.routes")
        await self.segments.alias(self._prefix, [self.name(number) for (number,) in await cursor.fetchall()])

    async def counts(self, cursor: Cursor, numbers: Sequence[int]) -> dict[int, int]:
        counts = await self.segments.counts([self.name(number) for number in numbers])
        return {number: counts.get(self.name(number), 0) for number in numbers}

    async def prepare(self, scope: Scope, entries: Sequence[Entry], sequence: int) -> Prepared:
        return await asyncio.to_thread(prepared, scope, entries, sequence)

    async def put(
        self, cursor: Cursor, number: int, scope: Scope, prepared: Prepared, sequence: int, *, found: bool = False
    ) -> None:
        """What was written later in the log OpenSearch itself leaves alone."""
        await cursor.execute(_HOLD, [number, scope.tenant, scope.dataset])
        await cursor.execute(_REMOVED_LATER, [*scope, list(prepared.actions), sequence])
        newer = {id for (id,) in await cursor.fetchall()}
        await self.segments.put(
            self.name(number), (action for id, action in prepared.actions.items() if id not in newer)
        )
        if found:
            await self.segments.refresh(self.name(number))

    async def remove(self, cursor: Cursor, number: int, scope: Scope, ids: Sequence[str], sequence: int) -> None:
        if await _holds(cursor, number, scope):
            await self.segments.remove(self.name(number), scope, ids, sequence)
            await self.segments.refresh(self.name(number))

    async def delete(self, cursor: Cursor, number: int, scope: Scope) -> None:
        if await _holds(cursor, number, scope):
            await self.segments.clear(self.name(number), scope, good=True)
            if scope.document is None:
                await _let_go(cursor, number, scope)

    async def purge(self, cursor: Cursor, number: int, scope: Scope) -> None:
        await self.segments.clear(self.name(number), scope)
        await _let_go(cursor, number, scope)


def stored(access: Access) -> Callable[[Transaction], AbstractAsyncContextManager[OpenSearchStore]]:
    return partial(_stored, access)


@asynccontextmanager
async def _stored(access: Access, transaction: Transaction) -> AsyncIterator[OpenSearchStore]:
    async with transaction() as cursor:
        prefix = await prefix_of(cursor)
    async with connected(access) as client:
        segments = Segments(client)
        try:
            yield OpenSearchStore(segments, prefix)
        finally:
            await segments.close()


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
