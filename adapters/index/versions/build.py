"""New versions, built while the current ones are searched, and swapped in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from uuid import uuid4

from psycopg.types.json import Jsonb

from adapters.index.versions.changes import delete, lock_versions, make_version, remove, tidy
from adapters.index.versions.database import Connection, Cursor, Database, connected
from adapters.index.versions.schema import Scope
from adapters.index.versions.store import AnyStore
from domain.embedding import shown
from handlers.ports.index import Entry, changed
from handlers.ports.log import Unavailable
from projections.values.words import RULES


@asynccontextmanager
async def building(
    database: Database, store: AnyStore, tenant: str | None, dataset: str | None
) -> AsyncIterator[VersionedBuild]:
    """The only build at a time; once begun it is recorded until it is swapped in. Raises: Unavailable."""
    async with connected(database.url) as connection:
        await connection.execute("SELECT pg_advisory_lock(%s)", [store.schema.key("build")])
        yield VersionedBuild(connection, database, store, tenant, dataset)


class VersionedBuild:
    id: str
    attempt = 0
    reached: int

    def __init__(
        self, swapping: Connection, database: Database, store: AnyStore, tenant: str | None, dataset: str | None
    ) -> None:
        """`swapping` is for the swap's transaction alone; whatever must not wait for it uses the pool."""
        self._swapping = swapping
        self._database = database
        self._store = store
        self._sql = store.schema.sql
        self._scope = {"tenant": tenant, "dataset": dataset}
        self._one = Scope(tenant, dataset) if tenant is not None and dataset is not None else None
        self._versions: dict[str, int] = {}
        self._dimensions: dict[str, int] = {}
        self._opening = asyncio.Lock()

    async def searched(self) -> str | None:
        async with self._database.transaction() as cursor:
            await cursor.execute(self._sql(_SEARCHED), self._scope)
            [model] = await cursor.fetchone() or [None]
        return model

    async def begin(self, plan: str, end: int) -> None:
        async with self._database.transaction() as cursor:
            await cursor.execute(self._sql(_FORGET_OTHERS), self._scope | {"plan": plan, "end": end})
            await cursor.execute(self._sql(_BEGIN), self._scope | {"plan": plan, "id": str(uuid4())})
            [self.id, self.attempt, self.reached, self._versions] = await cursor.fetchone() or []
        await self._tidy()
        await self._swapping.execute("SELECT pg_advisory_lock(%s)", [self._store.schema.key("build", self.id)])

    async def open(self, model: str, dimension: int) -> None:
        async with self._opening:
            if model not in self._versions:
                self._versions[model] = await self._make(model, dimension)
            elif model not in self._dimensions:  # opened by an earlier attempt
                await self._check(model, dimension)
            self._dimensions[model] = dimension

    async def _check(self, model: str, dimension: int) -> None:
        """Raises: ModelError `embedding_changed`."""
        async with self._database.connection() as connection:
            rows = await connection.execute(self._sql(_DIMENSION), [self._versions[model]])
            [had] = await rows.fetchone() or [dimension]
        if had != dimension:
            raise changed(shown(model), had, dimension)

    async def _make(self, model: str, dimension: int) -> int:
        async with self._database.transaction() as cursor:
            await lock_versions(cursor, self._store)
            number = await self._free_version(cursor, model, dimension)
            if number is None:
                number = await make_version(cursor, self._store, model, dimension, live=False)
            versions = Jsonb(self._versions | {model: number})
            await cursor.execute(self._sql(_OPEN), [versions, self.id])
        return number

    async def _free_version(self, cursor: Cursor, model: str, dimension: int) -> int | None:
        """For a dataset, a version for this model where it is not searched now; it is purged from there."""
        if self._one is None:
            return None
        await cursor.execute(self._sql(_FREE), self._scope | {"model": model, "dimension": dimension, "rules": RULES})
        [number] = await cursor.fetchone() or [None]
        if number is not None:
            await self._store.purge(cursor, number, self._one)
        return number

    async def write(
        self,
        tenant: str,
        dataset: str,
        document: str,
        entries: Sequence[Entry],
        *,
        model: str,
        version: int,
    ) -> None:
        if not entries:
            return
        scope = Scope(tenant, dataset, document)
        prepared = await self._store.prepare(scope, entries, version)
        async with self._database.building(scope) as cursor:
            await cursor.execute(self._sql(_DELETED), scope)
            if not await cursor.fetchone():
                await self._store.put(cursor, self._versions[model], scope, prepared, version)

    async def remove(self, tenant: str, dataset: str, document: str, ids: Sequence[str], *, version: int) -> None:
        if ids:
            scope = Scope(tenant, dataset, document)
            async with self._database.building(scope) as cursor:
                await remove(cursor, self._store, scope, ids, version)

    async def delete(self, tenant: str, dataset: str, document: str | None = None, *, version: int) -> None:
        scope = Scope(tenant, dataset, document)
        async with self._database.building(scope) as cursor:
            await delete(cursor, self._store, scope)

    async def forbid(self, deleted: Sequence[tuple[str, str, str | None]]) -> None:
        columns = [list(column) for column in zip(*deleted, strict=True)] or [[], [], []]
        async with self._database.connection() as connection:
            await connection.execute(self._sql(_TOMBSTONES), columns)

    async def reach(self, sequence: int, goal: int) -> None:
        self.reached = sequence
        async with self._database.connection() as connection:
            await connection.execute(self._sql(_REACH), [sequence, goal, self.id])

    async def complete(self) -> None:
        for number in self._versions.values():
            async with self._database.connection() as connection:
                await self._store.complete(connection, number)

    @asynccontextmanager
    async def swap(self, *, keep_old: bool = False) -> AsyncIterator[None]:
        held = self._store.schema.key("write", *(self._one[:2] if self._one else ()))
        async with self._swapping.transaction(), self._swapping.cursor() as cursor:
            await cursor.execute("SELECT pg_advisory_xact_lock(%s)", [held])
            yield
            built = list(self._versions.values())
            if keep_old:
                await cursor.execute(self._sql(_KEEP), self._scope)
            if self._one is None:
                await cursor.execute(self._sql("UPDATE {schema}.versions SET live = false"))
                await cursor.execute(self._sql("DELETE FROM {schema}.routes"))
            await cursor.execute(self._sql("UPDATE {schema}.versions SET live = true WHERE number = ANY (%s)"), [built])
            for number in built:
                await self._store.finish(cursor, number)  # one may have been opened since `complete`
                route = self._sql(_ROUTE.replace("{held}", self._store.holding(number)))
                await cursor.execute(route, self._scope | {"version": number})
            await cursor.execute(self._sql("DELETE FROM {schema}.builds WHERE id = %s"), [self.id])
        await self._tidy()

    async def _tidy(self) -> None:
        """Tidy up without waiting for readers of an old version, such as `contents`: the next build does the rest."""
        with suppress(Unavailable):
            async with self._database.transaction() as cursor:
                await cursor.execute("SET LOCAL lock_timeout = '2s'")
                await tidy(cursor, self._store)


