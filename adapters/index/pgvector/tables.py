"""The tables of the index: those of each version, and a view of all that can be found."""

from __future__ import annotations

from collections.abc import Sequence

from adapters.index.versions import Cursor, Schema, transaction

SCHEMA = Schema("headrace_index")


async def set_up(url: str, model: str) -> None:
    """Create the schema `headrace_index` unless it is there; any number of processes may call this at once.

    An index that has no versions yet becomes one for `model`, which it was made with. Raises: Unavailable.
    """
    async with transaction(url) as cursor:
        await cursor.execute("SELECT pg_advisory_xact_lock(%s)", [SCHEMA.key("set up")])
        await cursor.execute(_FOUND)
        routes, segments, removals = await cursor.fetchone() or (None, None, None)
        if removals is not None:
            return
        await cursor.execute("CREATE EXTENSION IF NOT EXISTS vector")
        await SCHEMA.create(cursor)
        await cursor.execute(_COMMENT)
        if routes is None and segments is not None:
            await _adopt(cursor, model)
        await _upgrade(cursor)


async def _adopt(cursor: Cursor, model: str) -> None:
    """Take the tables of an index without versions for its first."""
    await cursor.execute(_INSERT_OLD, [model])
    [number] = await cursor.fetchone() or [0]
    for table in ("segments", "postings", "statistics"):
        await cursor.execute(f"ALTER TABLE headrace_index.{table} RENAME TO {table}_{number}".encode())
    await cursor.execute(
        "INSERT INTO headrace_index.routes (tenant, dataset, version)"
        f" SELECT DISTINCT tenant, dataset, {number} FROM headrace_index.statistics_{number}".encode()
    )


async def _upgrade(cursor: Cursor) -> None:
    """Give the tables of an index that knew no removals of single segments what they lack; their rows stay."""
    await cursor.execute("SELECT number FROM headrace_index.versions ORDER BY number")
    for (number,) in await cursor.fetchall():
        await cursor.execute(_UPGRADE.replace("{n}", str(number)).encode())
    await _make_view(cursor)


async def make_tables(cursor: Cursor, number: int, dimension: int) -> None:
    await cursor.execute(_VERSION.replace("{n}", str(number)).replace("{dimension}", str(int(dimension))).encode())
    await _make_view(cursor)


def table(kind: str, number: int) -> str:
    """The name of a version's segments, postings or statistics."""
    return f"headrace_index.{kind}_{number}"


async def make_hnsw(cursor: Cursor, number: int) -> None:
    """Make the index of the vectors, unless it is there: many times quicker for all at once than row by row."""
    await cursor.execute("SET LOCAL maintenance_work_mem = '512MB'; SET LOCAL max_parallel_maintenance_workers = 0")
    await cursor.execute(_HNSW.replace("{n}", str(number)).encode())


async def drop_tables(cursor: Cursor, numbers: Sequence[int]) -> None:
    """Drop those of versions that are not listed any more."""
    await _make_view(cursor)
    for number in numbers:
        tables = ", ".join(table(kind, number) for kind in ("segments", "postings", "statistics"))
        await cursor.execute(f"DROP TABLE IF EXISTS {tables}".encode())


async def _make_view(cursor: Cursor) -> None:
    """Show what can be found, of whatever version."""
    await cursor.execute("SELECT number FROM headrace_index.versions ORDER BY number")
    parts = [_OF_VERSION.replace("{n}", str(number)) for (number,) in await cursor.fetchall()]
    await cursor.execute("DROP VIEW IF EXISTS headrace_index.segments")
    if parts:
        view = f"CREATE VIEW headrace_index.segments AS {' UNION ALL '.join(parts)}"
        await cursor.execute(f"{view}; COMMENT ON VIEW headrace_index.segments IS 'What can be found.'".encode())


_FOUND = """
SELECT to_regclass('headrace_index.routes'), to_regclass('headrace_index.segments'),
    to_regclass('headrace_index.removals')
"""

_COMMENT = """
COMMENT ON SCHEMA headrace_index IS 'What questions are answered from; a replay of the log brings all of it back.'
"""

_INSERT_OLD = """
INSERT INTO headrace_index.versions (model, dimension, live)
SELECT %s, atttypmod, true FROM pg_attribute
WHERE attrelid = to_regclass('headrace_index.segments') AND attname = 'embedding'
RETURNING number
"""

