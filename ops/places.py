"""Where the index is kept: in OpenSearch when its address is set, else in PostgreSQL."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from adapters import pgvector
from adapters.embedding_model import model_name
from adapters.opensearch.client import Access
from adapters.pgvector.state import State
from handlers.ports import Index
from ops.settings import Settings


def access(settings: Settings) -> Access:
    """How OpenSearch is reached."""
    password = settings.opensearch_password.get_secret_value() if settings.opensearch_password else ""
    return Access(settings.opensearch_url, settings.opensearch_user, password, settings.opensearch_ca)


async def set_up_index(settings: Settings) -> None:
    """Make what the index needs, unless it is there. Raises: Unavailable."""
    if settings.opensearch_url:
        from adapters import opensearch

        await opensearch.set_up(settings.postgres_url, access(settings), settings.opensearch_shards)
    else:
        await pgvector.set_up(settings.postgres_url, model_name(settings.embedding_model))


def open_index(settings: Settings) -> AbstractAsyncContextManager[Index]:
    if settings.opensearch_url:
        from adapters import opensearch

        return opensearch.OpenSearchIndex(settings.postgres_url, access(settings))
    return pgvector.PgvectorIndex(settings.postgres_url)


async def state(settings: Settings) -> State:
    """Raises: Unavailable."""
    if settings.opensearch_url:
        from adapters.opensearch import state as opensearch_state

        return await opensearch_state.state(settings.postgres_url, access(settings))
    from adapters.pgvector import state as pgvector_state

    return await pgvector_state.state(settings.postgres_url)


async def drop(settings: Settings, number: int) -> bool:
    """Drop a version; whether there was one that is neither searched nor built. Raises: Unavailable."""
    if settings.opensearch_url:
        from adapters.opensearch import state as opensearch_state

        return await opensearch_state.drop(settings.postgres_url, access(settings), number)
    from adapters.pgvector import state as pgvector_state

    return await pgvector_state.drop(settings.postgres_url, number)
