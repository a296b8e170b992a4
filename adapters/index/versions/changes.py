"""Changes to versions together with the rows that lead to them."""

from __future__ import annotations

from collections.abc import Sequence

from adapters.index.versions.database import Cursor
from adapters.index.versions.schema import Scope
from adapters.index.versions.store import AnyStore
from handlers.ports.index import too_long
from projections.values.words import RULES


async def lock_versions(cursor: Cursor, store: AnyStore) -> None:
    """Keep others from making or dropping a version until the transaction ends."""
    await cursor.execute("SELECT pg_advisory_xact_lock(%s)", [store.schema.key("versions")])


async def make_version(cursor: Cursor, store: AnyStore, model: str, dimension: int, *, live: bool) -> int:
    """Make a version and return its number. Raises: ModelError `unsupported` for vectors that are too long."""
    if dimension > store.longest:
        raise too_long(dimension, store.longest)
    await cursor.execute(store.schema.sql(_INSERT), [model, dimension, live, RULES])
    [number] = await cursor.fetchone() or [0]
    await store.make(cursor, number, dimension, live=live)
    return int(number)


async def drop_version(cursor: Cursor, store: AnyStore, number: int) -> bool:
    """Drop a version; False when there is none that is neither searched nor being built."""
    await lock_versions(cursor, store)
    await cursor.execute(store.schema.sql(_DROPPABLE), [number])
    found = await cursor.fetchone() is not None
    if found:
        await _drop(cursor, store, [number])
    return found


async def _drop(cursor: Cursor, store: AnyStore, numbers: Sequence[int]) -> None:
    await cursor.execute(store.schema.sql("DELETE FROM {schema}.versions WHERE number = ANY (%s)"), [numbers])
    await store.drop(cursor, numbers)


async def delete(cursor: Cursor, store: AnyStore, scope: Scope) -> None:
    """Remove a document, or all of a dataset, from every version, for good."""
    sql, names = store.schema.sql, scope._asdict()
    await cursor.execute(sql(_TOMBSTONE), names)
    for number in await locked_versions(cursor, store):
        await store.delete(cursor, number, scope)
    await cursor.execute(sql(_FORGET_REMOVALS), names)
    if scope.document is None:
        await cursor.execute(sql(_UNROUTE), names)
        await cursor.execute(sql(_FORGET_TOMBSTONES), names)


async def remove(cursor: Cursor, store: AnyStore, scope: Scope, ids: Sequence[str], sequence: int) -> None:
    """Remove entries from every version, unless they were written later in the log."""
    await cursor.execute(store.schema.sql(_NOTE_REMOVALS), [*scope, sequence, list(ids)])
    for number in await locked_versions(cursor, store):
        await store.remove(cursor, number, scope, ids, sequence)


async def tidy(cursor: Cursor, store: AnyStore) -> None:
    """Drop versions that are not searched, built or kept; purge the others of datasets that were moved away."""
    sql = store.schema.sql
    await lock_versions(cursor, store)
    await cursor.execute(sql(_UNUSED))
    await _drop(cursor, store, [number for (number,) in await cursor.fetchall()])
    await cursor.execute(sql(_USED))
    for (number,) in await cursor.fetchall():
        await cursor.execute(sql(_MOVED_AWAY.replace("{held}", store.holding(number))), [number])
        for moved in await cursor.fetchall():
            await store.purge(cursor, number, Scope(*moved))
    await store.point(cursor)


async def locked_versions(cursor: Cursor, store: AnyStore) -> list[int]:
    """The numbers of all versions, which cannot be dropped until the transaction ends."""
    await cursor.execute(store.schema.sql("SELECT number FROM {schema}.versions ORDER BY number FOR KEY SHARE"))
    return [number for (number,) in await cursor.fetchall()]


_INSERT = "INSERT INTO {schema}.versions (model, dimension, live, rules) VALUES (%s, %s, %s, %s) RETURNING number"

_TOMBSTONE = """
INSERT INTO {schema}.tombstones (tenant, dataset, document) VALUES (%(tenant)s, %(dataset)s, %(document)s)
ON CONFLICT DO NOTHING
"""

_NOTE_REMOVALS = """
INSERT INTO {schema}.removals AS known (tenant, dataset, document, sequence, id)
SELECT %s, %s::uuid, %s::uuid, %s::bigint, id FROM unnest(%s::uuid[]) AS given (id)
ON CONFLICT (tenant, dataset, document, id)
DO UPDATE SET sequence = greatest(known.sequence, excluded.sequence)
"""

_FORGET_REMOVALS = """
DELETE FROM {schema}.removals
WHERE tenant = %(tenant)s AND dataset = %(dataset)s AND (%(document)s::uuid IS NULL OR document = %(document)s::uuid)
"""

_UNROUTE = "DELETE FROM {schema}.routes WHERE tenant = %(tenant)s AND dataset = %(dataset)s"

_FORGET_TOMBSTONES = """
DELETE FROM {schema}.tombstones WHERE tenant = %(tenant)s AND dataset = %(dataset)s AND document IS NOT NULL
"""

_BUILT = "SELECT value::integer FROM {schema}.builds CROSS JOIN jsonb_each_text(versions)"

_USED = f"SELECT number FROM {{schema}}.versions WHERE NOT kept AND number NOT IN ({_BUILT})"

_SEARCHED = "SELECT version FROM {schema}.routes"

_UNUSED = f"{_USED} AND number NOT IN ({_SEARCHED}) FOR UPDATE"

_DROPPABLE = f"""
SELECT 1 FROM {{schema}}.versions
WHERE number = %s AND number NOT IN ({_SEARCHED}) AND number NOT IN ({_BUILT})
"""

_MOVED_AWAY = """
SELECT tenant, dataset::text FROM (
    {held} EXCEPT SELECT tenant, dataset FROM {schema}.routes WHERE version = %s
) AS moved
"""
