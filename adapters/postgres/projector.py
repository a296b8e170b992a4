"""The projector: keeps the tables up to date with the log, each batch's rows and positions in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import orjson
import psycopg
import structlog
from psycopg import AsyncConnection, errors
from psycopg.rows import TupleRow, dict_row
from psycopg.sql import SQL, Composed, Identifier

from adapters.postgres.feed import batches
from adapters.postgres.tables import (
    PROJECTOR_LOCK,
    SCHEMA,
    connect,
    name,
    positions,
    set_up,
    stale,
)
from domain.log import Recorded
from handlers.ports import Blobs, Log, Unavailable
from projections.catalog import KNOWN, READ_MODELS
from projections.fold import BlobId, Fold, Rows
from projections.read_model import ReadModel, Row

log = structlog.get_logger(__name__)

FETCHES = 16
"""Blobs that are fetched at a time."""

SLICE = 2000
"""Rows that one statement writes."""

RETRY_S = (0.2, 5.0)
"""Shortest and longest wait before trying again while a server is away."""


class Halted(Exception):
    """The tables cannot be taken any further without harm; they stay as they are until someone has looked."""


class Writer:
    """Folds batches into the tables of some read models in a schema."""

    def __init__(self, models: Sequence[ReadModel], schema: str, blobs: Blobs) -> None:
        self.fold = Fold(models, KNOWN)
        self._blobs = blobs
        self._fetched: dict[BlobId, bytes] = {}
        self._select = {model: _select(model, schema) for model in models}
        self._upsert = {model: _upsert(model, schema) for model in models}
        self._delete = {model: {column: _delete(model, column, schema) for column in model.cleared_by} for model in models}

    async def fetch(self, batch: Sequence[Recorded]) -> None:
        """Have the blobs that a batch needs at hand; those of the batch before are kept while they are needed."""
        needed = {blob for message in batch for blob in self.fold.blobs(message)}
        self._fetched = {blob: data for blob, data in self._fetched.items() if blob in needed}
        turn = asyncio.Semaphore(FETCHES)

        async def get(blob: BlobId) -> None:
            async with turn:
                self._fetched[blob] = await self._blobs.get(*blob)

        async with asyncio.TaskGroup() as group:
            for blob in needed - self._fetched.keys():
                group.create_task(get(blob))

    async def write(self, connection: AsyncConnection[TupleRow], batch: Sequence[Recorded]) -> None:
        """Fold a batch, whose blobs were fetched, in the transaction that the connection is in."""
        loaded = await self._load(connection, batch)
        tables = self.fold(batch, loaded, self._fetched)
        async with connection.pipeline():
            for rows in tables:
                for column, ids in rows.cleared.items():
                    await connection.execute(self._delete[rows.model][column], _arrays(ids))
            for rows in tables:
                for part in _slices(rows):
                    await connection.execute(self._upsert[rows.model], (_json(part),))

    async def _load(self, connection: AsyncConnection[TupleRow], batch: Sequence[Recorded]) -> dict[ReadModel, list[Row]]:
        loaded = {}
        for model, ids in self.fold.needs(batch).items():
            async with connection.cursor(row_factory=dict_row) as cursor:
                await cursor.execute(self._select[model], _arrays(ids))
                loaded[model] = await cursor.fetchall()
        return loaded


class Projector:
    """Follows the log; of several, one works and the others wait to take over."""

    def __init__(self, url: str, log: Log, blobs: Blobs) -> None:
        self._url = url
        self._log = log
        self._blobs = blobs

    async def run(self) -> None:
        """Work until cancelled, through outages of the servers. Raises: Halted."""
        wait, longest = RETRY_S
        while True:
            try:
                await self._lead()
            except Halted as error:
                log.critical("projector.halted", reason=str(error))
                raise
            except (psycopg.OperationalError, errors.UndefinedTable, errors.InvalidSchemaName, Unavailable) as error:
                log.warning("projector.waits", reason=str(error), seconds=wait)
                await asyncio.sleep(wait)
                wait = min(2 * wait, longest)
