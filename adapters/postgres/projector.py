"""The projector: keeps the tables up to date with the log, each batch's rows and positions in one transaction."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

import psycopg
import structlog
from psycopg import AsyncConnection, errors
from psycopg.rows import TupleRow

from adapters.postgres.attachments import InTheWay
from adapters.postgres.feed import batches
from adapters.postgres.rebuild import rebuild
from adapters.postgres.tables import PROJECTOR_LOCK, SCHEMA, connect, note_waiting, positions, set_up, stale, turn
from adapters.postgres.writer import Writer
from handlers.ports.log import Blobs, Log, Unavailable
from projections.catalog import READ_MODELS
from projections.engine.values import BUILT_IN, Values

logger = structlog.get_logger(__name__)

SHORTEST_WAIT_S = 0.2
LONGEST_WAIT_S = 5.0

LOOK_AGAIN_S = 30.0
"""Whether what is in the way of a rebuild is gone."""

OUTAGES = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    errors.UndefinedTable,
    errors.InvalidSchemaName,
    Unavailable,
)
"""What passes when a server comes back, or when tables that someone dropped were rebuilt."""


class Halted(Exception):
    """The tables cannot be taken further without harm; they stay as they are until someone has looked at the reason."""


class Projector:
    """Follows the log into the tables. Of several, one works and the others wait to take over."""

    def __init__(self, url: str, log: Log, blobs: Blobs, values: Values = BUILT_IN) -> None:
        self._url = url
        self._log = log
        self._blobs = blobs
        self._values = values

    async def run(self) -> None:
        """Work until cancelled, through outages; rebuild the tables that are missing or that another version made.

        Raises: Halted.
        """
        wait = SHORTEST_WAIT_S
        while True:
            began = time.monotonic()
            try:
                await self._lead()
            except OUTAGES as error:
                if time.monotonic() - began > LONGEST_WAIT_S:
                    wait = SHORTEST_WAIT_S
                logger.warning("projector.waiting", reason=str(error), seconds=wait)
                await asyncio.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT_S)
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                logger.critical("projector.halted", reason=reason)
                raise Halted(reason) from error

    async def _lead(self) -> None:
        await set_up(self._url)
        async with connect(self._url) as connection:
            await turn(connection, PROJECTOR_LOCK)
            while outdated := await stale(connection):
                names = [model.name for model in outdated]
                logger.warning("projector.rebuilding", tables=names)
                try:
                    await rebuild(self._url, self._log, self._blobs, names, values=self._values)
                except InTheWay as error:
                    # All tables stand still together: they share one position, which others read as that of each.
                    logger.error("projector.in_the_way", tables=names, reason=str(error), seconds=LOOK_AGAIN_S)
                    await note_waiting(connection, outdated, str(error))
                    await asyncio.sleep(LOOK_AGAIN_S)
            await self._follow(connection)

    async def _follow(self, connection: AsyncConnection[TupleRow]) -> None:
        writer = Writer(READ_MODELS, SCHEMA, self._blobs, self._values)
        after = await positions(connection)
        logger.info("projector.following", **after)
        source = batches(self._log, after, None, writer.fold.blobs)
        async with aclosing(source), aclosing(writer.with_blobs(source)) as feed:
            async for fetched in feed:
                reached = after | {message.position.stream: message.position.sequence for message in fetched[0]}
                async with connection.transaction():
                    if (found := await positions(connection, lock=True)) != after:
                        raise RuntimeError(f"The tables are at {found}, not at {after}: someone else wrote to them.")
                    await writer.write(connection, fetched)
                    await connection.cursor().executemany(
                        "UPDATE headrace_projection.checkpoints SET sequence = %s WHERE stream = %s",
                        [(sequence, stream) for stream, sequence in reached.items()],
                    )
                after = reached
