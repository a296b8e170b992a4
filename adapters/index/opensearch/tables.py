"""The rows in PostgreSQL that only an index in OpenSearch needs."""

from __future__ import annotations

from secrets import token_hex

from adapters.index.opensearch.client import Access, connected, waiting
from adapters.index.opensearch.segments import settings
from adapters.index.versions.database import Cursor, transaction
from adapters.index.versions.schema import Schema

SCHEMA = Schema("headrace_opensearch", "headrace_index", "opensearch")


async def set_up(url: str, access: Access, shards: int = 1) -> None:
    """Create the schema `headrace_opensearch` unless it is there, and the template of its indexes.

    Processes may call this concurrently. Raises: Unavailable.
    """
    async with transaction(url) as cursor:
        await cursor.execute("SELECT pg_advisory_xact_lock(%s)", [SCHEMA.key("set up")])
        await cursor.execute("SELECT to_regclass('headrace_opensearch.installation')")
        if await cursor.fetchone() == (None,):
            await cursor.execute(SCHEMA.tables)
            await cursor.execute(_TABLES)
            await cursor.execute(_INSTALL, [f"headrace-{token_hex(4)}"])
        await cursor.execute(SCHEMA.changes)
        prefix = await prefix_of(cursor)
        async with connected(access) as client:
            template = {"index_patterns": [f"{prefix}-*"], "template": {"settings": settings(shards)}}
            with waiting():
                await client.indices.put_index_template(name=prefix, body=template)


async def prefix_of(cursor: Cursor) -> str:
    """The prefix of the names of this installation's indexes."""
    await cursor.execute("SELECT prefix FROM headrace_opensearch.installation")
    [prefix] = await cursor.fetchone() or [""]
    return str(prefix)


_INSTALL = "INSERT INTO headrace_opensearch.installation (prefix) VALUES (%s)"

_TABLES = """
COMMENT ON SCHEMA headrace_opensearch IS 'The routes to the index in OpenSearch; a replay of the log brings them back.';

CREATE TABLE headrace_opensearch.installation (prefix text PRIMARY KEY);
COMMENT ON TABLE headrace_opensearch.installation IS 'This installation, as the owner of indexes in OpenSearch.';
COMMENT ON COLUMN headrace_opensearch.installation.prefix IS 'The prefix of their names, and the alias of all.';

CREATE TABLE headrace_opensearch.held (
    version integer NOT NULL REFERENCES headrace_opensearch.versions ON DELETE CASCADE,
    tenant text COLLATE "C" NOT NULL,
    dataset uuid NOT NULL,
    PRIMARY KEY (tenant, dataset, version)
);
CREATE INDEX held_version ON headrace_opensearch.held (version);
COMMENT ON TABLE headrace_opensearch.held IS 'The versions that hold entries of a dataset.';
COMMENT ON COLUMN headrace_opensearch.held.version IS 'The version.';
COMMENT ON COLUMN headrace_opensearch.held.tenant IS 'The tenant of the dataset.';
COMMENT ON COLUMN headrace_opensearch.held.dataset IS 'The dataset.';
"""
