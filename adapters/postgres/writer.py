"""Folds batches of messages into the tables of a schema."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

import orjson
from psycopg import AsyncConnection, DataError
from psycopg.abc import Buffer
from psycopg.adapt import Dumper
from psycopg.errors import UniqueViolation
from psycopg.rows import TupleRow, dict_row
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal
from psycopg.types.json import Json
from sqlalchemy import ARRAY

from adapters.postgres.tables import name
from adapters.postgres.words import WordsAhead
from domain.log import Recorded
from handlers.files import Files
from handlers.ports.people import Erased
from projections.catalog import KNOWN
from projections.engine.fold import BlobId, Fold
from projections.engine.read_model import ReadModel, Row, Setting
from projections.engine.rows import RowId, Rows, Set
from projections.engine.values import BUILT_IN, Values

FETCHES = 16
"""Blobs that are fetched at a time."""

SLICE, SLICE_BYTES = 1000, 16 * 2**20
"""Maximum of rows, and of their bytes, that one statement writes; a larger row is written alone."""

MANY = 200
"""Minimum number of new rows of a table that are quicker written by COPY."""

Fetched = tuple[Sequence[Recorded], Mapping[BlobId, bytes]]
"""A batch, and the blobs that it needs."""


async def with_blobs(
    batches: AsyncIterable[Sequence[Recorded]],
    files: Files,
    needs: Callable[[Recorded], Iterable[BlobId]],
    words: WordsAhead,
) -> AsyncGenerator[Fetched]:
    """The batches with the blobs that they need, and with their words prepared; missing blobs are left out.

    The blob of an erased person is empty. Raises: Unavailable, ValueError.
    """
    held: dict[BlobId, bytes] = {}
    turn = asyncio.Semaphore(FETCHES)

    async def get(blob: BlobId, person: str | None) -> None:
        tenant, digest = blob
        async with turn:
            try:
                held[blob] = await files.get(tenant, person, "segments", digest)
            except Erased:
                held[blob] = b""
            except KeyError:
                pass

    async for batch in batches:
        needed = {blob: message.metadata.person for message in batch for blob in needs(message)}
        held = {blob: data for blob, data in held.items() if blob in needed}
        missing = [each for each in needed.items() if each[0] not in held]
        await asyncio.gather(words.prepare(batch), *(get(*each) for each in missing))
        yield batch, held


class Writer:
    """Writes batches into tables: new rows go by COPY when they are many, else rows are one JSON parameter a statement.

    On rows of twenty columns in batches of 5000, COPY costs PostgreSQL half of what JSON does; with few rows its round
    trips cost more than that. The rows of the last batch are held, since the next one mostly changes those.
    """

    def __init__(self, models: Sequence[ReadModel], schema: str, values: Values = BUILT_IN) -> None:
        self.fold = Fold(models, KNOWN, values)
        self._held: Mapping[ReadModel, Rows] = {}
        self._selects = {model: _select(model, schema) for model in models}
        self._upserts = {model: _upsert(model, schema) for model in models}
        self._copies = {model: SQL("COPY {} FROM STDIN").format(name(model, schema)) for model in models}
        self._deletes = {
            (model, column): _delete(model, column, schema) for model in models for column in model.cleared_by
        }
        self._updates = {
            id(rule): _update(model, rule, schema)
            for model in models
            for _, rule in model.rules
            if isinstance(rule, Setting)
        }

    async def write(self, connection: AsyncConnection[TupleRow], fetched: Fetched) -> None:
        """Fold a batch within the transaction of the connection; if that is rolled back, `forget`."""
        batch, blobs = fetched
        tables = self.fold(batch, await self._load(connection, batch), blobs)
        many: list[tuple[ReadModel, list[Row]]] = []
        async with connection.pipeline():
            for rows in tables:
                for column, ids in rows.cleared.items():
                    await connection.execute(self._deletes[rows.model, column], _columns(ids))
                for _, alike in groupby(rows.set, lambda done: id(done.setting)):
                    for turn in _turns(alike):
                        await self._set(connection, turn)
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

    async def _set(self, connection: AsyncConnection[TupleRow], done: Sequence[Set]) -> None:
        setting = done[0].setting
        parameters = {
            "to": Json(setting.to, _dumps),
            "tenants": [each.tenant for each in done],
            "values": [each.value for each in done],
            "positions": [each.position for each in done],
            "times": [each.at for each in done],
            "old": [each.keys and each.keys[0] for each in done],
            "new": [each.keys and each.keys[1] for each in done],
        }
        await connection.execute(self._updates[id(setting)], parameters)

    async def _upsert(self, connection: AsyncConnection[TupleRow], model: ReadModel, rows: list[Row]) -> None:
        for texts in _slices(rows):
            await connection.execute(self._upserts[model], (Json(texts, _list),))

    async def _copy(self, connection: AsyncConnection[TupleRow], model: ReadModel, rows: list[Row]) -> None:
        """Rows that are in the table after all, or have a NUL in them, go the other way."""
        try:
            async with connection.transaction(), connection.cursor() as cursor:
                for kind in (dict, list, datetime):
                    cursor.adapters.register_dumper(kind, _Plain)
                arrays = [index for index, column in enumerate(model.table.columns) if isinstance(column.type, ARRAY)]
                async with cursor.copy(self._copies[model]) as copy:
                    for row in rows:
                        values = list(row.values())
                        for index in arrays:
                            values[index] = _array(values[index])
                        await copy.write_row(values)
        except (UniqueViolation, DataError):
            await self._upsert(connection, model, rows)

    async def _load(
        self, connection: AsyncConnection[TupleRow], batch: Sequence[Recorded]
    ) -> dict[ReadModel, list[Row]]:
        loaded: dict[ReadModel, list[Row]] = defaultdict(list)
        known: dict[ReadModel, set[RowId]] = defaultdict(set)
        needed = self.fold.needs(batch)
        while needed:
            found = {model: await self._rows(connection, model, ids) for model, ids in needed.items()}
            for model, ids in needed.items():
                known[model] |= ids
                loaded[model] += found[model]
            needed = self.fold.links.brought(found, known)
        return loaded

    async def _rows(self, connection: AsyncConnection[TupleRow], model: ReadModel, ids: set[RowId]) -> list[Row]:
        held = self._held[model].rows if model in self._held else {}
        rows = [held[id] for id in ids & held.keys()]
        if missing := ids - held.keys():
            async with connection.cursor(row_factory=dict_row) as cursor:
                await cursor.execute(self._selects[model], _columns(missing))
                rows += await cursor.fetchall()
        return rows


class _Plain(Dumper):
    """JSON, and times as they are in JSON: a tenth of what it takes to write them as Python does."""

    def dump(self, value: Any) -> Buffer:
        text = orjson.dumps(value)
        return text[1:-1] if isinstance(value, datetime) else text


def _array(texts: list[str]) -> str:
    """An array of texts as PostgreSQL writes it, which JSON does too as long as nothing is escaped."""
    json = orjson.dumps(texts)
    if b"\\" not in json:
        return "{" + json[1:-1].decode() + "}"
    quoted = (text.replace("\\", "\\\\").replace('"', '\\"') for text in texts)
    return "{" + ",".join(f'"{text}"' for text in quoted) + "}"


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


def _update(model: ReadModel, setting: Setting, schema: str) -> Composed:
    values: dict[str, Composable] = {column: SQL("v.{}").format(Identifier(column)) for column in setting.to}
    ended, sequence = setting.ended or (None, None)
    values |= {column: SQL("k.at") for column in (ended, "updated_at") if column and column in model.blank}
    values |= {column: SQL("k.position") for column in (sequence, "log_position") if column}
    if setting.keys:
        moved = (
            "(t.{0} - k.old) || CASE WHEN k.new IS NULL THEN '{{}}' ELSE jsonb_build_object(k.new, t.{0} -> k.old) END"
        )
        values[setting.keys.column] = SQL(moved).format(Identifier(setting.keys.column))
    query = (
        "UPDATE {table} t SET {values} FROM json_populate_record(NULL::{table}, %(to)s::json) v, "
        "unnest(%(tenants)s::text[], %(values)s::text[], %(positions)s::bigint[], %(times)s::timestamptz[], "
        "%(old)s::text[], %(new)s::text[]) k(tenant, id, position, at, old, new) WHERE {conditions}"
    )
    conditions = [SQL("t.tenant_id = k.tenant"), SQL("t.{} = k.id").format(Identifier(setting.column))]
    conditions += [SQL("t.{} ? k.old").format(Identifier(setting.keys.column))] if setting.keys else []
    conditions += [
        SQL("t.{} IS NOT DISTINCT FROM {}" if value is None else "t.{} = {}").format(Identifier(column), Literal(value))
        for column, value in setting.only.items()
    ]
    return SQL(query).format(
        table=name(model, schema),
        values=SQL(", ").join(SQL("{} = {}").format(Identifier(column), value) for column, value in values.items()),
        conditions=SQL(" AND ").join(conditions),
    )


def _turns(done: Iterable[Set]) -> list[list[Set]]:
    """One after the other, so that no statement names the same rows twice."""
    turns: list[dict[RowId, Set]] = []
    for each in done:
        row = (each.tenant, each.value)
        turn = next((turn for turn in turns if row not in turn), None)
        if turn is None:
            turns.append(turn := {})
        turn[row] = each
    return [list(turn.values()) for turn in turns]


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


def _slices(rows: Iterable[Row]) -> Iterator[list[bytes]]:
    """The rows as JSON, divided by statement."""
    texts: list[bytes] = []
    size = 0
    for row in rows:
        text = _dumps(row)
        if texts and (len(texts) == SLICE or size + len(text) > SLICE_BYTES):
            yield texts
            texts, size = [], 0
        texts.append(text)
        size += len(text)
    if texts:
        yield texts


def _list(texts: Sequence[bytes]) -> bytes:
    return b"[" + b",".join(texts) + b"]"


def _dumps(row: Row) -> bytes:
    text = orjson.dumps(row)
    return orjson.dumps(_clean(row)) if b"\\u0000" in text else text


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
