"""Choice of the search index: OpenSearch when its address is set, else PostgreSQL."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

from adapters.index import opensearch, pgvector, versions
from adapters.index.opensearch import Access
from adapters.model_files import model_name
from handlers.ports.index import Index
from ops.settings import Settings


def access(settings: Settings) -> Access:
    """Address and credentials of OpenSearch."""
    password = settings.opensearch_password.get_secret_value() if settings.opensearch_password else ""
    return Access(settings.opensearch_url, settings.opensearch_user, password, settings.opensearch_ca)


async def set_up_index(settings: Settings) -> None:
    """Create the schema of the index if it is missing. Raises: Unavailable."""
    if settings.opensearch_url:
        await opensearch.set_up(settings.postgres_url, access(settings), settings.opensearch_shards)
    else:
        await pgvector.set_up(settings.postgres_url, model_name(settings.embedding_model))


def open_index(settings: Settings) -> AbstractAsyncContextManager[Index]:
    if settings.opensearch_url:
        return opensearch.OpenSearchIndex(settings.postgres_url, access(settings))
    return pgvector.PgvectorIndex(settings.postgres_url)


async def state(settings: Settings) -> versions.State:
    """Versions and builds of the index. Raises: Unavailable."""
    return await versions.state(settings.postgres_url, _stored(settings))


async def drop(settings: Settings, number: int) -> bool:
    """Drop a version. Return False when it is missing, searched or being built. Raises: Unavailable."""
    return await versions.drop(settings.postgres_url, _stored(settings), number)


def _stored(settings: Settings) -> versions.Stored[Any]:
    return partial(opensearch.stored, access(settings)) if settings.opensearch_url else pgvector.stored
