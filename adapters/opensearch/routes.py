"""The rows in PostgreSQL that lead to the versions of the index, and keep those who change it apart."""

from __future__ import annotations

from secrets import token_hex

from psycopg import AsyncConnection, AsyncCursor, OperationalError
from psycopg.rows import TupleRow

from adapters.opensearch.client import Access, connected, waiting
from adapters.opensearch.segments import Segments, settings
from adapters.pgvector.tables import key as lock
from handlers.ports import Unavailable

Cursor = AsyncCursor[TupleRow]


def key(*names: str) -> int:
    """The advisory lock of what has these names."""
    return lock("opensearch", *names)


def index_name(prefix: str, number: int) -> str:
    return f"{prefix}-{number}"


async def set_up(url: str, access: Access, shards: int = 1) -> None:
    """Create the schema `headrace_opensearch` unless it is there, and the template of its indexes; any number of
    processes may call this at once. Raises: Unavailable."""
    try:
        async with await AsyncConnection.connect(url, connect_timeout=10) as connection:
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", [key("set up")])
            found = await connection.execute("SELECT to_regclass('headrace_opensearch.installation')")
            if await found.fetchone() == (None,):
                await connection.execute(_SCHEMA)
                await connection.execute(
                    "INSERT INTO headrace_opensearch.installation VALUES (%s)", [f"headrace-{token_hex(4)}"]
                )
            prefix = await prefix_of(connection.cursor())
            async with connected(access) as client:
                template = {"index_patterns": [f"{prefix}-*"], "template": {"settings": settings(shards)}}
                with waiting():
                    await client.indices.put_index_template(name=prefix, body=template)
    except OperationalError as error:
        raise Unavailable(f"PostgreSQL does not answer: {error}") from error


async def prefix_of(cursor: Cursor) -> str:
    """What the names of this installation's indexes begin with."""
    await cursor.execute("SELECT prefix FROM headrace_opensearch.installation")
    [prefix] = await cursor.fetchone() or [""]
    return str(prefix)


async def make_version(
    cursor: Cursor, segments: Segments, prefix: str, model: str, dimension: int, *, live: bool
) -> int:
    """The number of a new version."""
    await cursor.execute(_INSERT_VERSION, [model, dimension, live])
    [number] = await cursor.fetchone() or [0]
    await segments.make(index_name(prefix, number), dimension, live=live)
    return int(number)


async def drop_versions(cursor: Cursor, segments: Segments, prefix: str, numbers: list[int]) -> None:
    await cursor.execute("DELETE FROM headrace_opensearch.versions WHERE number = ANY (%s)", [numbers])
    await segments.drop(index_name(prefix, number) for number in numbers)


async def tidy(cursor: Cursor, segments: Segments, prefix: str) -> None:
    """Drop the versions that nothing is searched in and that nobody builds or keeps, and indexes of no version; take
    out of the others the datasets that were moved away; and let the alias stand for what is searched."""
    await cursor.execute("SELECT pg_advisory_xact_lock(%s)", [key("versions")])
    await cursor.execute(_UNUSED)
    await drop_versions(cursor, segments, prefix, [number for (number,) in await cursor.fetchall()])
    await cursor.execute("SELECT number FROM headrace_opensearch.versions")
    known = {index_name(prefix, number) for (number,) in await cursor.fetchall()}
    await segments.drop([name for name in await segments.names(f"{prefix}-*") if name not in known])
    await cursor.execute(_MOVED_AWAY)
    for number, tenant, dataset in await cursor.fetchall():
        await purge(cursor, segments, prefix, number, tenant, dataset)
    await point(cursor, segments, prefix)


async def point(cursor: Cursor, segments: Segments, prefix: str) -> None:
    """Let the alias, which is for people, stand for the indexes that are searched."""
    await cursor.execute("SELECT DISTINCT version FROM headrace_opensearch.routes")
    await segments.alias(prefix, [index_name(prefix, number) for (number,) in await cursor.fetchall()])


async def purge(cursor: Cursor, segments: Segments, prefix: str, number: int, tenant: str, dataset: str) -> None:
    """Take all of a dataset out of a version."""
    await segments.clear(index_name(prefix, number), tenant, dataset, None)
    await cursor.execute(
        "DELETE FROM headrace_opensearch.held WHERE version = %s AND tenant = %s AND dataset = %s",
        [number, tenant, dataset],
    )


async def hold(cursor: Cursor, number: int, tenant: str, dataset: str) -> None:
    """Note that a version has something of a dataset."""
    await cursor.execute(
        "INSERT INTO headrace_opensearch.held VALUES (%s, %s, %s) ON CONFLICT DO NOTHING", [number, tenant, dataset]
    )


async def newer(cursor: Cursor, tenant: str, dataset: str, document: str, ids: list[str], sequence: int) -> set[str]:
    """Those that were removed later in the log."""
    await cursor.execute(_NEWER, [tenant, dataset, document, ids, sequence])
    return {id for (id,) in await cursor.fetchall()}


