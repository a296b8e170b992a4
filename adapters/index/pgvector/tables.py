"""The tables of the index: those of each version, and a view of everything that can be found."""

from __future__ import annotations

from collections.abc import Sequence

from adapters.index.versions.database import Cursor, transaction
from adapters.index.versions.schema import Schema

SCHEMA = Schema("headrace_index")


async def set_up(url: str) -> None:
    """Create the schema `headrace_index` unless it is there; processes may call this concurrently.

    Raises: Unavailable.
    """
    async with transaction(url) as cursor:
        await cursor.execute("SELECT pg_advisory_xact_lock(%s)", [SCHEMA.key("set up")])
        await cursor.execute("SELECT to_regclass('headrace_index.removals')")  # the last table that is made
        if await cursor.fetchone() == (None,):
            await cursor.execute("CREATE EXTENSION IF NOT EXISTS vector")
            await cursor.execute(SCHEMA.tables)
            await cursor.execute(_COMMENT)
        await cursor.execute(SCHEMA.changes)


async def make_tables(cursor: Cursor, number: int, dimension: int) -> None:
    await cursor.execute(_VERSION.replace("{n}", str(number)).replace("{dimension}", str(int(dimension))).encode())
    await _make_view(cursor)


def table(kind: str, number: int) -> str:
    """The table of a version's `segments`, `postings` or `statistics`."""
    return f"headrace_index.{kind}_{number}"


async def make_hnsw(cursor: Cursor, number: int) -> None:
    """Make the index of the vectors unless it is there: many times faster for all rows at once than row by row."""
    await cursor.execute("SET LOCAL maintenance_work_mem = '512MB'; SET LOCAL max_parallel_maintenance_workers = 0")
    await cursor.execute(_HNSW.replace("{n}", str(number)).encode())


async def drop_tables(cursor: Cursor, numbers: Sequence[int]) -> None:
    """Drop the tables of versions that are not listed any more."""
    await _make_view(cursor)
    for number in numbers:
        tables = ", ".join(table(kind, number) for kind in ("segments", "postings", "statistics"))
        await cursor.execute(f"DROP TABLE IF EXISTS {tables}".encode())


async def _make_view(cursor: Cursor) -> None:
    """Make the view of everything that can be found, over all versions."""
    await cursor.execute("SELECT number FROM headrace_index.versions ORDER BY number")
    parts = [_OF_VERSION.replace("{n}", str(number)) for (number,) in await cursor.fetchall()]
    await cursor.execute("DROP VIEW IF EXISTS headrace_index.segments")
    if parts:
        view = f"CREATE VIEW headrace_index.segments AS {' UNION ALL '.join(parts)}"
        await cursor.execute(f"{view}; {_COMMENT_VIEW}".encode())


_COMMENT = """
COMMENT ON SCHEMA headrace_index IS 'The search index; a replay of the log brings all of it back.'
"""

_COMMENT_VIEW = "COMMENT ON VIEW headrace_index.segments IS 'The segments that can be found, of all versions.'"

_OF_VERSION = """
SELECT tenant, dataset, id, document, position, content, page, heading, length, version, parent, answer
FROM headrace_index.segments_{n} JOIN headrace_index.routes USING (tenant, dataset) WHERE version = {n}
"""

_HNSW = """
CREATE INDEX IF NOT EXISTS segments_{n}_embedding ON headrace_index.segments_{n}
USING hnsw (embedding halfvec_ip_ops) WITH (m = 16, ef_construction = 64)
"""

