"""The index in PostgreSQL: vectors with pgvector, words in a postings table, both in one statement."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from struct import pack
from types import TracebackType
from typing import LiteralString, Self
from uuid import UUID

import numpy as np
import numpy.typing as npt
from psycopg import AsyncConnection, AsyncCursor, IsolationLevel, OperationalError
from psycopg.abc import Buffer
from psycopg.adapt import Dumper
from psycopg.pq import Format
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Literal
from psycopg_pool import AsyncConnectionPool

from adapters.words import words
from handlers.ports import Entry, Hit, Mode, Unavailable

CANDIDATES = 100
"""Hits that each leg of a search brings to the fusion, so that asking for more does not change the first."""

LONGEST_QUERY = 64
"""Different words of a query that are looked up."""

SHARDS = 16
"""Rows over which the statistics of a dataset are spread, so that its writers seldom wait for one another."""

Connection = AsyncConnection[TupleRow]


class DimensionMismatch(Exception):
    """The index holds vectors of another dimension: drop the schema headrace_index and build the index anew."""


async def set_up(url: str, dimension: int) -> None:
    """Create the schema `headrace_index` unless it is there; any number of processes may call this at once.

    Raises: DimensionMismatch, Unavailable.
    """
    try:
        async with await AsyncConnection.connect(url, connect_timeout=10) as connection:
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", [_key("set up")])
            found = await connection.execute(_DIMENSION)
            row = await found.fetchone()
            if row is None:
                await connection.execute(SQL(_SCHEMA).format(dimension=Literal(dimension)))
            elif row[0] != dimension:
                raise DimensionMismatch(f"{DimensionMismatch.__doc__} It has {row[0]}, asked for was {dimension}.")
    except OperationalError as error:
        raise Unavailable(f"The index does not answer: {error}") from error


class PgvectorIndex:
    """An index in a database where `set_up` has been called; use it as a context manager."""

    def __init__(self, url: str, *, connections: int = 8, timeout_s: float = 10.0, exact: int | None = None) -> None:
        """A vector is compared with every one of up to `exact` segments, by default where that is quicker than HNSW."""
        self._pool = AsyncConnectionPool(
            url,
            kwargs={"autocommit": True, "connect_timeout": 10},
            min_size=1,
            max_size=connections,
            timeout=timeout_s,
            configure=_configure,
            open=False,
        )
        self._timeout = timeout_s
        self._exact = exact
        # Writes hold a connection for long; searches must always find one.
        self._writers = asyncio.Semaphore(max(1, connections // 2))

    async def __aenter__(self) -> Self:
        await self._pool.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pool.close()

    async def write(self, tenant: str, dataset: str, document: str, entries: Sequence[Entry]) -> None:
        entries = list({entry.id: entry for entry in entries}.values())
        if not entries:
            return
        segments, postings, length = await asyncio.to_thread(_encode, tenant, dataset, document, entries)
        async with self._writers, self._change(tenant, dataset, document) as cursor:
            await cursor.execute(_TOMBSTONE, {"tenant": tenant, "dataset": dataset, "document": document})
            if await cursor.fetchone():
                return
            replaced = await self._remove(cursor, _SAME_IDS, tenant, dataset, [entry.id for entry in entries])
            async with cursor.copy(_COPY_SEGMENTS) as copy:
                await copy.write(segments)
            async with cursor.copy(_COPY_POSTINGS) as copy:
                await copy.write(postings)
            await self._count(cursor, tenant, dataset, document, len(entries) - replaced[0], length - replaced[1])

    async def delete(self, tenant: str, dataset: str, document: str | None = None) -> None:
        async with self._writers, self._change(tenant, dataset, document) as cursor:
            scope = {"tenant": tenant, "dataset": dataset, "document": document}
            await cursor.execute(_BURY, scope)
            if document is None:
                for statement in _DELETE_DATASET:
                    await cursor.execute(statement, scope)
            else:
                segments, length = await self._remove(cursor, _OF_DOCUMENT, tenant, dataset, [document])
                if segments:
                    await self._count(cursor, tenant, dataset, document, -segments, -length)

    async def search(
        self,
        tenant: str,
        datasets: Sequence[str],
        query: str,
        vector: npt.NDArray[np.float32] | None,
        *,
        mode: Mode,
        top_k: int,
    ) -> list[Hit]:
        asked = [] if mode == "semantic" else list(words(query))[:LONGEST_QUERY]
        near = None if mode == "full_text" else vector
        if top_k < 1 or not datasets or (near is None and not asked):
            return []
        parameters = {
            "tenant": tenant,
            "datasets": list(datasets),
            "words": asked,
            "vector": near,
            "candidates": max(CANDIDATES, top_k),
            "top_k": top_k,
            "mode": mode,
            "exact": self._exact,
        }
        async with self._connection() as connection, connection.cursor(binary=True) as cursor:
            try:
                async with asyncio.timeout(self._timeout):
                    await cursor.execute(_SEARCH, parameters, prepare=True)
                    rows = await cursor.fetchall()
            except TimeoutError as error:
                raise Unavailable(f"The index did not answer within {self._timeout} s.") from error
        return [Hit(*row) for row in rows]

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        try:
            async with self._pool.connection() as connection:
                yield connection
        except OperationalError as error:
            raise Unavailable(f"The index does not answer: {error}") from error

    @asynccontextmanager
    async def _change(self, tenant: str, dataset: str, document: str | None) -> AsyncIterator[AsyncCursor[TupleRow]]:
        """A transaction that changes a document alone, or a dataset alone.

        The locks are taken before anything is read, so that what is read afterwards holds until the commit.
        """
        async with self._connection() as connection, connection.transaction(), connection.cursor() as cursor:
            if document is None:
                await cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_key(tenant, dataset)])
            else:
                await cursor.execute("SELECT pg_advisory_xact_lock_shared(%s)", [_key(tenant, dataset)])
                await cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_key(tenant, dataset, document)])
            yield cursor

    @staticmethod
    async def _remove(
        cursor: AsyncCursor[TupleRow], statement: LiteralString, tenant: str, dataset: str, ids: list[str]
    ) -> tuple[int, int]:
        """Take segments and their postings out: how many there were, and their length in words."""
        await cursor.execute(statement, {"tenant": tenant, "dataset": dataset, "ids": ids})
        segments, length = await cursor.fetchone() or (0, 0)
        return segments, length

    @staticmethod
    async def _count(
        cursor: AsyncCursor[TupleRow], tenant: str, dataset: str, document: str, segments: int, length: int
    ) -> None:
        """Add to the statistics; last in its transaction, for it locks a row that other documents use."""
        shard = UUID(document).int % SHARDS
        await cursor.execute(_COUNT, [tenant, dataset, shard, segments, length])


def _key(*names: str) -> int:
    """The advisory lock of what has these names."""
    digest = hashlib.blake2b("/".join(("headrace_index", *names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)


async def _configure(connection: Connection) -> None:
    connection.adapters.register_dumper(np.ndarray, _HalfvecDumper)
    await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
    await connection.execute(_SETTINGS)


class _HalfvecDumper(Dumper):
    """Bound without a type: the statement's cast says that it is a halfvec."""

    format = Format.BINARY

    def dump(self, obj: npt.NDArray[np.float32]) -> Buffer | None:
        return _halfvec(obj)


