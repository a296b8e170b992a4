"""Tables made anew from the log beside the live ones, and swapped in at their position, while the projector goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import aclosing

from psycopg import AsyncConnection, errors
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Identifier

from adapters.postgres.feed import batches, one_ahead
from adapters.postgres.tables import (
    NEXT,
    REBUILD_LOCK,
    SCHEMA,
    connect,
    finish_table,
    make_table,
    name,
    positions,
    set_up,
    turn,
)
from adapters.postgres.writer import Writer
from handlers.ports import Blobs, Log
from projections.catalog import READ_MODELS
from projections.read_model import ReadModel

NEAR = 5000
"""Messages that may be left to replay while the projector is held up."""

ROUNDS = 6
"""Each round replays what the projector did during the one before; whatever is left then is replayed while it waits."""

SWAP_TRIES = 10
SWAP_LOCK_S = 3
"""Readers of a table are waited for so long, and then let by, so that new ones never queue for longer behind them."""

Progress = Callable[[str, int, int], None]
"""Told the stream, the messages replayed, and how many there are."""


def unnoticed(stream: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


async def rebuild(
    url: str, log: Log, blobs: Blobs, names: Iterable[str] = (), progress: Progress = unnoticed
) -> list[str]:
    """Rebuild the tables of these names, or all; gives the names of those rebuilt: theirs, and those they depend on.

    Raises: KeyError for a name that no table has, Gap, LockNotAvailable when readers never let go of a table.
    """
    await set_up(url)
    models = with_parents(names)
    async with connect(url) as connection:
        await turn(connection, REBUILD_LOCK)
        await connection.execute(
            SQL("DROP SCHEMA IF EXISTS {next} CASCADE; CREATE SCHEMA {next}").format(next=Identifier(NEXT))
        )
        for model in models:
            await make_table(connection, model, NEXT)
            await finish_table(connection, model, NEXT)
        replay = _Replay(connection, log, Writer(models, NEXT, blobs), progress)
        for _ in range(ROUNDS):
            goal = await positions(connection)
            if sum(goal.values()) - sum(replay.after.values()) <= NEAR:
                break
            await replay.to(goal)
        for model in models:
            await connection.execute(SQL("ANALYZE {}").format(name(model, NEXT)))
        for attempt in range(1, SWAP_TRIES + 1):
            try:
                await _swap(connection, models, replay)
                break
            except errors.LockNotAvailable:
                if attempt == SWAP_TRIES:
                    raise
                await asyncio.sleep(SWAP_LOCK_S)
        await connection.execute(SQL("DROP SCHEMA {} CASCADE").format(Identifier(NEXT)))
    return [model.name for model in models]


def with_parents(names: Iterable[str]) -> list[ReadModel]:
    """The read models of these names, and those that their rules look at; all of them when there are no names."""
    known = {model.name: model for model in READ_MODELS}
    wanted = [known[name] for name in names] or list(READ_MODELS)
    for model in wanted:
        wanted.extend(parent for parent in model.parents if parent not in wanted)
    return [model for model in READ_MODELS if model in wanted]


class _Replay:
    """How far the new tables are, and the way on."""

    def __init__(self, connection: AsyncConnection[TupleRow], log: Log, writer: Writer, progress: Progress) -> None:
        self.after: Mapping[str, int] = {}
        self._connection = connection
        self._log = log
        self._writer = writer
        self._progress = progress

    async def to(self, goal: Mapping[str, int]) -> None:
        """Replay up to and including these sequences; all or nothing where the connection is in a transaction."""
        after = {stream: self.after.get(stream, 0) for stream in goal}
        source = batches(self._log, after, goal, self._writer.fold.blobs)
        async with aclosing(source), aclosing(one_ahead(self._writer.with_blobs(source))) as feed:
            async for fetched in feed:
                async with self._connection.transaction():
                    await self._writer.write(self._connection, fetched)
                for message in fetched[0]:
                    after[message.position.stream] = message.position.sequence
                for stream in goal:
                    self._progress(stream, after[stream], goal[stream])
        self.after = after


async def _swap(connection: AsyncConnection[TupleRow], models: Sequence[ReadModel], replay: _Replay) -> None:
    before = replay.after
    try:
        async with connection.transaction():
            await connection.execute(SQL("SET LOCAL lock_timeout = '{}s'").format(SWAP_LOCK_S))
            await replay.to(await positions(connection, lock=True))
            for model in models:
                await connection.execute(SQL("DROP TABLE IF EXISTS {}").format(name(model)))
                await connection.execute(
                    SQL("ALTER TABLE {} SET SCHEMA {}").format(name(model, NEXT), Identifier(SCHEMA))
                )
    except BaseException:
        replay.after = before
        raise
