"""Choice of the search index: OpenSearch when its address is set, else PostgreSQL. Its driver loads only then."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING

import structlog

from adapters.index.pgvector import tables as pgvector
from adapters.index.pgvector.store import PgvectorStore, pgvector_index
from adapters.index.versions import state as versions
from adapters.index.versions.store import AnyStore
from handlers.ports.index import Index
from ops.settings import Settings

if TYPE_CHECKING:
    from adapters.index.opensearch.client import Access

log = structlog.get_logger(__name__)

REBUILD = (
    "some names, numbers and accents are not found by words: run `headrace index rebuild`; searches go on meanwhile"
)


def access(settings: Settings) -> Access:
    """Address and credentials of OpenSearch."""
    from adapters.index.opensearch.client import Access

    password = settings.opensearch_password.get_secret_value() if settings.opensearch_password else ""
    return Access(settings.opensearch_url, settings.opensearch_user, password, settings.opensearch_ca)


async def set_up_index(settings: Settings) -> None:
    """Create the schema of the index if it is missing. Raises: Unavailable."""
    if settings.opensearch_url:
        from adapters.index.opensearch import tables as opensearch

        await opensearch.set_up(settings.postgres_url, access(settings), settings.opensearch_shards)
    else:
        await pgvector.set_up(settings.postgres_url)
    if datasets := await outdated(settings):
        log.warning("index.outdated", datasets=datasets, advice=REBUILD)


def open_index(settings: Settings) -> AbstractAsyncContextManager[Index]:
    if settings.opensearch_url:
        from adapters.index.opensearch.store import opensearch_index

        return opensearch_index(settings.postgres_url, access(settings))
    return pgvector_index(settings.postgres_url)


async def state(settings: Settings) -> versions.State:
    """The versions and builds of the index. Raises: Unavailable."""
    async with _store(settings) as store:
        return await versions.state(settings.postgres_url, store)


async def outdated(settings: Settings) -> int:
    """The number of datasets that are searched with words of other rules. Raises: Unavailable."""
    async with _store(settings) as store:
        return await versions.outdated(settings.postgres_url, store)


async def drop(settings: Settings, number: int) -> bool:
    """Drop a version; False when there is none that is neither searched nor being built. Raises: Unavailable."""
    async with _store(settings) as store:
        return await versions.drop(settings.postgres_url, store, number)


def _store(settings: Settings) -> AbstractAsyncContextManager[AnyStore]:
    if settings.opensearch_url:
        from adapters.index.opensearch.store import opensearch_store

        return opensearch_store(access(settings))
    return nullcontext(PgvectorStore())
