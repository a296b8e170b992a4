"""Creation of streams, schemas, roles and tables, so that workers need no permission to create them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import psycopg

from adapters.jetstream.client import Unreachable
from adapters.jetstream.streams import STREAMS
from adapters.postgres import tables
from adapters.postgres.logins import as_indexer
from handlers.ports.log import Unavailable
from ops.index_choice import set_up_index
from ops.settings import Settings
from ops.terminal import one_line
from ops.wiring import Wiring


async def set_up(settings: Settings) -> AsyncIterator[str]:
    """Create what is missing; yield a line for each part that exists. Idempotent. Raises: Unreachable."""
    async with Wiring(settings, "setup") as wiring:
        for stream in STREAMS:
            info = await wiring.nc.jetstream().stream_info(str(stream.name))
            yield f"stream {stream.name}, {info.config.num_replicas} replicas"
    try:
        await tables.set_up(settings.postgres_url)
        yield "tables"
        await set_up_index(settings.model_copy(update={"postgres_url": await as_indexer(settings.postgres_url)}))
        yield "index"
    except psycopg.Error as error:
        raise Unreachable(f"PostgreSQL refuses the setup: {one_line(error)}") from error
    except Unavailable as error:
        raise Unreachable(one_line(error)) from error