async def delete(
    cursor: Cursor, segments: Segments, prefix: str, tenant: str, dataset: str, document: str | None
) -> None:
    """Take a document, or all of a dataset, out of every version, for good."""
    scope = {"tenant": tenant, "dataset": dataset, "document": document}
    await cursor.execute(_BURY, scope)
    for number in await _holders(cursor, tenant, dataset):
        await segments.clear(index_name(prefix, number), tenant, dataset, document, good=True)
    await cursor.execute(_FORGET_REMOVALS, scope)
    if document is None:
        for table in ("routes", "held"):
            await cursor.execute(
                f"DELETE FROM headrace_opensearch.{table} WHERE tenant = %(tenant)s AND dataset = %(dataset)s".encode(),
                scope,
            )
        await cursor.execute(_BURIED_WITH_IT, scope)


async def remove(
    cursor: Cursor,
    segments: Segments,
    prefix: str,
    tenant: str,
    dataset: str,
    document: str,
    ids: list[str],
    sequence: int,
) -> None:
    """Take entries out of every version, unless they were written later in the log."""
    await cursor.execute(_NOTE_REMOVALS, [tenant, dataset, document, sequence, ids])
    for number in await _holders(cursor, tenant, dataset):
        name = index_name(prefix, number)
        await segments.remove(name, tenant, dataset, document, ids, sequence)
        await segments.refresh(name)


async def _holders(cursor: Cursor, tenant: str, dataset: str) -> list[int]:
    """The versions that have something of a dataset, locked, so that none is dropped meanwhile."""
    await cursor.execute(_HOLDERS, [tenant, dataset])
    return [number for (number,) in await cursor.fetchall()]


_INSERT_VERSION = """
INSERT INTO headrace_opensearch.versions (model, dimension, live) VALUES (%s, %s, %s) RETURNING number
"""

_BUILT = "SELECT value::integer FROM headrace_opensearch.builds CROSS JOIN jsonb_each_text(versions)"

_UNUSED = f"""
SELECT number FROM headrace_opensearch.versions
WHERE NOT kept AND number NOT IN (SELECT version FROM headrace_opensearch.routes) AND number NOT IN ({_BUILT})
FOR UPDATE
"""

_MOVED_AWAY = f"""
SELECT version, tenant, dataset FROM headrace_opensearch.held
WHERE version IN (SELECT number FROM headrace_opensearch.versions WHERE NOT kept) AND version NOT IN ({_BUILT})
    AND (tenant, dataset, version) NOT IN (SELECT tenant, dataset, version FROM headrace_opensearch.routes)
"""

_HOLDERS = """
SELECT number FROM headrace_opensearch.versions JOIN headrace_opensearch.held ON version = number
WHERE tenant = %s AND dataset = %s ORDER BY number FOR KEY SHARE OF versions
"""

_NEWER = """
SELECT id::text FROM headrace_opensearch.removals
WHERE tenant = %s AND dataset = %s AND document = %s AND id = ANY (%s::uuid[]) AND sequence > %s
"""

_BURY = """
INSERT INTO headrace_opensearch.tombstones (tenant, dataset, document)
VALUES (%(tenant)s, %(dataset)s, %(document)s)
ON CONFLICT DO NOTHING
"""

_BURIED_WITH_IT = """
DELETE FROM headrace_opensearch.tombstones
WHERE tenant = %(tenant)s AND dataset = %(dataset)s AND document IS NOT NULL
"""

_NOTE_REMOVALS = """
INSERT INTO headrace_opensearch.removals AS known (tenant, dataset, document, sequence, id)
SELECT %s, %s::uuid, %s::uuid, %s::bigint, id FROM unnest(%s::uuid[]) AS given (id)
ON CONFLICT (tenant, dataset, document, id)
DO UPDATE SET sequence = greatest(known.sequence, excluded.sequence)
"""

_FORGET_REMOVALS = """
DELETE FROM headrace_opensearch.removals
WHERE tenant = %(tenant)s AND dataset = %(dataset)s AND (%(document)s::uuid IS NULL OR document = %(document)s::uuid)
"""

