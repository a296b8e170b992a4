"""Tables made anew from the log beside the live ones, and swapped in at their position, while the projector goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from psycopg import AsyncConnection, errors
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Identifier

from adapters.postgres.replay import Replay, with_parents
from adapters.postgres.tables import (
    NEXT,
    OLD,
    READER,
    REBUILD_LOCK,
    SCHEMA,
    connect,
    copied,
    drop,
    name,
    note_copied,
    positions,
    set_up,
    stale,
    turn,
)
from handlers.ports.log import Blobs, Log
from handlers.work.progress import Progress, no_progress
from projections.catalog import READ_MODELS
from projections.engine.read_model import ReadModel

SWAP_TRIES = 10
SWAP_LOCK_S = 3
"""Readers of a table are waited for so long, and then let by, so that new ones never queue for longer behind them."""

KEPT, RETURNING = "kept", "returning"
"""Versions of tables that were swapped out, and of those that are on their way back."""


class NothingKept(Exception):
    """There are no old tables that this version could put back."""


class ViewsInTheWay(Exception):
    """Views of somebody's would stay with the old tables."""


async def rebuild(
    url: str, log: Log, blobs: Blobs, names: Iterable[str] = (), progress: Progress = no_progress
) -> list[str]:
    """Rebuild the tables of these names, or all; gives the names of those rebuilt: theirs, and those they depend on.

    The tables that were live before are kept. What an earlier call began and did not end, this one goes on with.

    Raises: KeyError for a name that no table has, Gap, ViewsInTheWay, LockNotAvailable when readers never let go of a
    table.
    """
    await set_up(url)
    models = with_parents(names)
    async with connect(url) as connection:
        await turn(connection, REBUILD_LOCK)
        replay = Replay(connection, NEXT, models, log, blobs, progress)
        if not await replay.resume():
            await replay.begin()
        await _take_over(connection, replay)
    return [model.name for model in models]


async def undo(url: str, log: Log, blobs: Blobs, progress: Progress = no_progress) -> list[str]:
    """Bring the old tables to where the live ones are, and swap them in; gives their names.

    Raises: NothingKept, and what `rebuild` raises.
    """
    await set_up(url)
    async with connect(url) as connection:
        await turn(connection, REBUILD_LOCK)
        if not await copied(connection, NEXT, RETURNING):
            await _take_back(connection)
        models = await _present(connection, NEXT)
        replay = Replay(connection, NEXT, models, log, blobs, progress, RETURNING)
        await replay.resume()
        await _take_over(connection, replay)
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
        raise NothingKept(f"Old tables have other columns than this version's: {names}. Use the one that made them.")
    async with connection.transaction():
        await drop(connection, NEXT)
        await connection.execute(SQL("ALTER SCHEMA {} RENAME TO {}").format(Identifier(OLD), Identifier(NEXT)))
        await connection.execute(
            "UPDATE headrace_projection.copies SET schema = %s, version = %s WHERE schema = %s", (NEXT, RETURNING, OLD)
        )


async def _present(connection: AsyncConnection[TupleRow], schema: str) -> list[ReadModel]:
    """The read models that have a table in the schema."""
    cursor = await connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", (schema,))
    found = {name for (name,) in await cursor.fetchall()}
    return [model for model in READ_MODELS if model.name in found]


async def _take_over(connection: AsyncConnection[TupleRow], replay: Replay) -> None:
    """Replay the rest, and swap the tables in."""
    await _refuse_views(connection, replay.models)
    await replay.near()
    for attempt in range(1, SWAP_TRIES + 1):
        try:
            await _swap(connection, replay)
            break
        except errors.LockNotAvailable:
            if attempt == SWAP_TRIES:
                raise
            await replay.resume()
            await asyncio.sleep(SWAP_LOCK_S)


async def _refuse_views(connection: AsyncConnection[TupleRow], models: Sequence[ReadModel]) -> None:
    cursor = await connection.execute(
        """SELECT DISTINCT ev_class::regclass::text FROM pg_depend JOIN pg_rewrite ON pg_rewrite.oid = objid
        WHERE ev_class <> refobjid AND refobjid IN (
            SELECT oid FROM pg_class WHERE relnamespace = to_regnamespace(%s) AND relname = ANY(%s)
        ) ORDER BY 1""",
        (SCHEMA, [model.name for model in models]),
    )
    if views := [view for (view,) in await cursor.fetchall()]:
        raise ViewsInTheWay(f"Drop these views, and make them again afterwards: {', '.join(views)}.")


async def _swap(connection: AsyncConnection[TupleRow], replay: Replay) -> None:
    async with connection.transaction():
        await connection.execute(SQL("SET LOCAL lock_timeout = '{}s'").format(SWAP_LOCK_S))
        reached = await positions(connection, lock=True)
        await replay.to(reached)
        await drop(connection, OLD)
        await connection.execute(
            SQL("CREATE SCHEMA {old}; GRANT USAGE ON SCHEMA {old} TO {reader}").format(
                old=Identifier(OLD), reader=Identifier(READER)
            )
        )
        move = SQL("ALTER TABLE IF EXISTS {} SET SCHEMA {}")
        for model in replay.models:
            await connection.execute(move.format(name(model), Identifier(OLD)))
            await connection.execute(move.format(name(model, NEXT), Identifier(SCHEMA)))
        await drop(connection, NEXT)
        await note_copied(connection, OLD, KEPT, reached)