def _halfvec(vector: npt.NDArray[np.float32]) -> bytes:
    return pack(">Hxx", len(vector)) + vector.astype(">f2").tobytes()


def _encode(tenant: str, dataset: str, document: str, entries: Iterable[Entry]) -> tuple[bytes, bytes, int]:
    """The segments and the postings as binary COPY reads them, and the length of all in words."""
    segments, postings, total = [_COPY_HEADER], [_COPY_HEADER], 0
    place = _field(tenant.encode()) + _field(UUID(dataset).bytes)
    document_field = _field(UUID(document).bytes)
    for entry in entries:
        counts = words(entry.content)
        length = counts.total()
        total += length
        id = _field(UUID(entry.id).bytes)
        segments += (
            pack(">h", 10),
            place,
            id,
            document_field,
            _field(pack(">i", entry.position)),
            _field(entry.content.encode()),
            _field(None if entry.page is None else pack(">i", entry.page)),
            _field(None if entry.heading is None else entry.heading.encode()),
            _field(pack(">i", length)),
            _field(_halfvec(entry.vector)),
        )
        start = pack(">h", 6) + place + id + _field(pack(">i", length))
        for word, frequency in counts.items():
            data = word.encode()
            postings.append(start + pack(">iii", 4, frequency, len(data)) + data)
    segments.append(_COPY_TRAILER)
    postings.append(_COPY_TRAILER)
    return b"".join(segments), b"".join(postings), total


