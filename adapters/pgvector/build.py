"""New versions built beside those that are searched, and swapped in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from uuid import uuid4

from psycopg import AsyncConnection, AsyncCursor, OperationalError
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from adapters.pgvector.encoding import encode
from adapters.pgvector.rows import delete, purge, put, remove
from adapters.pgvector.tables import drop_version, finish_version, key, make_version
from handlers.ports import Entry, Unavailable

Cursor = AsyncCursor[TupleRow]
Connection = AsyncConnection[TupleRow]
Connect = Callable[[], AbstractAsyncContextManager[Connection]]
Changing = Callable[[str, str, str | None], AbstractAsyncContextManager[Cursor]]
"""A transaction that changes one document, or one dataset, alone."""


@asynccontextmanager
async def building(
    url: str, connect: Connect, changing: Changing, tenant: str | None, dataset: str | None
) -> AsyncIterator[PgvectorBuild]:
    """The one build that goes on; once begun it is on record until it is swapped in. Raises: Unavailable."""
    try:
        async with await AsyncConnection.connect(url, autocommit=True, connect_timeout=10) as connection:
            await connection.execute("SELECT pg_advisory_lock(%s)", [key("build")])
            yield PgvectorBuild(connection, connect, changing, tenant, dataset)
    except OperationalError as error:
        raise Unavailable(f"The index does not answer: {error}") from error


class PgvectorBuild:
    id: str
    attempt: int
    reached: int

    def __init__(
        self, swapping: Connection, connect: Connect, changing: Changing, tenant: str | None, dataset: str | None
    ) -> None:
        """What is not to wait for the swap's transaction goes over connections of its own."""
        self._swapping = swapping
        self._connect = connect
        self._changing = changing
        self._scope = {"tenant": tenant, "dataset": dataset}
        self._versions: dict[str, int] = {}
        self._opening = asyncio.Lock()

    async def searched(self) -> str | None:
        async with self._connect() as connection:
            [model] = await (await connection.execute(_SEARCHED, self._scope)).fetchone() or [None]
        return model

    async def begin(self, plan: str, end: int) -> None:
        async with self._transaction() as cursor:
            await cursor.execute(_FORGET_OTHERS, self._scope | {"plan": plan, "end": end})
            await cursor.execute(_BEGIN, self._scope | {"plan": plan, "id": str(uuid4())})
            [self.id, self.attempt, self.reached, self._versions] = await cursor.fetchone() or []
        await self._tidy()
        await self._swapping.execute("SELECT pg_advisory_lock(%s)", [key("build", self.id)])

    async def open(self, model: str, dimension: int) -> None:
        async with self._opening:
            if model not in self._versions:
                self._versions[model] = await self._make(model, dimension)

    async def _make(self, model: str, dimension: int) -> int:
        async with self._transaction() as cursor:
            await cursor.execute("SELECT pg_advisory_xact_lock(%s)", [key("versions")])
            number = await self._free_version(cursor, model, dimension)
            if number is None:
                number = await make_version(cursor, model, dimension, live=False)
            versions = Jsonb(self._versions | {model: number})
            await cursor.execute("UPDATE headrace_index.builds SET versions = %s WHERE id = %s", [versions, self.id])
        return number

    async def _free_version(self, cursor: Cursor, model: str, dimension: int) -> int | None:
        """For a dataset, a version for this model where it is not searched now; what it had there is taken out."""
        tenant, dataset = self._scope["tenant"], self._scope["dataset"]
        if tenant is None or dataset is None:
            return None
        await cursor.execute(_FREE, self._scope | {"model": model, "dimension": dimension})
        [number] = await cursor.fetchone() or [None]
        if number is not None:
            await purge(cursor, number, tenant, dataset)
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
        encoded = await asyncio.to_thread(encode, tenant, dataset, document, entries, version)
        async with self._changing(tenant, dataset, document) as cursor:
            await cursor.execute(_BURIED, [tenant, dataset, document])
            if not await cursor.fetchone():
                await put(cursor, self._versions[model], tenant, dataset, document, encoded, version)

    async def remove(self, tenant: str, dataset: str, document: str, ids: Sequence[str], *, version: int) -> None:
        if ids:
            async with self._changing(tenant, dataset, document) as cursor:
                await remove(cursor, tenant, dataset, document, ids, version)

    async def delete(self, tenant: str, dataset: str, document: str | None = None, *, version: int) -> None:
        async with self._changing(tenant, dataset, document) as cursor:
            await delete(cursor, tenant, dataset, document)

    async def bury(self, deleted: Sequence[tuple[str, str, str | None]]) -> None:
        columns = [list(column) for column in zip(*deleted, strict=True)] or [[], [], []]
        async with self._connect() as connection:
            await connection.execute(_BURY_ALL, columns)

    async def reach(self, sequence: int, goal: int) -> None:
        self.reached = sequence
        async with self._connect() as connection:
            await connection.execute(
                "UPDATE headrace_index.builds SET reached = %s, goal = %s WHERE id = %s", [sequence, goal, self.id]
            )

    async def complete(self) -> None:
        for number in self._versions.values():
            async with self._transaction() as cursor:
                await finish_version(cursor, number)
            async with self._connect() as connection:  # outside of a transaction
                await connection.execute(_VACUUM.replace("{n}", str(number)).encode())

    @asynccontextmanager
    async def swap(self, *, keep_old: bool = False) -> AsyncIterator[None]:
        tenant, dataset = self._scope["tenant"], self._scope["dataset"]
        held = key("write") if tenant is None or dataset is None else key("write", tenant, dataset)
        async with self._swapping.transaction(), self._swapping.cursor() as cursor:
            await cursor.execute("SELECT pg_advisory_xact_lock(%s)", [held])
            yield
            built = list(self._versions.values())
            if keep_old:
                await cursor.execute(_KEEP, self._scope)
            if dataset is None:
                await cursor.execute("UPDATE headrace_index.versions SET live = false")
                await cursor.execute("DELETE FROM headrace_index.routes")
            await cursor.execute("UPDATE headrace_index.versions SET live = true WHERE number = ANY (%s)", [built])
            for number in built:
                await finish_version(cursor, number)  # one may have been opened since all was complete
                await cursor.execute(_ROUTE.replace("{n}", str(number)).encode(), self._scope | {"version": number})
            await cursor.execute("DELETE FROM headrace_index.builds WHERE id = %s", [self.id])
        await self._tidy()

    async def _tidy(self) -> None:
        """Who reads all of an old version, as `contents` does, is not waited for: the next build tidies up."""
        with suppress(Unavailable):
            async with self._transaction() as cursor:
                await cursor.execute("SET LOCAL lock_timeout = '2s'")
                await _tidy(cursor)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Cursor]:
        async with self._connect() as connection, connection.transaction(), connection.cursor() as cursor:
            yield cursor


