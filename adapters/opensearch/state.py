"""What versions the index has, what is being built, and how the cluster is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from psycopg import AsyncConnection, AsyncCursor, OperationalError
from psycopg.rows import TupleRow

from adapters.opensearch.client import Access, connected, waiting
from adapters.opensearch.routes import drop_versions, index_name, key, prefix_of
from adapters.opensearch.segments import Segments
from adapters.pgvector.state import Building, State, Version
from handlers.ports import Unavailable


@dataclass(frozen=True, slots=True)
class Health:
    """`status` is green, yellow (copies are missing) or red (segments are missing)."""

    version: str
    status: str
    nodes: int
    unassigned: int
    knn: bool
    """Whether every node can search vectors."""


async def health(access: Access) -> Health:
    """Raises: Unavailable."""
    async with connected(access) as client:
        with waiting():
            version = (await client.info())["version"]["number"]
            cluster = await client.cluster.health()
            plugins = await client.nodes.info(metric="plugins")
    names = [{plugin["name"] for plugin in node["plugins"]} for node in plugins["nodes"].values()]
    knn = all(any("knn" in name.lower() for name in of) for of in names)
    return Health(version, cluster["status"], cluster["number_of_nodes"], cluster["unassigned_shards"], knn)


async def state(url: str, access: Access) -> State:
    """Raises: Unavailable."""
    async with _connected(url, access) as (cursor, segments):
        await cursor.execute("SELECT to_regclass('headrace_opensearch.builds')")
        if await cursor.fetchone() == (None,):
            return State()
        await cursor.execute("SELECT number FROM headrace_opensearch.versions FOR KEY SHARE")  # none is dropped
        await cursor.execute(_LOCKS)
        held = {lock for (lock,) in await cursor.fetchall()}
        await cursor.execute(_BUILDS)
        builds = [Building(key("build", row[0]) in held, *row) for row in await cursor.fetchall()]
        built = {number for build in builds for number in build.versions}
        prefix = await prefix_of(cursor)
        await cursor.execute(_VERSIONS)
        rows = await cursor.fetchall()
        counts = await segments.counts([index_name(prefix, row[0]) for row in rows])
    versions = []
    for number, model, dimension, kept, made_at, datasets in rows:
        status = "searched" if datasets else "built" if number in built else "kept" if kept else "unused"
        count = counts.get(index_name(prefix, number), 0)
        versions.append(Version(number, model, dimension, status, datasets, count, made_at))
    return State(versions, builds)


async def drop(url: str, access: Access, number: int) -> bool:
    """Drop a version; whether there was one that is neither searched nor built. Raises: Unavailable."""
    async with _connected(url, access) as (cursor, segments):
        await cursor.execute("SELECT pg_advisory_xact_lock(%s)", [key("versions")])
        await cursor.execute(_DROPPABLE, [number])
        if not await cursor.fetchone():
            return False
        await drop_versions(cursor, segments, await prefix_of(cursor), [number])
        return True


@asynccontextmanager
async def _connected(url: str, access: Access) -> AsyncIterator[tuple[AsyncCursor[TupleRow], Segments]]:
    try:
        async with (
            await AsyncConnection.connect(url, autocommit=True, connect_timeout=10) as connection,
            connected(access) as client,
            connection.transaction(),
            connection.cursor() as cursor,
        ):
            yield cursor, Segments(client)
    except OperationalError as error:
        raise Unavailable(f"PostgreSQL does not answer: {error}") from error


_BUILDS = """
SELECT id::text, tenant, dataset::text, ARRAY(SELECT value::integer FROM jsonb_each_text(versions)),
    attempt, reached, goal, began_at
FROM headrace_opensearch.builds ORDER BY began_at
"""

_LOCKS = "SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND granted"

_VERSIONS = """
SELECT number, model, dimension, kept, made_at, count(dataset)
FROM headrace_opensearch.versions LEFT JOIN headrace_opensearch.routes ON version = number
GROUP BY number ORDER BY number
"""

_DROPPABLE = """
SELECT 1 FROM headrace_opensearch.versions
WHERE number = %s AND number NOT IN (SELECT version FROM headrace_opensearch.routes)
    AND number NOT IN (SELECT value::integer FROM headrace_opensearch.builds CROSS JOIN jsonb_each_text(versions))
"""
