"""Versions as sets of tables: segments are written, removed and counted; a search is one statement."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any
from uuid import UUID

import numpy as np
from psycopg.rows import TupleRow

from adapters.index.pgvector.encoding import Encoded, HalfvecDumper, encode
from adapters.index.pgvector.statements import statements
from adapters.index.pgvector.tables import SCHEMA, drop_tables, make_hnsw, make_tables, table
from adapters.index.versions.changes import locked_versions
from adapters.index.versions.database import Connection, Cursor, Database, Gone
from adapters.index.versions.index import VersionedIndex
from adapters.index.versions.schema import Scope
from adapters.index.versions.store import CANDIDATES, DECISIVE, RARE, Placed, Question
from handlers.ports.index import Entry, Hit, Span
from handlers.ports.log import Unavailable

SHARDS = 16
"""Rows over which the statistics of a dataset are spread, so that its writers seldom wait for one another."""

CHUNK = 5000
"""Number of segments that `contents` yields at a time."""


def pgvector_index(
    url: str, *, connections: int = 8, timeout_s: float = 10.0, exact: int | None = None
) -> VersionedIndex:
    """The index in a database where `set_up` has been called.

    A vector is compared with every one of up to `exact` segments, by default where that is faster than HNSW.
    """
    return VersionedIndex(url, PgvectorStore(timeout_s, exact), connections=connections, timeout_s=timeout_s)


class PgvectorStore:
    schema = SCHEMA
    longest = 4_000

    def __init__(self, timeout_s: float = 10.0, exact: int | None = None) -> None:
        self._timeout = timeout_s
        self._exact = exact

    async def configure(self, connection: Connection) -> None:
        connection.adapters.register_dumper(np.ndarray, HalfvecDumper)
        await connection.execute(_SETTINGS)

    def holding(self, number: int) -> str:
        return f"SELECT tenant, dataset FROM {table('statistics', number)}"

    async def make(self, cursor: Cursor, number: int, dimension: int, *, live: bool) -> None:
        await make_tables(cursor, number, dimension)
        if live:
            await make_hnsw(cursor, number)

    async def finish(self, cursor: Cursor, number: int) -> None:
        await make_hnsw(cursor, number)

    async def complete(self, connection: Connection, number: int) -> None:
        async with connection.transaction(), connection.cursor() as cursor:
            await make_hnsw(cursor, number)
        await connection.execute(f"VACUUM (ANALYZE) {table('segments', number)}, {table('postings', number)}".encode())

    async def drop(self, cursor: Cursor, numbers: Sequence[int]) -> None:
        if numbers:
            await drop_tables(cursor, numbers)

    async def point(self, cursor: Cursor) -> None:
        """The view of all versions is made with their tables."""

    async def counts(self, cursor: Cursor, numbers: Sequence[int]) -> dict[int, int]:
        counts = {}
        for number in numbers:
            await cursor.execute(
                f"SELECT coalesce(sum(segments), 0)::bigint FROM {table('statistics', number)}".encode()
            )
            [counts[number]] = await cursor.fetchone() or [0]
        return counts

    async def prepare(self, scope: Scope, entries: Sequence[Entry], sequence: int) -> Encoded:
        return await asyncio.to_thread(encode, scope, entries, sequence)

    async def put(
        self, cursor: Cursor, number: int, scope: Scope, prepared: Encoded, sequence: int, *, found: bool = False
    ) -> None:
        known = statements(number)
        ids = [entry.id for entry in prepared.entries]
        await cursor.execute(known.make_room, scope._asdict() | {"sequence": sequence, "ids": ids})
        segments, length, newer = await cursor.fetchone() or (0, 0, [])
        if newer:
            left = [entry for entry in prepared.entries if entry.id not in newer]
            prepared = encode(scope, left, sequence)
        async with cursor.copy(known.copy_segments) as copy:
            await copy.write(prepared.segments)
        async with cursor.copy(known.copy_postings) as copy:
            await copy.write(prepared.postings)
        await _count(cursor, number, scope, prepared.matched - segments, prepared.length - length)

    async def remove(self, cursor: Cursor, number: int, scope: Scope, ids: Sequence[str], sequence: int) -> None:
        names = {"sequence": sequence, "ids": list(ids)}
        await _take_out(cursor, number, statements(number).remove_ids, scope, names)

    async def delete(self, cursor: Cursor, number: int, scope: Scope) -> None:
        if scope.document is None:
            await self.purge(cursor, number, scope)
        else:
            await _take_out(cursor, number, statements(number).remove_document, scope, {})

    async def purge(self, cursor: Cursor, number: int, scope: Scope) -> None:
        for statement in statements(number).delete_dataset:
            await cursor.execute(statement, scope._asdict())

    async def search(
        self, database: Database, number: int, datasets: list[str], question: Question
    ) -> list[Hit] | None:
        known = statements(number)
        parameters: dict[str, object] = {
            "words": list(question.words),
            "times": list(question.words.values()),
            "rare": RARE,
            "decisive": DECISIVE,
            "vector": question.vector,
            "candidates": max(CANDIDATES, question.top_k),
            "top_k": question.top_k,
            "mode": question.mode,
            "weight": question.weight,
            "exact": self._exact,
        }
        if question.documents is None and not question.held:
            statement = known.search
        else:
            statement = known.search_holding if question.held else known.search_within
            parameters["documents"] = None if question.documents is None else list(question.documents)
            parameters["held"] = list(question.held)
        rows = await self._rows(database, statement, question.tenant, datasets, parameters)
        return None if rows is None else [_hit(*row) for row in rows]

    async def read(
        self, database: Database, number: int, datasets: list[str], tenant: str, spans: Sequence[Span]
    ) -> list[Placed] | None:
        within = [span for span in spans if span.dataset in datasets]
        parameters: dict[str, object] = {
            "of": [span.dataset for span in within],
            "documents": [span.document for span in within],
            "first": [span.first for span in within],
            "last": [span.last for span in within],
        }
        rows = await self._rows(database, statements(number).texts, tenant, datasets, parameters)
        return None if rows is None else [Placed(dataset, document, _entry(*of)) for dataset, document, *of in rows]

    async def contents(self, database: Database) -> AsyncGenerator[list[tuple[str, str, str]]]:
        async with database.connection() as connection, connection.transaction():
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            numbers = await locked_versions(connection.cursor(), self)
            parts = [_CONTENTS.replace("{n}", str(number)) for number in numbers]
            if not parts:
                return
            async with connection.cursor("contents") as cursor:
                await cursor.execute(f"{' UNION ALL '.join(parts)} ORDER BY 1, 2, 3".encode())
                while rows := await cursor.fetchmany(CHUNK):
                    yield [(tenant, str(dataset), str(id)) for tenant, dataset, id in rows]

    async def _rows(
        self, database: Database, statement: bytes, tenant: str, datasets: list[str], parameters: dict[str, object]
    ) -> list[TupleRow] | None:
        """The rows found in one version; None when not all of the datasets are searched there any more."""
        parameters = parameters | {"tenant": tenant, "datasets": datasets}
        try:
            async with database.connection() as connection, connection.cursor(binary=True) as cursor:
                async with asyncio.timeout(self._timeout):
                    await cursor.execute(statement, parameters, prepare=True)
                    rows = await cursor.fetchall()
        except TimeoutError as error:
            raise Unavailable(f"The index did not answer within {self._timeout} s.") from error
        except Gone:
            return None
        if rows[0][0] < len(datasets):
            return None
        return [row[1:] for row in rows if row[1] is not None]


def _hit(
    dataset: str, document: str, score: float, semantic_rank: int | None, full_text_rank: int | None, *of: Any
) -> Hit:
    return Hit(dataset, document, _entry(*of), score, semantic_rank, full_text_rank)


def _entry(
    id: str, position: int, content: str, page: int | None, heading: str | None, parent: int | None, answer: str | None
) -> Entry:
    return Entry(id, position, content, page, heading, parent=parent, answer=answer)


_CONTENTS = """
SELECT tenant, dataset, id FROM headrace_index.segments_{n} JOIN headrace_index.routes USING (tenant, dataset)
WHERE version = {n}
"""

# One plan for all searches, made without looking at what the tables hold at that moment: only the indexes may be used,
# whatever is searched.
_SETTINGS = """
SELECT set_config(name, value, false) FROM (VALUES
    ('hnsw.iterative_scan', 'relaxed_order'), ('hnsw.ef_search', '200'), ('hnsw.max_scan_tuples', '100000'),
    ('hnsw.scan_mem_multiplier', '4'), ('plan_cache_mode', 'force_generic_plan'), ('enable_seqscan', 'off'),
    ('max_parallel_workers_per_gather', '0'), ('jit', 'off')
) AS settings (name, value)
"""


async def _take_out(cursor: Cursor, number: int, statement: bytes, scope: Scope, names: dict[str, Any]) -> None:
    await cursor.execute(statement, scope._asdict() | names)
    segments, length = await cursor.fetchone() or (0, 0)
    if segments:
        await _count(cursor, number, scope, -segments, -length)


async def _count(cursor: Cursor, number: int, scope: Scope, segments: int, length: int) -> None:
    """Add to the statistics; last in its transaction, for it locks a row that other documents use."""
    tenant, dataset, document = scope
    assert document is not None
    shard = UUID(document).int % SHARDS
    await cursor.execute(statements(number).count, [tenant, dataset, shard, segments, length])