def _field(data: bytes | None) -> bytes:
    return pack(">i", -1) if data is None else pack(">i", len(data)) + data


_COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_TRAILER = pack(">h", -1)

_COPY_SEGMENTS = """
COPY headrace_index.segments (tenant, dataset, id, document, position, content, page, heading, length, embedding)
FROM STDIN (FORMAT BINARY)
"""

_COPY_POSTINGS = """
COPY headrace_index.postings (tenant, dataset, segment, length, frequency, word) FROM STDIN (FORMAT BINARY)
"""

_TOMBSTONE = """
SELECT 1 FROM headrace_index.tombstones
WHERE tenant = %(tenant)s AND dataset = %(dataset)s AND (document = %(document)s OR document IS NULL)
"""

_BURY = """
INSERT INTO headrace_index.tombstones (tenant, dataset, document) VALUES (%(tenant)s, %(dataset)s, %(document)s)
ON CONFLICT DO NOTHING
"""

_REMOVE: LiteralString = """
WITH gone AS (
    DELETE FROM headrace_index.segments
    WHERE tenant = %(tenant)s AND dataset = %(dataset)s AND {} = ANY (%(ids)s::uuid[])
    RETURNING id, length
), unlisted AS (
    DELETE FROM headrace_index.postings
    WHERE tenant = %(tenant)s AND dataset = %(dataset)s AND segment = ANY (ARRAY(SELECT id FROM gone))
)
SELECT count(*), coalesce(sum(length), 0)::bigint FROM gone
"""
_SAME_IDS: LiteralString = _REMOVE.replace("{}", "id")
_OF_DOCUMENT: LiteralString = _REMOVE.replace("{}", "document")

_DELETE_DATASET: tuple[LiteralString, ...] = (
    "DELETE FROM headrace_index.segments WHERE tenant = %(tenant)s AND dataset = %(dataset)s",
    "DELETE FROM headrace_index.postings WHERE tenant = %(tenant)s AND dataset = %(dataset)s",
    "DELETE FROM headrace_index.statistics WHERE tenant = %(tenant)s AND dataset = %(dataset)s",
    "DELETE FROM headrace_index.tombstones"
    " WHERE tenant = %(tenant)s AND dataset = %(dataset)s AND document IS NOT NULL",
)

_COUNT = """
INSERT INTO headrace_index.statistics AS kept (tenant, dataset, shard, segments, length) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (tenant, dataset, shard)
DO UPDATE SET segments = kept.segments + excluded.segments, length = kept.length + excluded.length
"""

# One plan for all searches, made without looking at what the tables hold at that moment: only the indexes are to be
# used, whatever is asked for.
_SETTINGS = """
SELECT set_config(name, value, false) FROM (VALUES
    ('hnsw.iterative_scan', 'relaxed_order'), ('hnsw.ef_search', '100'), ('hnsw.max_scan_tuples', '100000'),
    ('hnsw.scan_mem_multiplier', '4'), ('plan_cache_mode', 'force_generic_plan'), ('enable_seqscan', 'off'),
    ('max_parallel_workers_per_gather', '0'), ('jit', 'off')
) AS settings (name, value)
"""