_VERSION = """
CREATE TABLE headrace_index.segments_{n} (
    tenant text COLLATE "C" NOT NULL,
    dataset uuid NOT NULL,
    id uuid NOT NULL,
    document uuid NOT NULL,
    position integer NOT NULL,
    content text NOT NULL,
    page integer,
    heading text,
    length integer NOT NULL,
    embedding halfvec({dimension}) STORAGE MAIN,
    parent integer,
    answer text,
    sequence bigint NOT NULL,
    PRIMARY KEY (tenant, dataset, id)
);
CREATE INDEX segments_{n}_place
ON headrace_index.segments_{n} (tenant, dataset, document, position) INCLUDE (id);
COMMENT ON TABLE headrace_index.segments_{n} IS 'The segments that can be found.';
COMMENT ON COLUMN headrace_index.segments_{n}.tenant IS 'The tenant that the segment belongs to.';
COMMENT ON COLUMN headrace_index.segments_{n}.dataset IS 'The dataset of the document.';
COMMENT ON COLUMN headrace_index.segments_{n}.id IS 'The id of the segment.';
COMMENT ON COLUMN headrace_index.segments_{n}.document IS 'The document of the segment.';
COMMENT ON COLUMN headrace_index.segments_{n}.position IS 'The position among the segments of the document.';
COMMENT ON COLUMN headrace_index.segments_{n}.content IS 'The text.';
COMMENT ON COLUMN headrace_index.segments_{n}.page IS 'The page on which it begins, from 1; null without pages.';
COMMENT ON COLUMN headrace_index.segments_{n}.heading IS 'The headings above it, outermost first.';
COMMENT ON COLUMN headrace_index.segments_{n}.length IS 'Number of words, without stop words.';
COMMENT ON COLUMN headrace_index.segments_{n}.embedding IS 'The vector of the text, of length 1; null: never found.';
COMMENT ON COLUMN headrace_index.segments_{n}.parent IS 'The position of the segment that is given in its place.';
COMMENT ON COLUMN headrace_index.segments_{n}.answer IS 'The answer, where the text is a question.';
COMMENT ON COLUMN headrace_index.segments_{n}.sequence IS 'The sequence in the log of the cause of its last write.';

CREATE TABLE headrace_index.postings_{n} (
    tenant text COLLATE "C" NOT NULL,
    dataset uuid NOT NULL,
    segment uuid NOT NULL,
    length integer NOT NULL,
    frequency integer NOT NULL,
    word text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant, dataset, word, segment) INCLUDE (frequency, length)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.05);
CREATE INDEX postings_{n}_segment ON headrace_index.postings_{n} (segment);
COMMENT ON TABLE headrace_index.postings_{n} IS 'The words of the segments.';
COMMENT ON COLUMN headrace_index.postings_{n}.tenant IS 'The tenant of the segment.';
COMMENT ON COLUMN headrace_index.postings_{n}.dataset IS 'The dataset of the segment.';
COMMENT ON COLUMN headrace_index.postings_{n}.segment IS 'The id of the segment.';
COMMENT ON COLUMN headrace_index.postings_{n}.length IS 'Number of words of the segment, without stop words.';
COMMENT ON COLUMN headrace_index.postings_{n}.frequency IS 'Number of times the word is in the segment.';
COMMENT ON COLUMN headrace_index.postings_{n}.word IS 'The stem of the word, lower case, at most 64 characters.';

CREATE TABLE headrace_index.statistics_{n} (
    tenant text COLLATE "C" NOT NULL,
    dataset uuid NOT NULL,
    shard smallint NOT NULL,
    segments bigint NOT NULL,
    length bigint NOT NULL,
    PRIMARY KEY (tenant, dataset, shard)
) WITH (fillfactor = 50);
COMMENT ON TABLE headrace_index.statistics_{n} IS 'The amount of text of each dataset: the sum over its shards.';
COMMENT ON COLUMN headrace_index.statistics_{n}.tenant IS 'The tenant of the dataset.';
COMMENT ON COLUMN headrace_index.statistics_{n}.dataset IS 'The dataset.';
COMMENT ON COLUMN headrace_index.statistics_{n}.shard IS 'Number of the shard, by the id of the document.';
COMMENT ON COLUMN headrace_index.statistics_{n}.segments IS 'Number of segments; only the sum is meaningful.';
COMMENT ON COLUMN headrace_index.statistics_{n}.length IS 'Number of words of these segments, without stop words.';
"""
