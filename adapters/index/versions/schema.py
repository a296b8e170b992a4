"""The rows in PostgreSQL that lead to the versions of an index, and keep those who change it apart."""

from __future__ import annotations

import hashlib

from adapters.index.versions.connection import Cursor


class Schema:
    """Where the rows are; statements call it `{schema}`."""

    def __init__(self, name: str, *locks: str) -> None:
        self._name = name
        self._locks = locks or (name,)

    def sql(self, statement: str) -> bytes:
        return statement.replace("{schema}", self._name).encode()

    def key(self, *names: str) -> int:
        """The advisory lock of what has these names."""
        digest = hashlib.blake2b("/".join((*self._locks, *names)).encode(), digest_size=8).digest()
        return int.from_bytes(digest, signed=True)

    async def create(self, cursor: Cursor) -> None:
        """Create those tables that are missing."""
        await cursor.execute(self.sql(_SCHEMA))


_SCHEMA = """
CREATE SCHEMA IF NOT EXISTS {schema};

CREATE TABLE IF NOT EXISTS {schema}.versions (
    number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model text NOT NULL,
    dimension integer NOT NULL,
    live boolean NOT NULL,
    kept boolean NOT NULL DEFAULT false,
    made_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE {schema}.versions IS 'Sets of tables, or indexes, each for the vectors of one embedding model.';
COMMENT ON COLUMN {schema}.versions.number IS 'What the names of its tables, or of its index, end with.';
COMMENT ON COLUMN {schema}.versions.model IS 'The embedding model.';
COMMENT ON COLUMN {schema}.versions.dimension IS 'How many numbers a vector has.';
COMMENT ON COLUMN {schema}.versions.live IS 'Datasets that are new may go there.';
COMMENT ON COLUMN {schema}.versions.kept IS 'It stays until somebody drops it, though nothing is searched there.';
COMMENT ON COLUMN {schema}.versions.made_at IS 'When it was made.';

CREATE TABLE IF NOT EXISTS {schema}.routes (
    tenant text COLLATE "C" NOT NULL,
    dataset uuid NOT NULL,
    version integer NOT NULL REFERENCES {schema}.versions,
    PRIMARY KEY (tenant, dataset)
);
CREATE INDEX IF NOT EXISTS routes_version ON {schema}.routes (version);
COMMENT ON TABLE {schema}.routes IS 'In which version each dataset is searched.';
COMMENT ON COLUMN {schema}.routes.tenant IS 'The tenant of the dataset.';
COMMENT ON COLUMN {schema}.routes.dataset IS 'The dataset.';
COMMENT ON COLUMN {schema}.routes.version IS 'The version.';

CREATE TABLE IF NOT EXISTS {schema}.builds (
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
COMMENT ON TABLE {schema}.builds IS 'What is being built beside what is searched, and how far it is.';
COMMENT ON COLUMN {schema}.builds.id IS 'The build.';
COMMENT ON COLUMN {schema}.builds.tenant IS 'The tenant of the dataset; null: all of the index is built.';
COMMENT ON COLUMN {schema}.builds.dataset IS 'The dataset; null: all of the index is built.';
COMMENT ON COLUMN {schema}.builds.plan IS 'Which model each dataset is for; of another plan a build begins anew.';
COMMENT ON COLUMN {schema}.builds.versions IS 'The version that is built for each model.';
COMMENT ON COLUMN {schema}.builds.attempt IS 'How often it was begun.';
COMMENT ON COLUMN {schema}.builds.reached IS 'The sequence of the log up to which it is built.';
COMMENT ON COLUMN {schema}.builds.goal IS 'The last sequence of the log when that was noted.';
COMMENT ON COLUMN {schema}.builds.began_at IS 'When it was first begun.';

CREATE TABLE IF NOT EXISTS {schema}.tombstones (
    tenant text COLLATE "C" NOT NULL,
    dataset uuid NOT NULL,
    document uuid,
    UNIQUE NULLS NOT DISTINCT (tenant, dataset, document)
);
COMMENT ON TABLE {schema}.tombstones IS 'What was deleted and never comes back, in any version.';
COMMENT ON COLUMN {schema}.tombstones.tenant IS 'The tenant of what was deleted.';
COMMENT ON COLUMN {schema}.tombstones.dataset IS 'The dataset of what was deleted.';
COMMENT ON COLUMN {schema}.tombstones.document IS 'The document that was deleted; null: the whole dataset was.';

CREATE TABLE IF NOT EXISTS {schema}.removals (
    tenant text COLLATE "C" NOT NULL,
    dataset uuid NOT NULL,
    document uuid NOT NULL,
    id uuid NOT NULL,
    sequence bigint NOT NULL,
    PRIMARY KEY (tenant, dataset, document, id)
);
COMMENT ON TABLE {schema}.removals IS 'Segments that were taken out of documents; what is newer may come back.';
COMMENT ON COLUMN {schema}.removals.tenant IS 'The tenant of the segment.';
COMMENT ON COLUMN {schema}.removals.dataset IS 'The dataset of the segment.';
COMMENT ON COLUMN {schema}.removals.document IS 'The document of the segment.';
COMMENT ON COLUMN {schema}.removals.id IS 'The id of the segment.';
COMMENT ON COLUMN {schema}.removals.sequence IS 'The sequence in the log of what took it out last.';
"""