# A few segments are compared one by one: quicker than HNSW, which visits the more the fewer of all segments are asked
# for, and exact. `way` is where the two measured equally quick. The odd expressions keep the planner from taking each
# branch's index for the other, and HNSW's relaxed order for a strict one.
# BM25 has k1 = 1.2 and b = 0.75; reciprocal rank fusion has k = 60.
_SEARCH = """
WITH scope AS MATERIALIZED (
    SELECT coalesce(sum(segments), 0)::float8 AS segments, sum(length) / nullif(sum(segments), 0)::float8 AS average
    FROM headrace_index.statistics
    WHERE tenant = %(tenant)s AND dataset = ANY (%(datasets)s::uuid[])
), way AS MATERIALIZED (
    SELECT segments <= coalesce(%(exact)s::float8, 1000 + 15 * sqrt(greatest(segments, reltuples))) AS exact
    FROM scope, pg_class
    WHERE pg_class.oid = 'headrace_index.segments'::regclass
), nearest AS MATERIALIZED (
    (
        SELECT dataset, id, embedding <#> %(vector)s::halfvec AS distance
        FROM headrace_index.segments
        WHERE tenant = %(tenant)s AND dataset = ANY (%(datasets)s::uuid[])
            AND %(vector)s::halfvec IS NOT NULL AND (SELECT exact FROM way)
        ORDER BY (embedding <#> %(vector)s::halfvec) + 0, id
        LIMIT %(candidates)s
    ) UNION ALL (
        SELECT dataset, id, embedding <#> %(vector)s::halfvec AS distance
        FROM headrace_index.segments
        WHERE (tenant = %(tenant)s AND dataset = ANY (%(datasets)s::uuid[])) IS TRUE
            AND %(vector)s::halfvec IS NOT NULL AND NOT (SELECT exact FROM way)
        ORDER BY embedding <#> %(vector)s::halfvec
        LIMIT %(candidates)s
    )
), semantic AS (
    SELECT dataset, id, -distance AS similarity, row_number() OVER (ORDER BY distance + 0, id) AS rank
    FROM nearest
), matched AS MATERIALIZED (
    SELECT dataset, segment AS id, word, frequency::float8, length::float8
    FROM headrace_index.postings
    WHERE tenant = %(tenant)s AND dataset = ANY (%(datasets)s::uuid[]) AND word = ANY (%(words)s::text[])
), weights AS MATERIALIZED (
    SELECT word, ln(1 + ((SELECT segments FROM scope) - count(*) + 0.5) / (count(*) + 0.5)) AS weight
    FROM matched
    GROUP BY word
), weighed AS (
    SELECT dataset, id, sum(weight * frequency * 2.2
        / (frequency + 1.2 * (0.25 + 0.75 * length / (SELECT average FROM scope)))) AS bm25
    FROM matched JOIN weights USING (word)
    GROUP BY dataset, id
    ORDER BY bm25 DESC, id
    LIMIT %(candidates)s
), full_text AS (
    SELECT dataset, id, bm25, row_number() OVER (ORDER BY bm25 DESC, id) AS rank
    FROM weighed
), fused AS (
    SELECT dataset, id, similarity, bm25, semantic.rank AS semantic_rank, full_text.rank AS full_text_rank,
        (coalesce(1.0 / (60 + semantic.rank), 0) + coalesce(1.0 / (60 + full_text.rank), 0))::float8 AS fusion
    FROM semantic FULL JOIN full_text USING (dataset, id)
    ORDER BY fusion DESC, id
    LIMIT %(top_k)s
)
SELECT id::text, dataset::text, document::text, position, content, page, heading,
    CASE %(mode)s WHEN 'semantic' THEN similarity WHEN 'full_text' THEN bm25 ELSE fusion END,
    semantic_rank, full_text_rank
FROM fused JOIN LATERAL (
    SELECT document, position, content, page, heading
    FROM headrace_index.segments AS found
    WHERE found.tenant = %(tenant)s AND found.dataset = fused.dataset AND found.id = fused.id
) AS texts ON true
ORDER BY fusion DESC, id
"""

_DIMENSION = """
SELECT atttypmod FROM pg_attribute
WHERE attrelid = to_regclass('headrace_index.segments') AND attname = 'embedding'
"""

