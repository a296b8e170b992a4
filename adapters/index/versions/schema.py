"""The tables in PostgreSQL that lead to the versions of an index."""

from __future__ import annotations

import hashlib
from typing import NamedTuple


class Scope(NamedTuple):
    """A document, or without one all of a dataset."""

    tenant: str
    dataset: str
    document: str | None = None


class Schema:
    """A schema of these tables, which statements name `{schema}`."""

    def __init__(self, name: str, *locks: str) -> None:
        self._name = name
        self._locks = locks or (name,)

    def sql(self, statement: str) -> bytes:
        return statement.replace("{schema}", self._name).encode()

    def key(self, *names: str) -> int:
        """The advisory lock with these names."""
        digest = hashlib.blake2b("/".join((*self._locks, *names)).encode(), digest_size=8).digest()
        return int.from_bytes(digest, signed=True)

    @property
    def changes(self) -> bytes:
        """The statements that add what older tables lack."""
        return self.sql(_CHANGES)

    @property
    def tables(self) -> bytes:
        """The statements that create the tables, except those that are there."""
        return self.sql(_SCHEMA)


_SCHEMA = """
CREATE SCHEMA IF NOT EXISTS {schema};

CREATE TABLE IF NOT EXISTS {schema}.versions (
    number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model text NOT NULL,
    dimension integer NOT NULL,
    live boolean NOT NULL,
    kept boolean NOT NULL DEFAULT false,
    made_at timestamptz NOT NULL DEFAULT now(),
    rules integer NOT NULL DEFAULT 1
);
COMMENT ON TABLE {schema}.versions IS 'Sets of tables, or indexes, each for the vectors of one embedding model.';
COMMENT ON COLUMN {schema}.versions.number IS 'Suffix of the names of its tables, or of its index.';
COMMENT ON COLUMN {schema}.versions.model IS 'The embedding model.';
COMMENT ON COLUMN {schema}.versions.dimension IS 'Length of a vector.';
COMMENT ON COLUMN {schema}.versions.live IS 'New datasets may be written there.';
COMMENT ON COLUMN {schema}.versions.kept IS 'It stays until it is dropped on request, though not searched.';
COMMENT ON COLUMN {schema}.versions.made_at IS 'Time of creation.';
COMMENT ON COLUMN {schema}.versions.rules IS 'Number of the rules that made its words.';

CREATE TABLE IF NOT EXISTS {schema}.routes (
    tenant text COLLATE "C" NOT NULL,
    dataset uuid NOT NULL,
    version integer NOT NULL REFERENCES {schema}.versions,
    PRIMARY KEY (tenant, dataset)
);
CREATE INDEX IF NOT EXISTS routes_version ON {schema}.routes (version);
COMMENT ON TABLE {schema}.routes IS 'The version in which each dataset is searched.';
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
COMMENT ON TABLE {schema}.builds IS 'Builds of new versions, and their progress.';
COMMENT ON COLUMN {schema}.builds.id IS 'The build.';
COMMENT ON COLUMN {schema}.builds.tenant IS 'The tenant of the dataset; null: all of the index is built.';
COMMENT ON COLUMN {schema}.builds.dataset IS 'The dataset; null: all of the index is built.';
COMMENT ON COLUMN {schema}.builds.plan IS 'The model of each dataset; a build with another plan starts over.';
COMMENT ON COLUMN {schema}.builds.versions IS 'The version that is built for each model.';
COMMENT ON COLUMN {schema}.builds.attempt IS 'Number of starts.';
COMMENT ON COLUMN {schema}.builds.reached IS 'The sequence of the log up to which it is built.';
COMMENT ON COLUMN {schema}.builds.goal IS 'The last sequence of the log at that time.';
COMMENT ON COLUMN {schema}.builds.began_at IS 'Time of the first start.';

CREATE TABLE IF NOT EXISTS {schema}.tombstones (
    tenant text COLLATE "C" NOT NULL,
    dataset uuid NOT NULL,
    document uuid,
    UNIQUE NULLS NOT DISTINCT (tenant, dataset, document)
);
COMMENT ON TABLE {schema}.tombstones IS 'Deleted documents and datasets, which never come back in any version.';
COMMENT ON COLUMN {schema}.tombstones.tenant IS 'The tenant.';
COMMENT ON COLUMN {schema}.tombstones.dataset IS 'The dataset.';
COMMENT ON COLUMN {schema}.tombstones.document IS 'The document that was deleted; null: the whole dataset was.';

CREATE TABLE IF NOT EXISTS {schema}.removals (
    tenant text COLLATE "C" NOT NULL,
    dataset uuid NOT NULL,
    document uuid NOT NULL,
    id uuid NOT NULL,
    sequence bigint NOT NULL,
    PRIMARY KEY (tenant, dataset, document, id)
);
COMMENT ON TABLE {schema}.removals IS 'Segments that were removed from documents; newer writes bring them back.';
COMMENT ON COLUMN {schema}.removals.tenant IS 'The tenant of the segment.';
COMMENT ON COLUMN {schema}.removals.dataset IS 'The dataset of the segment.';
COMMENT ON COLUMN {schema}.removals.document IS 'The document of the segment.';
COMMENT ON COLUMN {schema}.removals.id IS 'The id of the segment.';
COMMENT ON COLUMN {schema}.removals.sequence IS 'The sequence in the log of its last removal.';
"""

# What an earlier version of Headrace inserts, also after the change, has the rules of that version.
_CHANGES = """
DO $$ BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_attribute WHERE attrelid = '{schema}.versions'::regclass AND attname = 'rules'
    ) THEN
        ALTER TABLE {schema}.versions ADD COLUMN rules integer NOT NULL DEFAULT 1;
        COMMENT ON COLUMN {schema}.versions.rules IS 'Number of the rules that made its words.';
    END IF;
END $$
"""
