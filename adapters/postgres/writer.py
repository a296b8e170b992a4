"""Folds batches of messages into the tables of a schema."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import orjson
from psycopg import AsyncConnection, DataError
from psycopg.abc import Buffer
from psycopg.adapt import Dumper
from psycopg.errors import UniqueViolation
from psycopg.rows import TupleRow, dict_row
from psycopg.sql import SQL, Composed, Identifier
from psycopg.types.json import Json

from adapters.postgres.tables import name
from domain.log import Recorded
from handlers.ports import Blobs
from projections.catalog import KNOWN
from projections.fold import BlobId, Fold, RowId, Rows
from projections.read_model import ReadModel, Row

FETCHES = 16
"""Blobs that are fetched at a time."""

SLICE = 1000
"""Rows that one statement writes."""

MANY = 200
"""So many new rows of a table are quicker written by COPY."""

Fetched = tuple[Sequence[Recorded], Mapping[BlobId, bytes]]
"""A batch, and the blobs that it needs."""


class Writer:
    """Rows that nobody has seen before go by COPY when they are many, else rows are one JSON parameter a statement.

    On rows of twenty columns in batches of 5000, COPY costs PostgreSQL half of what JSON does; with few rows its round
    trips cost more than that. The rows of the last batch are held, since the next one mostly changes those.
    """

    def __init__(self, models: Sequence[ReadModel], schema: str, blobs: Blobs) -> None:
        self.fold = Fold(models, KNOWN)
        self._blobs = blobs
        self._held: Mapping[ReadModel, Rows] = {}
        self._selects = {model: _select(model, schema) for model in models}
        self._upserts = {model: _upsert(model, schema) for model in models}
        self._copies = {model: SQL("COPY {} FROM STDIN").format(name(model, schema)) for model in models}
        self._deletes = {
            (model, column): _delete(model, column, schema) for model in models for column in model.cleared_by
        }

    async def with_blobs(self, batches: AsyncIterable[Sequence[Recorded]]) -> AsyncGenerator[Fetched]:
        """The batches with the blobs that they need; what is missing is left out. Raises: Unavailable, ValueError."""
        held: dict[BlobId, bytes] = {}
        turn = asyncio.Semaphore(FETCHES)

        async def get(blob: BlobId) -> None:
            async with turn:
                with suppress(KeyError):
                    held[blob] = await self._blobs.get(*blob)

        async for batch in batches:
            needed = {blob for message in batch for blob in self.fold.blobs(message)}
            held = {blob: data for blob, data in held.items() if blob in needed}
            await asyncio.gather(*map(get, needed - held.keys()))
            yield batch, held

    async def write(self, connection: AsyncConnection[TupleRow], fetched: Fetched) -> None:
        """Fold a batch within the transaction of the connection; if that is rolled back, `forget`."""
        batch, blobs = fetched
        tables = self.fold(batch, await self._load(connection, batch), blobs)
        many: list[tuple[ReadModel, list[Row]]] = []
        async with connection.pipeline():
            for rows in tables:
                for column, ids in rows.cleared.items():
                    await connection.execute(self._deletes[rows.model, column], _columns(ids))
                changed, new = rows.result()
                if len(new) >= MANY:
                    many.append((rows.model, new))
                else:
                    changed += new
                await self._upsert(connection, rows.model, changed)
        for model, new in many:
            await self._copy(connection, model, new)
        self._held = {rows.model: rows for rows in tables}

    def forget(self) -> None:
        """The rows of the last batch are not in the tables."""
        self._held = {}

    async def _upsert(self, connection: AsyncConnection[TupleRow], model: ReadModel, rows: list[Row]) -> None:
        for start in range(0, len(rows), SLICE):
            await connection.execute(self._upserts[model], (Json(rows[start : start + SLICE], _dumps),))

    async def _copy(self, connection: AsyncConnection[TupleRow], model: ReadModel, rows: list[Row]) -> None:
        """Rows that are in the table after all, or have a NUL in them, go the other way."""
        try:
            async with connection.transaction(), connection.cursor() as cursor:
                for kind in (dict, list, datetime):
                    cursor.adapters.register_dumper(kind, _Plain)
                async with cursor.copy(self._copies[model]) as copy:
                    for row in rows:
                        await copy.write_row(list(row.values()))
        except (UniqueViolation, DataError):
            await self._upsert(connection, model, rows)

    async def _load(
        self, connection: AsyncConnection[TupleRow], batch: Sequence[Recorded]
    ) -> dict[ReadModel, list[Row]]:
        loaded = {}
        for model, ids in self.fold.needs(batch).items():
            held = self._held[model].rows if model in self._held else {}
            loaded[model] = [held[id] for id in ids & held.keys()]
            if missing := ids - held.keys():
                async with connection.cursor(row_factory=dict_row) as cursor:
                    await cursor.execute(self._selects[model], _columns(missing))
                    loaded[model] += await cursor.fetchall()
        return loaded


class _Plain(Dumper):
    """JSON, and times as they are in JSON: a tenth of what it takes to write them as Python does."""

    def dump(self, value: Any) -> Buffer:
        text = orjson.dumps(value)
        return text[1:-1] if isinstance(value, datetime) else text


def _select(model: ReadModel, schema: str) -> Composed:
    query = (
        "SELECT t.* FROM {} t JOIN unnest(%s::text[], %s::text[]) k(tenant, id) ON tenant_id = tenant AND t.{} = k.id"
    )
    return SQL(query).format(name(model, schema), Identifier(model.key))


def _delete(model: ReadModel, column: str, schema: str) -> Composed:
    query = (
        "DELETE FROM {} t USING unnest(%s::text[], %s::text[]) k(tenant, id) WHERE tenant_id = tenant AND t.{} = k.id"
    )
    return SQL(query).format(name(model, schema), Identifier(column))


def _upsert(model: ReadModel, schema: str) -> Composed:
    rest = [Identifier(column) for column in model.blank if column not in ("tenant_id", model.key)]
    return SQL(
        "INSERT INTO {table} SELECT * FROM json_populate_recordset(NULL::{table}, %s::json) "
        "ON CONFLICT (tenant_id, {key}) DO UPDATE SET ({rest}) = ROW({new})"
    ).format(
        table=name(model, schema),
        key=Identifier(model.key),
        rest=SQL(", ").join(rest),
        new=SQL(", ").join(SQL("excluded.{}").format(column) for column in rest),
    )


def _columns(ids: Iterable[RowId]) -> tuple[list[str], list[str]]:
    pairs = list(ids)
    return [tenant for tenant, _ in pairs], [id for _, id in pairs]


def _dumps(rows: list[Row]) -> bytes:
    text = orjson.dumps(rows)
    return orjson.dumps(_clean(rows)) if b"\\u0000" in text else text


def _clean(value: Any) -> Any:
    """PostgreSQL cannot hold the character NUL: the replacement character stands for it."""
    match value:
        case str():
            return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
        case list():
            return [_clean(item) for item in value]
        case dict():
            return {_clean(key): _clean(item) for key, item in value.items()}
    return value