_SCHEMA = """
CREATE SCHEMA headrace_opensearch;
COMMENT ON SCHEMA headrace_opensearch IS 'What leads to the index in OpenSearch; a replay of the log brings it back.';

CREATE TABLE headrace_opensearch.installation (prefix text PRIMARY KEY);
COMMENT ON TABLE headrace_opensearch.installation IS 'Whose the indexes in OpenSearch are.';
COMMENT ON COLUMN headrace_opensearch.installation.prefix IS 'What their names begin with, and the alias of all.';

CREATE TABLE headrace_opensearch.versions (
    number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model text NOT NULL,
    dimension integer NOT NULL,
    live boolean NOT NULL,
    kept boolean NOT NULL DEFAULT false,
    made_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE headrace_opensearch.versions IS 'OpenSearch indexes, each for the vectors of one embedding model.';
COMMENT ON COLUMN headrace_opensearch.versions.number IS 'What its name ends with.';
COMMENT ON COLUMN headrace_opensearch.versions.model IS 'The embedding model.';
COMMENT ON COLUMN headrace_opensearch.versions.dimension IS 'How many numbers a vector has.';
COMMENT ON COLUMN headrace_opensearch.versions.live IS 'Datasets that are new may go there.';
COMMENT ON COLUMN headrace_opensearch.versions.kept IS 'It stays until somebody drops it, though nobody searches it.';
COMMENT ON COLUMN headrace_opensearch.versions.made_at IS 'When it was made.';

CREATE TABLE headrace_opensearch.routes (
    tenant text COLLATE "C" NOT NULL,
    dataset uuid NOT NULL,
    version integer NOT NULL REFERENCES headrace_opensearch.versions,
    PRIMARY KEY (tenant, dataset)
);
CREATE INDEX routes_version ON headrace_opensearch.routes (version);
COMMENT ON TABLE headrace_opensearch.routes IS 'In which version each dataset is searched.';
COMMENT ON COLUMN headrace_opensearch.routes.tenant IS 'The tenant of the dataset.';
COMMENT ON COLUMN headrace_opensearch.routes.dataset IS 'The dataset.';
COMMENT ON COLUMN headrace_opensearch.routes.version IS 'The version.';

CREATE TABLE headrace_opensearch.held (
    version integer NOT NULL REFERENCES headrace_opensearch.versions ON DELETE CASCADE,
    tenant text COLLATE "C" NOT NULL,
    dataset uuid NOT NULL,
    PRIMARY KEY (tenant, dataset, version)
);
CREATE INDEX held_version ON headrace_opensearch.held (version);
COMMENT ON TABLE headrace_opensearch.held IS 'Which versions have something of a dataset.';
COMMENT ON COLUMN headrace_opensearch.held.version IS 'The version.';
COMMENT ON COLUMN headrace_opensearch.held.tenant IS 'The tenant of the dataset.';
COMMENT ON COLUMN headrace_opensearch.held.dataset IS 'The dataset.';

CREATE TABLE headrace_opensearch.builds (
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
COMMENT ON TABLE headrace_opensearch.builds IS 'What is being built beside what is searched, and how far it is.';
COMMENT ON COLUMN headrace_opensearch.builds.id IS 'The build.';
COMMENT ON COLUMN headrace_opensearch.builds.tenant IS 'The tenant of the dataset; null: all of the index is built.';
COMMENT ON COLUMN headrace_opensearch.builds.dataset IS 'The dataset; null: all of the index is built.';
COMMENT ON COLUMN headrace_opensearch.builds.plan IS 'The model of each dataset; of another plan a build begins anew.';
COMMENT ON COLUMN headrace_opensearch.builds.versions IS 'The version that is built for each model.';
COMMENT ON COLUMN headrace_opensearch.builds.attempt IS 'How often it was begun.';
COMMENT ON COLUMN headrace_opensearch.builds.reached IS 'The sequence of the log up to which it is built.';
COMMENT ON COLUMN headrace_opensearch.builds.goal IS 'The last sequence of the log when that was noted.';
COMMENT ON COLUMN headrace_opensearch.builds.began_at IS 'When it was first begun.';

CREATE TABLE headrace_opensearch.tombstones (
    tenant text COLLATE "C" NOT NULL,
    dataset uuid NOT NULL,
    document uuid,
    UNIQUE NULLS NOT DISTINCT (tenant, dataset, document)
);
COMMENT ON TABLE headrace_opensearch.tombstones IS 'What was deleted and never comes back, in any version.';
COMMENT ON COLUMN headrace_opensearch.tombstones.tenant IS 'The tenant of what was deleted.';
COMMENT ON COLUMN headrace_opensearch.tombstones.dataset IS 'The dataset of what was deleted.';
COMMENT ON COLUMN headrace_opensearch.tombstones.document IS 'The deleted document; null: the whole dataset was.';

CREATE TABLE headrace_opensearch.removals (
    tenant text COLLATE "C" NOT NULL,
    dataset uuid NOT NULL,
    document uuid NOT NULL,
    id uuid NOT NULL,
    sequence bigint NOT NULL,
    PRIMARY KEY (tenant, dataset, document, id)
);
COMMENT ON TABLE headrace_opensearch.removals IS 'Segments taken out of documents; what is newer may come back.';
COMMENT ON COLUMN headrace_opensearch.removals.tenant IS 'The tenant of the segment.';
COMMENT ON COLUMN headrace_opensearch.removals.dataset IS 'The dataset of the segment.';
COMMENT ON COLUMN headrace_opensearch.removals.document IS 'The document of the segment.';
COMMENT ON COLUMN headrace_opensearch.removals.id IS 'The id of the segment.';
COMMENT ON COLUMN headrace_opensearch.removals.sequence IS 'The sequence in the log of what took it out last.';
"""
