"""The versions of the index, and what is being built."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from adapters.index.versions.changes import drop_version, locked_versions
from adapters.index.versions.database import transaction
from adapters.index.versions.store import AnyStore
from projections.values.words import RULES


@dataclass(frozen=True, slots=True)
class Version:
    """Number of `datasets` that are searched in it, and of `segments` that it holds.

    A version is `searched`, `built`, `kept` until it is dropped on request, or `unused` until the next build drops it.
    `outdated`: its words were made by other rules than this version of Headrace has, and it should be rebuilt.
    """

    number: int
    model: str
    dimension: int
    state: str
    datasets: int
    segments: int
    made_at: datetime
    outdated: bool = False


@dataclass(frozen=True, slots=True)
class Building:
    """A build of everything, or of a dataset; `running` when a process works at it now."""

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


async def state(url: str, store: AnyStore) -> State:
    """Raises: Unavailable."""
    async with transaction(url) as cursor:
        schema = store.schema
        await cursor.execute(schema.sql("SELECT to_regclass('{schema}.removals')"))  # the last that is made
        if await cursor.fetchone() == (None,):
            return State()
        await locked_versions(cursor, store)
        await cursor.execute(_LOCKS)
        held = {lock for (lock,) in await cursor.fetchall()}
        await cursor.execute(schema.sql(_BUILDS))
        builds = [Building(schema.key("build", row[0]) in held, *row) for row in await cursor.fetchall()]
        await cursor.execute(schema.sql(_VERSIONS.replace("{rules}", _RULES)))
        rows = await cursor.fetchall()
        counts = await store.counts(cursor, [number for number, *_ in rows])
    built = {number for build in builds for number in build.versions}
    versions = []
    for number, model, dimension, kept, made_at, rules, datasets in rows:
        doing = "searched" if datasets else "built" if number in built else "kept" if kept else "unused"
        versions.append(
            Version(number, model, dimension, doing, datasets, counts.get(number, 0), made_at, rules != RULES)
        )
    return State(versions, builds)


async def outdated(url: str, store: AnyStore) -> int:
    """The number of datasets that are searched in versions whose words other rules made. Raises: Unavailable."""
    async with transaction(url) as cursor:
        await cursor.execute(store.schema.sql("SELECT to_regclass('{schema}.removals')"))
        if await cursor.fetchone() == (None,):
            return 0
        await cursor.execute(store.schema.sql(_OUTDATED.replace("{rules}", _RULES)), [RULES])
        [count] = await cursor.fetchone() or [0]
    return int(count)


async def drop(url: str, store: AnyStore, number: int) -> bool:
    """Drop a version; False when there is none that is neither searched nor being built. Raises: Unavailable."""
    async with transaction(url) as cursor:
        return await drop_version(cursor, store, number)


_RULES = "coalesce((to_jsonb(versions) ->> 'rules')::integer, 1)"
"""The rules of a version, also in tables that an earlier version of Headrace made."""

_OUTDATED = """
SELECT count(*) FROM {schema}.routes JOIN {schema}.versions ON number = version WHERE {rules} <> %s
"""

_BUILDS = """
SELECT id::text, tenant, dataset::text, ARRAY(SELECT value::integer FROM jsonb_each_text(versions)),
    attempt, reached, goal, began_at
FROM {schema}.builds ORDER BY began_at
"""

_LOCKS = "SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND granted"

_VERSIONS = """
SELECT number, model, dimension, kept, made_at, {rules}, count(dataset)
FROM {schema}.versions LEFT JOIN {schema}.routes ON version = number
GROUP BY number ORDER BY number
"""
