"""The tables of the index: those that say which version is searched, and those of each version."""

from __future__ import annotations

import hashlib
from typing import LiteralString

from psycopg import AsyncConnection, AsyncCursor, OperationalError
from psycopg.rows import TupleRow

from handlers.ports import Unavailable


async def set_up(url: str, model: str) -> None:
    """Create the schema `headrace_index` unless it is there; any number of processes may call this at once.

    An index that has no versions yet becomes one for `model`, which it was made with. Raises: Unavailable.
    """
    try:
        async with await AsyncConnection.connect(url, connect_timeout=10) as connection:
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", [key("set up")])
            found = await connection.execute(
                "SELECT to_regclass('headrace_index.routes'), to_regclass('headrace_index.segments'),"
                " to_regclass('headrace_index.removals')"
            )
            routes, segments, removals = await found.fetchone() or (None, None, None)
            if routes is None:
                await connection.execute(_SCHEMA)
            if routes is None and segments is not None:
                await _adopt(connection.cursor(), model)
            if removals is None:
                await _upgrade(connection.cursor())
    except OperationalError as error:
        raise Unavailable(f"The index does not answer: {error}") from error


async def _adopt(cursor: AsyncCursor[TupleRow], model: str) -> None:
    """Take the tables of an index without versions for its first."""
    await cursor.execute(_INSERT_VERSION.replace("%(dimension)s", f"({_DIMENSION})"), {"model": model, "live": True})
    [number] = await cursor.fetchone() or [0]
    for table in ("segments", "postings", "statistics"):
        await cursor.execute(f"ALTER TABLE headrace_index.{table} RENAME TO {table}_{number}".encode())
    await cursor.execute(
        "INSERT INTO headrace_index.routes (tenant, dataset, version)"
        f" SELECT DISTINCT tenant, dataset, {number} FROM headrace_index.statistics_{number}".encode()
    )
    await make_view(cursor)


async def _upgrade(cursor: AsyncCursor[TupleRow]) -> None:
    """Give the tables of an index that knows no removals of single segments what they lack; their rows stay."""
    await cursor.execute(_REMOVALS)
    await cursor.execute("SELECT number FROM headrace_index.versions ORDER BY number")
    for (number,) in await cursor.fetchall():
        await cursor.execute(_UPGRADE.replace("{n}", str(number)).encode())
    await make_view(cursor)


async def make_version(cursor: AsyncCursor[TupleRow], model: str, dimension: int, *, live: bool) -> int:
    """The number of a new version. One that is not live yet has no index of its vectors: `finish_version` makes it."""
    await cursor.execute(_INSERT_VERSION, {"model": model, "dimension": dimension, "live": live})
    [number] = await cursor.fetchone() or [0]
    await cursor.execute(_VERSION.replace("{n}", str(number)).replace("{dimension}", str(int(dimension))).encode())
    if live:
        await finish_version(cursor, number)
    await make_view(cursor)
    return int(number)


async def finish_version(cursor: AsyncCursor[TupleRow], number: int) -> None:
    """Make the index of its vectors, unless it has one: many times quicker now than row by row."""
    await cursor.execute("SET LOCAL maintenance_work_mem = '512MB'; SET LOCAL max_parallel_maintenance_workers = 0")
    await cursor.execute(_HNSW.replace("{n}", str(number)).encode())


async def drop_version(cursor: AsyncCursor[TupleRow], number: int) -> None:
    await cursor.execute("DELETE FROM headrace_index.versions WHERE number = %s", [number])
    await make_view(cursor)
    await cursor.execute(
        "DROP TABLE IF EXISTS {0}segments_{1}, {0}postings_{1}, {0}statistics_{1}".format(
            "headrace_index.", number
        ).encode()
    )


async def make_view(cursor: AsyncCursor[TupleRow]) -> None:
    """Show what can be found, of whatever version."""
    await cursor.execute("SELECT number FROM headrace_index.versions ORDER BY number")
    parts = [_OF_VERSION.replace("{n}", str(number)) for (number,) in await cursor.fetchall()]
    await cursor.execute("DROP VIEW IF EXISTS headrace_index.segments")
    if parts:
        view = f"CREATE VIEW headrace_index.segments AS {' UNION ALL '.join(parts)}"
        await cursor.execute(f"{view}; COMMENT ON VIEW headrace_index.segments IS 'What can be found.'".encode())