async def _tidy(cursor: Cursor) -> None:
    """Drop the versions that nothing is searched in and that nobody builds or keeps; and take out of the others the
    datasets that were moved away."""
    await cursor.execute("SELECT pg_advisory_xact_lock(%s)", [key("versions")])
    await cursor.execute(_UNUSED)
    for (number,) in await cursor.fetchall():
        await drop_version(cursor, number)
    await cursor.execute(_USED)
    for (number,) in await cursor.fetchall():
        await cursor.execute(_MOVED_AWAY.replace("{n}", str(number)).encode(), {"version": number})
        for tenant, dataset in await cursor.fetchall():
            await purge(cursor, number, tenant, dataset)


_OF_SCOPE = "tenant IS NOT DISTINCT FROM %(tenant)s AND dataset IS NOT DISTINCT FROM %(dataset)s::uuid"

_FORGET_OTHERS = f"DELETE FROM headrace_index.builds WHERE {_OF_SCOPE} AND (plan <> %(plan)s OR reached > %(end)s)"

_BEGIN = """
INSERT INTO headrace_index.builds AS known (id, tenant, dataset, plan, attempt)
VALUES (%(id)s, %(tenant)s, %(dataset)s, %(plan)s, 1)
ON CONFLICT (tenant, dataset) DO UPDATE SET attempt = known.attempt + 1
RETURNING id::text, attempt, reached, versions
"""

_SEARCHED = f"""
SELECT model FROM headrace_index.routes JOIN headrace_index.versions ON number = version WHERE {_OF_SCOPE}
"""

_FREE = """
SELECT max(number) FROM headrace_index.versions
WHERE live AND model = %(model)s AND dimension = %(dimension)s AND number NOT IN (
    SELECT version FROM headrace_index.routes WHERE tenant = %(tenant)s AND dataset = %(dataset)s
)
"""

_BURIED = """
SELECT 1 FROM headrace_index.tombstones
WHERE tenant = %s AND dataset = %s AND (document = %s OR document IS NULL)
"""

_BURY_ALL = """
INSERT INTO headrace_index.tombstones (tenant, dataset, document)
SELECT * FROM unnest(%s::text[], %s::uuid[], %s::uuid[])
ON CONFLICT DO NOTHING
"""

# A dataset whose build has found nothing is routed too: what is written next is to be of the new model.
_ROUTE = """
INSERT INTO headrace_index.routes (tenant, dataset, version)
SELECT DISTINCT tenant, dataset, %(version)s::integer FROM headrace_index.statistics_{n}
WHERE %(dataset)s::uuid IS NULL
UNION
SELECT %(tenant)s, %(dataset)s::uuid, %(version)s WHERE %(dataset)s::uuid IS NOT NULL AND NOT EXISTS (
    SELECT FROM headrace_index.tombstones
    WHERE tenant = %(tenant)s AND dataset = %(dataset)s::uuid AND document IS NULL
)
ON CONFLICT (tenant, dataset) DO UPDATE SET version = excluded.version
"""

_KEEP = """
UPDATE headrace_index.versions SET kept = true
WHERE number IN (SELECT version FROM headrace_index.routes WHERE %(dataset)s::uuid IS NULL OR dataset = %(dataset)s)
"""

_VACUUM = "VACUUM (ANALYZE) headrace_index.segments_{n}, headrace_index.postings_{n}"

_BUILT = """
SELECT value::integer FROM headrace_index.builds CROSS JOIN jsonb_each_text(versions)
"""

_UNUSED = f"""
SELECT number FROM headrace_index.versions
WHERE NOT kept AND number NOT IN (SELECT version FROM headrace_index.routes) AND number NOT IN ({_BUILT})
"""

_USED = f"SELECT number FROM headrace_index.versions WHERE NOT kept AND number NOT IN ({_BUILT})"

_MOVED_AWAY = """
SELECT DISTINCT tenant, dataset FROM headrace_index.statistics_{n} AS counted
WHERE NOT EXISTS (
    SELECT FROM headrace_index.routes
    WHERE tenant = counted.tenant AND dataset = counted.dataset AND version = %(version)s
)
"""
