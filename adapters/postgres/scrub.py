"""Takes what rows were off the disk of a PostgreSQL of our own: dead rows, old tables, statistics, and the WAL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import structlog
from psycopg import AsyncConnection, errors
from psycopg.rows import TupleRow
from psycopg.sql import SQL

from adapters.postgres import tables
from adapters.postgres.tables import NEXT, OLD, REBUILD_LOCK, SCHEMA, connect, drop
from adapters.postgres.writer import Writer
from domain.access.end_user import EndUser
from domain.log import Commit, Metadata, Position, Subject
from handlers.ports.log import Unavailable
from projections.catalog import GROUPS, READ_MODELS
from projections.engine.read_model import ReadModel

log = structlog.get_logger(__name__)

PATIENCE_S = 60.0

SWITCHES = 2
"""Segments of the WAL are removed by the checkpoint after the one that they were needed for."""


class PostgresScrub:
    """`data` is the folder of a server that is ours; that of another is left to its administrator."""

    def __init__(self, url: str, data: Path) -> None:
        self._url = url
        self._data = str(data)

    async def __call__(self, tenant: str, person: str, erased: Position) -> None:
        """Raises: Unavailable, when the tables are not as far yet, or are in use."""
        try:
            async with connect(self._url) as connection:
                halted = await tables.halted(connection)
            for group, models in GROUPS.items():
                if group in halted:
                    await self._erase(models, tenant, person, erased)
                else:
                    await tables.wait_for(self._url, erased, PATIENCE_S, tables=[model.name for model in models])
            async with connect(self._url) as connection:
                await self._drop_old(connection)
                if not await self._ours(connection):
                    return
                for model in READ_MODELS:
                    if "person_id" in model.blank:
                        for how in ("ANALYZE", "VACUUM FULL"):
                            await connection.execute(SQL(f"{how} {{}}").format(tables.name(model, SCHEMA)))
                await connection.execute("VACUUM FULL pg_catalog.pg_statistic")
                for _ in range(SWITCHES):
                    await connection.execute("SELECT pg_switch_wal()")
                    await connection.execute("CHECKPOINT")
        except (TimeoutError, psycopg.Error) as error:
            raise Unavailable(f"The tables cannot be scrubbed yet: {error!r}") from error

    async def _erase(self, models: Sequence[ReadModel], tenant: str, person: str, erased: Position) -> None:
        """Erase the person from the tables of a group that has halted, ahead of its position.

        When the group goes on, it reads no word of the person any more, because the key is gone.
        """
        at = datetime.now(UTC)
        events = EndUser.begin(EndUser.Erased, person, at, known=True).pending()
        commit = Commit(Subject(tenant, EndUser.TOPIC, person), events, Metadata(person, tenant, person), erased, at)
        async with connect(self._url) as connection, connection.transaction():
            await Writer(models, SCHEMA).write(connection, ([commit], {}))

    async def _drop_old(self, connection: AsyncConnection[TupleRow]) -> None:
        """Tables that are not live hold what was said: those that are kept go; those that are made will be emptied."""
        cursor = await connection.execute("SELECT pg_try_advisory_lock(%s)", (REBUILD_LOCK,))
        if await cursor.fetchone() != (True,):
            raise Unavailable("The tables are being rebuilt: those that are not live are scrubbed afterwards.")
        try:
            for schema in (OLD, NEXT):
                await drop(connection, schema)
        finally:
            await connection.execute("SELECT pg_advisory_unlock(%s)", (REBUILD_LOCK,))

    async def _ours(self, connection: AsyncConnection[TupleRow]) -> bool:
        try:
            cursor = await connection.execute("SELECT current_setting('data_directory')")
        except errors.InsufficientPrivilege:
            return False
        found = await cursor.fetchone()
        ours = found is not None and found[0] == self._data
        if not ours:
            log.warning("not scrubbed", reason="the PostgreSQL server is not ours", advice="see docs/privacy.md")
        return ours