_OF_VERSION = """
SELECT tenant, dataset, id, document, position, content, page, heading, length, version, parent, answer
FROM headrace_index.segments_{n} JOIN headrace_index.routes USING (tenant, dataset) WHERE version = {n}
"""

_UPGRADE = """
ALTER TABLE headrace_index.segments_{n}
    ALTER embedding DROP NOT NULL,
    ADD COLUMN IF NOT EXISTS parent integer,
    ADD COLUMN IF NOT EXISTS answer text,
    ADD COLUMN IF NOT EXISTS sequence bigint NOT NULL DEFAULT 0;
DROP INDEX IF EXISTS headrace_index.segments_{n}_document;
"""

_PLACE = """
CREATE INDEX IF NOT EXISTS segments_{n}_place
ON headrace_index.segments_{n} (tenant, dataset, document, position) INCLUDE (id);
"""

_NEW_COLUMNS = """
COMMENT ON COLUMN headrace_index.segments_{n}.embedding IS 'The vector of the text, of length 1; null: never found.';
COMMENT ON COLUMN headrace_index.segments_{n}.parent IS 'The position of the segment that is given in its place.';
COMMENT ON COLUMN headrace_index.segments_{n}.answer IS 'The answer, where the text is a question.';
COMMENT ON COLUMN headrace_index.segments_{n}.sequence IS 'The sequence in the log of what it was written for.';
"""

_UPGRADE += _PLACE + _NEW_COLUMNS

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
    sequence bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, dataset, id)
);
COMMENT ON TABLE headrace_index.segments_{n} IS 'The segments that can be found.';
COMMENT ON COLUMN headrace_index.segments_{n}.tenant IS 'The tenant that the segment belongs to.';
COMMENT ON COLUMN headrace_index.segments_{n}.dataset IS 'The dataset of the document.';
COMMENT ON COLUMN headrace_index.segments_{n}.id IS 'The id of the segment.';
COMMENT ON COLUMN headrace_index.segments_{n}.document IS 'The document that the segment is a piece of.';
COMMENT ON COLUMN headrace_index.segments_{n}.position IS 'The place among the segments of the document.';
COMMENT ON COLUMN headrace_index.segments_{n}.content IS 'The text.';
COMMENT ON COLUMN headrace_index.segments_{n}.page IS 'The page it begins on, from 1; null where there are no pages.';
COMMENT ON COLUMN headrace_index.segments_{n}.heading IS 'The headings above it, outermost first.';
COMMENT ON COLUMN headrace_index.segments_{n}.length IS 'Words, without stop words.';

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
COMMENT ON TABLE headrace_index.postings_{n} IS 'Which words are in which segments.';
COMMENT ON COLUMN headrace_index.postings_{n}.tenant IS 'The tenant of the segment.';
COMMENT ON COLUMN headrace_index.postings_{n}.dataset IS 'The dataset of the segment.';
COMMENT ON COLUMN headrace_index.postings_{n}.segment IS 'The id of the segment.';
COMMENT ON COLUMN headrace_index.postings_{n}.length IS 'Words of the segment, without stop words.';
COMMENT ON COLUMN headrace_index.postings_{n}.frequency IS 'How often the word is in the segment.';
COMMENT ON COLUMN headrace_index.postings_{n}.word IS 'The stem of the word, lower case, at most 64 characters.';

CREATE TABLE headrace_index.statistics_{n} (
    tenant text COLLATE "C" NOT NULL,
    dataset uuid NOT NULL,
    shard smallint NOT NULL,
    segments bigint NOT NULL,
    length bigint NOT NULL,
    PRIMARY KEY (tenant, dataset, shard)
) WITH (fillfactor = 50);
COMMENT ON TABLE headrace_index.statistics_{n} IS 'How much text each dataset holds: the sum over its shards.';
COMMENT ON COLUMN headrace_index.statistics_{n}.tenant IS 'The tenant of the dataset.';
COMMENT ON COLUMN headrace_index.statistics_{n}.dataset IS 'The dataset.';
COMMENT ON COLUMN headrace_index.statistics_{n}.shard IS 'Documents count into the shard that their id picks.';
COMMENT ON COLUMN headrace_index.statistics_{n}.segments IS 'Segments; only the sum over the shards means something.';
COMMENT ON COLUMN headrace_index.statistics_{n}.length IS 'Words of these segments, without stop words.';
"""

_VERSION += _PLACE + _NEW_COLUMNS