_SCHEMA = """
CREATE EXTENSION IF NOT EXISTS vector;

CREATE SCHEMA headrace_index;
COMMENT ON SCHEMA headrace_index IS 'What questions are answered from; a replay of the log brings all of it back.';

CREATE TABLE headrace_index.segments (
    tenant text COLLATE "C" NOT NULL,
    dataset uuid NOT NULL,
    id uuid NOT NULL,
    document uuid NOT NULL,
    position integer NOT NULL,
    content text NOT NULL,
    page integer,
    heading text,
    length integer NOT NULL,
    embedding halfvec({dimension}) STORAGE MAIN NOT NULL,
    PRIMARY KEY (tenant, dataset, id)
);
CREATE INDEX segments_document ON headrace_index.segments (tenant, dataset, document);
CREATE INDEX segments_embedding ON headrace_index.segments
    USING hnsw (embedding halfvec_ip_ops) WITH (m = 16, ef_construction = 64);
COMMENT ON TABLE headrace_index.segments IS 'The segments that can be found.';
COMMENT ON COLUMN headrace_index.segments.tenant IS 'The tenant that the segment belongs to.';
COMMENT ON COLUMN headrace_index.segments.dataset IS 'The dataset of the document.';
COMMENT ON COLUMN headrace_index.segments.id IS 'The id of the segment.';
COMMENT ON COLUMN headrace_index.segments.document IS 'The document that the segment is a piece of.';
COMMENT ON COLUMN headrace_index.segments.position IS 'The place among the segments of the document.';
COMMENT ON COLUMN headrace_index.segments.content IS 'The text.';
COMMENT ON COLUMN headrace_index.segments.page IS 'The page it begins on, from 1; null where there are no pages.';
COMMENT ON COLUMN headrace_index.segments.heading IS 'The headings above it, outermost first.';
COMMENT ON COLUMN headrace_index.segments.length IS 'Words, without stop words.';
COMMENT ON COLUMN headrace_index.segments.embedding IS 'The vector of the text, of length 1.';

CREATE TABLE headrace_index.postings (
    tenant text COLLATE "C" NOT NULL,
    dataset uuid NOT NULL,
    segment uuid NOT NULL,
    length integer NOT NULL,
    frequency integer NOT NULL,
    word text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant, dataset, word, segment) INCLUDE (frequency, length)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.05);
CREATE INDEX postings_segment ON headrace_index.postings (segment);
COMMENT ON TABLE headrace_index.postings IS 'Which words are in which segments.';
COMMENT ON COLUMN headrace_index.postings.tenant IS 'The tenant of the segment.';
COMMENT ON COLUMN headrace_index.postings.dataset IS 'The dataset of the segment.';
COMMENT ON COLUMN headrace_index.postings.segment IS 'The id of the segment.';
COMMENT ON COLUMN headrace_index.postings.length IS 'Words of the segment, without stop words.';
COMMENT ON COLUMN headrace_index.postings.frequency IS 'How often the word is in the segment.';
COMMENT ON COLUMN headrace_index.postings.word IS 'The stem of the word, lower case, at most 64 characters.';

CREATE TABLE headrace_index.statistics (
    tenant text COLLATE "C" NOT NULL,
    dataset uuid NOT NULL,
    shard smallint NOT NULL,
    segments bigint NOT NULL,
    length bigint NOT NULL,
    PRIMARY KEY (tenant, dataset, shard)
) WITH (fillfactor = 50);
COMMENT ON TABLE headrace_index.statistics IS 'How much text each dataset holds: the sum over its shards.';
COMMENT ON COLUMN headrace_index.statistics.tenant IS 'The tenant of the dataset.';
COMMENT ON COLUMN headrace_index.statistics.dataset IS 'The dataset.';
COMMENT ON COLUMN headrace_index.statistics.shard IS 'Documents count into the shard that their id picks.';
COMMENT ON COLUMN headrace_index.statistics.segments IS 'Segments; only the sum over the shards means something.';
COMMENT ON COLUMN headrace_index.statistics.length IS 'Words of these segments, without stop words.';

CREATE TABLE headrace_index.tombstones (
    tenant text COLLATE "C" NOT NULL,
    dataset uuid NOT NULL,
    document uuid,
    UNIQUE NULLS NOT DISTINCT (tenant, dataset, document)
);
COMMENT ON TABLE headrace_index.tombstones IS 'What was deleted and never comes back.';
COMMENT ON COLUMN headrace_index.tombstones.tenant IS 'The tenant of what was deleted.';
COMMENT ON COLUMN headrace_index.tombstones.dataset IS 'The dataset of what was deleted.';
COMMENT ON COLUMN headrace_index.tombstones.document IS 'The document that was deleted; null: the whole dataset was.';
"""
