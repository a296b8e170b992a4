"""Rebuild of tables from the log, next to the live ones, and their swap while the projector runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from psycopg import AsyncConnection, errors
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Identifier

from adapters.postgres import attachments
from adapters.postgres.copy import Copy, parts, with_parents
from adapters.postgres.policies import READER
from adapters.postgres.sql_roles import end_transactions
from adapters.postgres.tables import (
    LOCK_S,
    LOCK_TRIES,
    NEXT,
    OLD,
    REBUILD_LOCK,
    SCHEMA,
    connect,
    copied,
    drop,
    make_views,
    name,
    note_copied,
    protect,
    set_up,
    stale,
    turn,
)
from handlers.files import Files
from handlers.ports.log import Log
from handlers.work.progress import Progress, no_progress
from projections.catalog import GROUP_OF, READ_MODELS
from projections.engine.read_model import ReadModel
from projections.engine.values import BUILT_IN, Values

KEPT, RETURNING = "kept", "returning"
"""Versions of tables that were swapped out, and of those that are on their way back."""


class NothingKept(Exception):
    """There are no old tables that this version could put back."""


async def rebuild(
    url: str,
    log: Log,
    files: Files,
    names: Iterable[str] = (),
    progress: Progress = no_progress,
    values: Values = BUILT_IN,
    processes: int = 1,
) -> list[str]:
    """Rebuild the tables of these names, or all; gives the names of those rebuilt: theirs, and those they depend on.

    The tables that were live before are kept; where a group has halted, it is rebuilt by itself, and the tables of the
    part rebuilt last are kept. An interrupted rebuild is resumed.

    What others have attached to the live tables is attached to the new ones.

    Raises: KeyError for a name that no table has, Gap, InTheWay, LockNotAvailable when readers never let go of a table.
    """
    await set_up(url)
    models = with_parents(names)
    async with connect(url) as connection:
        await turn(connection, REBUILD_LOCK)
        await attachments.check(connection, models)
        for part in await parts(connection, models):
            copy = Copy(url, connection, NEXT, part, log, files, progress, values, processes)
            if not await copy.resume():
                await copy.begin()
            await _take_over(connection, copy)
    return [model.name for model in models]


async def undo(
    url: str, log: Log, files: Files, progress: Progress = no_progress, values: Values = BUILT_IN, processes: int = 1
) -> list[str]:
    """Bring the old tables to where the live ones are, and swap them in; gives their names.

    Raises: NothingKept, and what `rebuild` raises.
    """
    await set_up(url)
    async with connect(url) as connection:
        await turn(connection, REBUILD_LOCK)
        if not await copied(connection, NEXT, RETURNING):
            await _take_back(connection)
        models = await _present(connection, NEXT)
        await attachments.check(connection, models)
        copy = Copy(url, connection, NEXT, models, log, files, progress, values, processes, RETURNING)
        await copy.resume()
        await _take_over(connection, copy)
    return [model.name for model in models]


async def drop_old(url: str) -> list[str]:
    """Drop the old tables; gives their names."""
    await set_up(url)
    async with connect(url) as connection:
        await turn(connection, REBUILD_LOCK)
        dropped = await _present(connection, OLD)
        await drop(connection, OLD)
    return [model.name for model in dropped]


async def _take_back(connection: AsyncConnection[TupleRow]) -> None:
    """Make the old tables the next ones."""
    models = await _present(connection, OLD)
    if not models or not await copied(connection, OLD, KEPT):
        raise NothingKept("No old tables are kept.")
    if outdated := await stale(connection, models, OLD):
        names = ", ".join(model.name for model in outdated)
        raise NothingKept(f"Another version of Headrace made these old tables: {names}. Use that one.")
    async with connection.transaction():
        await drop(connection, NEXT)
        await connection.execute(SQL("ALTER SCHEMA {} RENAME TO {}").format(Identifier(OLD), Identifier(NEXT)))
        await connection.execute(
            "UPDATE headrace_projection.copies SET schema = %s, version = %s WHERE schema = %s", (NEXT, RETURNING, OLD)
        )
        await _note_moved(connection, models, OLD, NEXT)


async def _present(connection: AsyncConnection[TupleRow], schema: str) -> list[ReadModel]:
    """The read models that have a table in the schema."""
    cursor = await connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", (schema,))
    found = {name for (name,) in await cursor.fetchall()}
    return [model for model in READ_MODELS if model.name in found]


async def _take_over(connection: AsyncConnection[TupleRow], copy: Copy) -> None:
    """Fold the rest, and swap the tables in."""
    await copy.near()
    await copy.finish()
    await copy.near()  # what the projector did meanwhile
    await attachments.prepare(connection, copy.models)
    for attempt in range(1, LOCK_TRIES + 1):
        try:
            attached = await _swap(connection, copy)
            break
        except (errors.LockNotAvailable, errors.DeadlockDetected):
            if attempt == LOCK_TRIES:
                raise
            await end_transactions(connection)  # tenants may not keep an operator from a rebuild
            await copy.resume()
            await asyncio.sleep(LOCK_S)
    await attachments.measure(connection, attached)
    await make_views(connection)
    await protect(connection)


async def _swap(connection: AsyncConnection[TupleRow], copy: Copy) -> attachments.Attachments:
    async with connection.transaction():
        await connection.execute(SQL("SET LOCAL lock_timeout = '{}s'").format(LOCK_S))
        reached = await copy.goal(lock=True)
        await copy.to(reached)
        await drop(connection, OLD)
        await connection.execute(
            SQL("CREATE SCHEMA {old}; GRANT USAGE ON SCHEMA {old} TO {reader}").format(
                old=Identifier(OLD), reader=Identifier(READER)
            )
        )
        attached = await attachments.detach(connection, copy.models)
        move = SQL("ALTER TABLE IF EXISTS {} SET SCHEMA {}")
        for model in copy.models:
            await connection.execute(move.format(name(model), Identifier(OLD)))
            await connection.execute(move.format(name(model, NEXT), Identifier(SCHEMA)))
        await _note_moved(connection, copy.models, SCHEMA, OLD)
        await _note_moved(connection, copy.models, NEXT, SCHEMA)
        await attachments.attach(connection, attached)
        await drop(connection, NEXT)
        await note_copied(connection, OLD, KEPT, {GROUP_OF[model.name] for model in copy.models}, reached)
    return attached


async def _note_moved(connection: AsyncConnection[TupleRow], models: Sequence[ReadModel], old: str, new: str) -> None:
    await connection.execute(
        "UPDATE headrace_projection.tables SET (schema, waits_for) = (%s, NULL) WHERE schema = %s AND name = ANY(%s)",
        (new, old, [model.name for model in models]),
    )
