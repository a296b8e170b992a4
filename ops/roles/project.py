"""Keeps the tables, and looks in them for what nobody works at."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import partial

import psycopg
import structlog

from adapters.jetstream.log import JetStreamLog
from adapters.jetstream.scrub import JetStreamScrub
from adapters.jetstream.workers.consumer import done
from adapters.jetstream.workers.reactions import subscribe_reaction
from adapters.postgres import tables
from adapters.postgres.projector import Halted, Projector
from adapters.postgres.scrub import PostgresScrub
from adapters.postgres.waits import only_one, overdue
from handlers.access.erase import Erase
from handlers.ports.log import Unavailable
from handlers.work.sweep import DEADLINE_S, PERIOD_S, Sweep
from ops.roles import RoleFailed
from ops.servers.embedded import EmbeddedNats, EmbeddedPostgres
from ops.wiring import Wiring, values

log = structlog.get_logger(__name__)


async def begin(wiring: Wiring) -> Awaitable[object]:
    url = wiring.settings.postgres_url
    try:
        await tables.set_up(url)
    except psycopg.OperationalError as error:
        raise Unavailable(f"PostgreSQL does not answer: {error}") from error
    projector = Projector(
        url,
        JetStreamLog(wiring.nc, wiring.keys),
        wiring.blobs,
        values(wiring.settings),
        wiring.settings.projector_processes,
    )
    sweep = Sweep(wiring.repository, partial(overdue, url, DEADLINE_S), partial(done, wiring.nc))
    embedded = EmbeddedNats(wiring.settings.home).server_name == wiring.nc._server_info.get("server_name")
    nats = JetStreamScrub(wiring.nc, wiring.repository, ours=embedded)
    postgres = PostgresScrub(url, EmbeddedPostgres(wiring.settings.home).data)
    erase = Erase(wiring.keys, nats.dead_letters, nats.commands, postgres)
    subscribe_reaction(wiring.broker, "erase", erase, workers=1, repository=wiring.repository, keys=wiring.keys)
    return asyncio.gather(_project(projector), _keep_sweeping(url, sweep))


async def _project(projector: Projector) -> None:
    """Raises: RoleFailed."""
    try:
        await projector.run()
    except Halted as error:
        raise RoleFailed(f"The tables stand still: {error}") from error


async def _keep_sweeping(url: str, sweep: Sweep) -> None:
    while True:
        await asyncio.sleep(PERIOD_S)
        try:
            async with only_one(url) as chosen:
                if chosen:
                    await sweep()
        except (psycopg.Error, Unavailable) as error:
            log.warning("sweep.waiting", reason=str(error))
