"""What versions the index has, and what is being built."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

from psycopg import AsyncConnection, OperationalError

from adapters.versions.changes import drop_versions, lock_versions
from adapters.versions.schema import Schema
from adapters.versions.store import Cursor, S, Stored
from handlers.ports import Unavailable


@dataclass(frozen=True, slots=True)
class Version:
    """`datasets` are searched in it; `segments` is how many it holds. A version is `searched`, `built`, `kept` until
    somebody drops it, or `unused` until the next build does."""

    number: int
    model: str
    dimension: int
    state: str
    datasets: int
    segments: int
    made_at: datetime


@dataclass(frozen=True, slots=True)
class Building:
    """Of all when it has no dataset; `running` tells whether some process is at it now."""

    running: bool
    id: str
    tenant: str | None
    dataset: str | None
    versions: list[int]
    attempt: int
    reached: int
    goal: int
    began_at: datetime


@dataclass(frozen=True, slots=True)
class State:
    versions: list[Version] = field(default_factory=list)
    builds: list[Building] = field(default_factory=list)


async def state(url: str, schema: Schema, stored: Stored[S]) -> State:
    """Raises: Unavailable."""
    async with _transaction(url) as cursor:
        await cursor.execute(schema.sql("SELECT to_regclass('{schema}.removals')"))  # the last that is made
        if await cursor.fetchone() == (None,):
            return State()
        await cursor.execute(schema.sql("SELECT FROM {schema}.versions FOR KEY SHARE"))  # none is dropped meanwhile
        await cursor.execute(_LOCKS)
        held = {lock for (lock,) in await cursor.fetchall()}
        await cursor.execute(schema.sql(_BUILDS))
        builds = [Building(schema.key("build", row[0]) in held, *row) for row in await cursor.fetchall()]
        await cursor.execute(schema.sql(_VERSIONS))
        rows = await cursor.fetchall()
        async with stored() as store:
            counts = await store.counts(cursor, [number for number, *_ in rows])
    built = {number for build in builds for number in build.versions}
    versions = []
    for number, model, dimension, kept, made_at, datasets in rows:
        doing = "searched" if datasets else "built" if number in built else "kept" if kept else "unused"
        versions.append(Version(number, model, dimension, doing, datasets, counts.get(number, 0), made_at))
    return State(versions, builds)


async def drop(url: str, schema: Schema, stored: Stored[S], number: int) -> bool:
    """Drop a version; whether there was one that is neither searched nor built. Raises: Unavailable."""
    async with _transaction(url) as cursor, stored() as store:
        await lock_versions(cursor, store)
        await cursor.execute(schema.sql(_DROPPABLE), [number])
        if not await cursor.fetchone():
            return False
        await drop_versions(cursor, store, [number])
        return True


@asynccontextmanager
async def _transaction(url: str) -> AsyncIterator[Cursor]:
    try:
        async with (
            await AsyncConnection.connect(url, autocommit=True, connect_timeout=10) as connection,
            connection.transaction(),
            connection.cursor() as cursor,
        ):
            yield cursor
    except OperationalError as error:
        raise Unavailable(f"The tables of the index do not answer: {error}") from error


_BUILDS = """
SELECT id::text, tenant, dataset::text, ARRAY(SELECT value::integer FROM jsonb_each_text(versions)),
    attempt, reached, goal, began_at
FROM {schema}.builds ORDER BY began_at
"""

_LOCKS = "SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND granted"

_VERSIONS = """
SELECT number, model, dimension, kept, made_at, count(dataset)
FROM {schema}.versions LEFT JOIN {schema}.routes ON version = number
GROUP BY number ORDER BY number
"""

_DROPPABLE = """
SELECT 1 FROM {schema}.versions
WHERE number = %s AND number NOT IN (SELECT version FROM {schema}.routes)
    AND number NOT IN (SELECT value::integer FROM {schema}.builds CROSS JOIN jsonb_each_text(versions))
"""
