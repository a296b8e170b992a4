"""Takes what rows were off the disk of a PostgreSQL of our own: dead rows, old tables, statistics, and the WAL."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import structlog
from psycopg import AsyncConnection, errors
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Identifier

from adapters.postgres import tables
from adapters.postgres.tables import NEXT, OLD, REBUILD_LOCK, SCHEMA, connect, drop
from adapters.postgres.writer import Writer
from domain.access.end_user import EndUser
from domain.log import Commit, Metadata, Position, Subject
from handlers.ports.log import Unavailable
from projections.catalog import GROUPS, READ_MODELS
from projections.document_segments import child_chunks, document_segments
from projections.engine.read_model import ReadModel
from projections.traces.subjects import subjects

log = structlog.get_logger(__name__)

PATIENCE_S = 60.0

LOOKS_S = 0.1

_TEXTS = re.compile(r"(segments|postings)_[0-9]+")
"""Tables of the index with texts or words."""

SWITCHES = 2
"""Segments of the WAL are removed by the checkpoint after the one that they were needed for."""


class PostgresScrub:
    """`data` is the folder of a server that is ours; that of another is left to its administrator."""

    def __init__(self, url: str, data: Path) -> None:
        self._url = url
        self._data = str(data)

    async def uploads(self, tenant: str, person: str, erased: Position) -> Sequence[str]:
        """The documents that the person has ever uploaded. Raises: Unavailable, when the tables are not as far yet."""
        try:
            await tables.wait_for(self._url, erased, PATIENCE_S, tables=[subjects.name])
            async with connect(self._url) as connection:
                return await self._uploads(connection, tenant, person)
        except (TimeoutError, psycopg.Error) as error:
            raise Unavailable(f"The person's documents cannot be found yet: {error!r}") from error

    async def __call__(self, tenant: str, person: str, erased: Position) -> None:
        """Raises: Unavailable, when the tables are not as far yet, or are in use, or the index is not."""
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
                scrubbed = [tables.name(model, SCHEMA) for model in READ_MODELS if "person_id" in model.blank]
                if uploads := await self._uploads(connection, tenant, person):
                    scrubbed += [tables.name(model, SCHEMA) for model in (document_segments, child_chunks)]
                    scrubbed += await self._index_without(connection, tenant, uploads)
                for table in scrubbed:
                    for how in ("ANALYZE", "VACUUM FULL"):
                        await connection.execute(SQL(f"{how} {{}}").format(table))
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

    async def _uploads(self, connection: AsyncConnection[TupleRow], tenant: str, person: str) -> list[str]:
        """From the table that outlives deleted documents: an erasure that was interrupted finds them again."""
        query = SQL("SELECT id FROM {} WHERE tenant_id = %s AND person_id = %s AND noun = 'document' ORDER BY id")
        cursor = await connection.execute(query.format(tables.name(subjects, SCHEMA)), [tenant, person])
        return [str(id) for (id,) in await cursor.fetchall()]

    async def _index_without(
        self, connection: AsyncConnection[TupleRow], tenant: str, documents: Sequence[str]
    ) -> list[Identifier]:
        """The tables of the index with texts, once these documents are gone from it, and from the tables.

        Raises: Unavailable.
        """
        cursor = await connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'headrace_index' ORDER BY tablename"
        )
        names = [name for (name,) in await cursor.fetchall() if _TEXTS.fullmatch(name)]
        left = SQL("SELECT 1 FROM {} WHERE {} = %s AND {}::text = ANY(%s) LIMIT 1")
        lefts = [
            left.format(Identifier("headrace_index", name), Identifier("tenant"), Identifier("document"))
            for name in names
            if name.startswith("segments")
        ]
        table = tables.name(document_segments, SCHEMA)
        lefts.append(left.format(table, Identifier("tenant_id"), Identifier("document_id")))
        async with asyncio.timeout(PATIENCE_S):
            for each in lefts:
                while await (await connection.execute(each, [tenant, list(documents)])).fetchone():
                    await asyncio.sleep(LOOKS_S)
        return [Identifier("headrace_index", name) for name in names]

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