_OF_SCOPE = "tenant IS NOT DISTINCT FROM %(tenant)s AND dataset IS NOT DISTINCT FROM %(dataset)s::uuid"

_SEARCHED = f"SELECT model FROM {{schema}}.routes JOIN {{schema}}.versions ON number = version WHERE {_OF_SCOPE}"

_FORGET_OTHERS = f"DELETE FROM {{schema}}.builds WHERE {_OF_SCOPE} AND (plan <> %(plan)s OR reached > %(end)s)"

_BEGIN = """
INSERT INTO {schema}.builds AS known (id, tenant, dataset, plan, attempt)
VALUES (%(id)s, %(tenant)s, %(dataset)s, %(plan)s, 1)
ON CONFLICT (tenant, dataset) DO UPDATE SET attempt = known.attempt + 1
RETURNING id::text, attempt, reached, versions
"""

_FREE = """
SELECT max(number) FROM {schema}.versions
WHERE live AND rules = %(rules)s AND model = %(model)s AND dimension = %(dimension)s AND number NOT IN (
    SELECT version FROM {schema}.routes WHERE tenant = %(tenant)s AND dataset = %(dataset)s
)
"""

_DELETED = """
SELECT 1 FROM {schema}.tombstones WHERE tenant = %s AND dataset = %s AND (document = %s OR document IS NULL)
"""

_TOMBSTONES = """
INSERT INTO {schema}.tombstones (tenant, dataset, document)
SELECT * FROM unnest(%s::text[], %s::uuid[], %s::uuid[])
ON CONFLICT DO NOTHING
"""

_DIMENSION = "SELECT dimension FROM {schema}.versions WHERE number = %s"

_OPEN = "UPDATE {schema}.builds SET versions = %s WHERE id = %s"

_REACH = "UPDATE {schema}.builds SET reached = %s, goal = %s WHERE id = %s"

_KEEP = """
UPDATE {schema}.versions SET kept = true
WHERE number IN (SELECT version FROM {schema}.routes WHERE %(dataset)s::uuid IS NULL OR dataset = %(dataset)s)
"""

# A dataset without entries is routed too: what is written next must be for the new model.
_ROUTE = """
INSERT INTO {schema}.routes (tenant, dataset, version)
SELECT DISTINCT tenant, dataset, %(version)s::integer FROM ({held}) AS held WHERE %(dataset)s::uuid IS NULL
UNION
SELECT %(tenant)s, %(dataset)s::uuid, %(version)s WHERE %(dataset)s::uuid IS NOT NULL AND NOT EXISTS (
    SELECT FROM {schema}.tombstones
    WHERE tenant = %(tenant)s AND dataset = %(dataset)s::uuid AND document IS NULL
)
ON CONFLICT (tenant, dataset) DO UPDATE SET version = excluded.version
"""
