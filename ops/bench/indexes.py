"""Temporary indexes for the benchmarks, in a PostgreSQL database and in OpenSearch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from uuid import uuid4

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from adapters.index.opensearch import tables as opensearch
from adapters.index.opensearch.client import Access, connected
from adapters.index.opensearch.segments import Segments
from adapters.index.opensearch.store import opensearch_index
from adapters.index.opensearch.tables import prefix_of
from adapters.index.pgvector import tables as pgvector
from adapters.index.pgvector.store import pgvector_index
from domain.aggregate import new_id
from handlers.ports.index import Entry, Index
from ops.index_choice import access
from ops.settings import Settings

TENANT = "bench"
OF_DOCUMENT = 500
"""Segments per document, where the document does not matter."""

AT_ONCE = 4
"""Documents written concurrently."""

Documents = Iterable[tuple[str, Sequence[Entry]]]
"""Segments by document id."""


@asynccontextmanager
async def database(postgres_url: str) -> AsyncIterator[str]:
    """Address of an empty database on the server of `url`, dropped afterwards."""
    name = f"bench_{uuid4().hex}"
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as connection:
        await connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield make_conninfo(postgres_url, dbname=name)
        finally:
            await connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@asynccontextmanager
async def in_postgres(database_url: str) -> AsyncIterator[Index]:
    await pgvector.set_up(database_url)
    async with pgvector_index(database_url) as index:
        yield index


def cluster() -> Access | None:
    """The OpenSearch of the settings; None when there is none."""
    settings = Settings.load()
    return access(settings) if settings.opensearch_url else None


@asynccontextmanager
async def in_opensearch(database_url: str, to: Access) -> AsyncIterator[Index]:
    """An index with unique names in the cluster, dropped afterwards."""
    await opensearch.set_up(database_url, to)
    try:
        async with opensearch_index(database_url, to) as index:
            yield index
    finally:
        async with await psycopg.AsyncConnection.connect(database_url) as connection, connected(to) as client:
            prefix, segments = await prefix_of(connection.cursor()), Segments(client)
            await segments.drop(await segments.names(f"{prefix}-*"))
            await client.indices.delete_index_template(name=prefix)


async def merged(to: Access) -> None:
    """Wait until the cluster has finished the background work of a build."""
    async with connected(to) as client:
        while (await client.indices.stats(metric="merge"))["_all"]["total"]["merges"]["current"]:
            await asyncio.sleep(1)


async def fill(
    index: Index, datasets: Mapping[str, Documents], model: str, dimension: int, advance: Callable[[int], None]
) -> None:
    """Build an index of these datasets only, as a rebuild does; `advance` is called with the segments added."""
    turn = asyncio.Semaphore(AT_ONCE)
    async with index.build() as build:
        await build.begin(new_id(), 0)
        await build.open(model, dimension)

        async def put(dataset: str, document: str, entries: Sequence[Entry]) -> None:
            try:
                await build.write(TENANT, dataset, document, entries, model=model, version=1)
            finally:
                turn.release()
            advance(len(entries))

        async with asyncio.TaskGroup() as tasks:
            for dataset, documents in datasets.items():
                for document, entries in documents:
                    await turn.acquire()
                    tasks.create_task(put(dataset, document, entries))
        await build.complete()
        async with build.swap():
            pass
