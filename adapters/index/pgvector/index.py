"""The index in PostgreSQL: what is asked in each version is one statement."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import numpy as np
from psycopg.rows import TupleRow

from adapters.index.pgvector.encoding import HalfvecDumper
from adapters.index.pgvector.statements import statements
from adapters.index.pgvector.store import PgvectorStore, stored
from adapters.index.versions import CANDIDATES, Connection, Gone, Question, VersionedIndex, locked_versions
from handlers.ports.index import Hit, Kept, Span
from handlers.ports.log import Unavailable

CHUNK = 5000
"""Segments that `contents` gives at a time."""


class PgvectorIndex(VersionedIndex[PgvectorStore]):
    """An index in a database where `set_up` has been called; use it as a context manager."""

    def __init__(self, url: str, *, connections: int = 8, timeout_s: float = 10.0, exact: int | None = None) -> None:
        """A vector is compared with every one of up to `exact` segments, by default where that is quicker than HNSW."""
        super().__init__(url, stored, connections=connections, timeout_s=timeout_s)
        self._timeout = timeout_s
        self._exact = exact

    async def _configure(self, connection: Connection) -> None:
        await super()._configure(connection)
        connection.adapters.register_dumper(np.ndarray, HalfvecDumper)
        await connection.execute(_SETTINGS)

    async def _find(self, question: Question, number: int, datasets: list[str]) -> list[Hit] | None:
        known = statements(number)
        parameters: dict[str, object] = {
            "words": question.words,
            "vector": question.vector,
            "candidates": max(CANDIDATES, question.top_k),
            "top_k": question.top_k,
            "mode": question.mode,
            "weight": question.weight,
            "exact": self._exact,
        }
        if question.documents is None:
            statement = known.search
        else:
            statement = known.search_within
            parameters["documents"] = list(question.documents)
        rows = await self._rows(statement, question.tenant, datasets, parameters)
        return None if rows is None else [Hit(*row) for row in rows]

    async def _read(self, tenant: str, wanted: Sequence[Span], number: int, datasets: list[str]) -> list[Kept] | None:
        within = [span for span in wanted if span.dataset in datasets]
        parameters: dict[str, object] = {
            "of": [span.dataset for span in within],
            "documents": [span.document for span in within],
            "first": [span.first for span in within],
            "last": [span.last for span in within],
        }
        rows = await self._rows(statements(number).texts, tenant, datasets, parameters)
        return None if rows is None else [Kept(*row) for row in rows]

    async def contents(self) -> AsyncGenerator[list[tuple[str, str, str]]]:
        async with self._connection() as connection, connection.transaction():
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            numbers = await locked_versions(connection.cursor(), self._store)
            parts = [_CONTENTS.replace("{n}", str(number)) for number in numbers]
            if not parts:
                return
            async with connection.cursor("contents") as cursor:
                await cursor.execute(f"{' UNION ALL '.join(parts)} ORDER BY 1, 2, 3".encode())
                while rows := await cursor.fetchmany(CHUNK):
                    yield [(tenant, str(dataset), str(id)) for tenant, dataset, id in rows]

    async def _rows(
        self, statement: bytes, tenant: str, datasets: list[str], parameters: dict[str, object]
    ) -> list[TupleRow] | None:
        """What is found in one version; None when not all of the datasets are searched there any more."""
        parameters = parameters | {"tenant": tenant, "datasets": datasets}
        try:
            async with self._connection() as connection, connection.cursor(binary=True) as cursor:
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


_CONTENTS = """
SELECT tenant, dataset, id FROM headrace_index.segments_{n} JOIN headrace_index.routes USING (tenant, dataset)
WHERE version = {n}
"""

# One plan for all searches, made without looking at what the tables hold at that moment: only the indexes are to be
# used, whatever is asked for.
_SETTINGS = """
SELECT set_config(name, value, false) FROM (VALUES
    ('hnsw.iterative_scan', 'relaxed_order'), ('hnsw.ef_search', '200'), ('hnsw.max_scan_tuples', '100000'),
    ('hnsw.scan_mem_multiplier', '4'), ('plan_cache_mode', 'force_generic_plan'), ('enable_seqscan', 'off'),
    ('max_parallel_workers_per_gather', '0'), ('jit', 'off')
) AS settings (name, value)
"""