def key(*names: str) -> int:
    """The advisory lock of what has these names."""
    digest = hashlib.blake2b("/".join(("headrace_index", *names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)


_DIMENSION = """
SELECT atttypmod FROM pg_attribute
WHERE attrelid = to_regclass('headrace_index.segments') AND attname = 'embedding'
"""

_INSERT_VERSION: LiteralString = """
INSERT INTO headrace_index.versions (model, dimension, live) VALUES (%(model)s, %(dimension)s, %(live)s)
RETURNING number
"""

_OF_VERSION = """
SELECT tenant, dataset, id, document, position, content, page, heading, length, version, parent, answer
FROM headrace_index.segments_{n} JOIN headrace_index.routes USING (tenant, dataset) WHERE version = {n}
"""

_SCHEMA = """
CREATE EXTENSION IF NOT EXISTS vector;

CREATE SCHEMA IF NOT EXISTS headrace_index;
COMMENT ON SCHEMA headrace_index IS 'What questions are answered from; a replay of the log brings all of it back.';

CREATE TABLE headrace_index.versions (
    number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model text NOT NULL,
    dimension integer NOT NULL,
    live boolean NOT NULL,
    kept boolean NOT NULL DEFAULT false,
    made_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE headrace_index.versions IS 'Sets of tables, each for the vectors of one embedding model.';
COMMENT ON COLUMN headrace_index.versions.number IS 'What the names of its tables end with.';
COMMENT ON COLUMN headrace_index.versions.model IS 'The embedding model.';
COMMENT ON COLUMN headrace_index.versions.dimension IS 'How many numbers a vector has.';
COMMENT ON COLUMN headrace_index.versions.live IS 'Datasets that are new may go there.';
COMMENT ON COLUMN headrace_index.versions.kept IS 'It stays until somebody drops it, though nothing is searched there.';
COMMENT ON COLUMN headrace_index.versions.made_at IS 'When it was made.';

CREATE TABLE headrace_index.routes (
    tenant text COLLATE "C" NOT NULL,
    dataset uuid NOT NULL,
    version integer NOT NULL REFERENCES headrace_index.versions,
    PRIMARY KEY (tenant, dataset)
);
CREATE INDEX routes_version ON headrace_index.routes (version);
COMMENT ON TABLE headrace_index.routes IS 'In which version each dataset is searched.';
COMMENT ON COLUMN headrace_index.routes.tenant IS 'The tenant of the dataset.';
COMMENT ON COLUMN headrace_index.routes.dataset IS 'The dataset.';
COMMENT ON COLUMN headrace_index.routes.version IS 'The version.';

CREATE TABLE headrace_index.builds (
    id uuid PRIMARY KEY,
    tenant text COLLATE "C",
    dataset uuid,
    plan text NOT NULL,
    versions jsonb NOT NULL DEFAULT '{}',
    attempt integer NOT NULL DEFAULT 0,
    reached bigint NOT NULL DEFAULT 0,
    goal bigint NOT NULL DEFAULT 0,
    began_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE NULLS NOT DISTINCT (tenant, dataset)
);
COMMENT ON TABLE headrace_index.builds IS 'What is being built beside what is searched, and how far it is.';
COMMENT ON COLUMN headrace_index.builds.id IS 'The build.';
COMMENT ON COLUMN headrace_index.builds.tenant IS 'The tenant of the dataset; null: all of the index is built.';
COMMENT ON COLUMN headrace_index.builds.dataset IS 'The dataset; null: all of the index is built.';
COMMENT ON COLUMN headrace_index.builds.plan IS 'Which model each dataset is for; of another plan a build begins anew.';
COMMENT ON COLUMN headrace_index.builds.versions IS 'The version that is built for each model.';
COMMENT ON COLUMN headrace_index.builds.attempt IS 'How often it was begun.';
COMMENT ON COLUMN headrace_index.builds.reached IS 'The sequence of the log up to which it is built.';
COMMENT ON COLUMN headrace_index.builds.goal IS 'The last sequence of the log when that was noted.';
COMMENT ON COLUMN headrace_index.builds.began_at IS 'When it was first begun.';

CREATE TABLE IF NOT EXISTS headrace_index.tombstones (
    tenant text COLLATE "C" NOT NULL,
    dataset uuid NOT NULL,
    document uuid,
    UNIQUE NULLS NOT DISTINCT (tenant, dataset, document)
);
COMMENT ON TABLE headrace_index.tombstones IS 'What was deleted and never comes back, in any version.';
COMMENT ON COLUMN headrace_index.tombstones.tenant IS 'The tenant of what was deleted.';
COMMENT ON COLUMN headrace_index.tombstones.dataset IS 'The dataset of what was deleted.';
COMMENT ON COLUMN headrace_index.tombstones.document IS 'The document that was deleted; null: the whole dataset was.';
"""

_REMOVALS = """
CREATE TABLE headrace_index.removals (
    tenant text COLLATE "C" NOT NULL,
    dataset uuid NOT NULL,
    document uuid NOT NULL,
    id uuid NOT NULL,
    sequence bigint NOT NULL,
    PRIMARY KEY (tenant, dataset, document, id)
);
COMMENT ON TABLE headrace_index.removals IS 'Segments that were taken out of documents; what is newer may come back.';
COMMENT ON COLUMN headrace_index.removals.tenant IS 'The tenant of the segment.';
COMMENT ON COLUMN headrace_index.removals.dataset IS 'The dataset of the segment.';
COMMENT ON COLUMN headrace_index.removals.document IS 'The document of the segment.';
COMMENT ON COLUMN headrace_index.removals.id IS 'The id of the segment.';
COMMENT ON COLUMN headrace_index.removals.sequence IS 'The sequence in the log of what took it out last.';
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
