"""What versions the index has, and what is being built."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

from psycopg import AsyncConnection, AsyncCursor, OperationalError
from psycopg.rows import TupleRow

from adapters.pgvector.tables import drop_version, key
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


async def state(url: str) -> State:
    """Raises: Unavailable."""
    async with _connected(url) as connection, connection.transaction(), connection.cursor() as cursor:
        await cursor.execute("SELECT to_regclass('headrace_index.builds')")
        if await cursor.fetchone() == (None,):
            return State()
        await cursor.execute("SELECT number FROM headrace_index.versions FOR KEY SHARE")  # none is dropped meanwhile
        await cursor.execute(_LOCKS)
        held = {lock for (lock,) in await cursor.fetchall()}
        await cursor.execute(_BUILDS)
        builds = [Building(key("build", row[0]) in held, *row) for row in await cursor.fetchall()]
        await cursor.execute(_VERSIONS)
        built = {number for build in builds for number in build.versions}
        return State([await _version(cursor, row, built) for row in await cursor.fetchall()], builds)


async def _version(cursor: AsyncCursor[TupleRow], row: TupleRow, built: set[int]) -> Version:
    number, model, dimension, kept, made_at, datasets = row
    counting = f"SELECT coalesce(sum(segments), 0)::bigint FROM headrace_index.statistics_{number}"
    await cursor.execute(counting.encode())
    [segments] = await cursor.fetchone() or [0]
    state = "searched" if datasets else "built" if number in built else "kept" if kept else "unused"
    return Version(number, model, dimension, state, datasets, segments, made_at)


async def drop(url: str, number: int) -> bool:
    """Drop a version; whether there was one that is neither searched nor built. Raises: Unavailable."""
    async with _connected(url) as connection, connection.transaction(), connection.cursor() as cursor:
        await cursor.execute("SELECT pg_advisory_xact_lock(%s)", [key("versions")])
        await cursor.execute(_DROPPABLE, [number])
        if not await cursor.fetchone():
            return False
        await drop_version(cursor, number)
        return True


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[AsyncConnection[TupleRow]]:
    try:
        async with await AsyncConnection.connect(url, autocommit=True, connect_timeout=10) as connection:
            yield connection
    except OperationalError as error:
        raise Unavailable(f"The index does not answer: {error}") from error


_BUILDS = """
SELECT id::text, tenant, dataset::text, ARRAY(SELECT value::integer FROM jsonb_each_text(versions)),
    attempt, reached, goal, began_at
FROM headrace_index.builds ORDER BY began_at
"""

_LOCKS = "SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND granted"

_VERSIONS = """
SELECT number, model, dimension, kept, made_at, count(dataset)
FROM headrace_index.versions LEFT JOIN headrace_index.routes ON version = number
GROUP BY number ORDER BY number
"""

_DROPPABLE = """
SELECT 1 FROM headrace_index.versions
WHERE number = %s AND number NOT IN (SELECT version FROM headrace_index.routes)
    AND number NOT IN (SELECT value::integer FROM headrace_index.builds CROSS JOIN jsonb_each_text(versions))
"""
