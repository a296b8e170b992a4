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
from adapters.postgres.projector import Projector
from adapters.postgres.scrub import PostgresScrub
from adapters.postgres.waits import only_one, overdue
from handlers.access.erase import Erase
from handlers.ports.log import Unavailable
from handlers.work.sweep import DEADLINE_S, PERIOD_S, Sweep
from ops.projection import configure
from ops.servers.embedded import EmbeddedNats, EmbeddedPostgres
from ops.wiring import House

log = structlog.get_logger(__name__)


async def begin(house: House) -> Awaitable[object]:
    configure(house.settings)
    url = house.settings.postgres_url
    try:
        await tables.set_up(url)
    except psycopg.OperationalError as error:
        raise Unavailable(f"PostgreSQL does not answer: {error}") from error
    projector = Projector(url, JetStreamLog(house.nc, house.keys), house.blobs)
    sweep = Sweep(house.repository, partial(overdue, url, DEADLINE_S), partial(done, house.nc))
    embedded = EmbeddedNats(house.settings.home).server_name == house.nc._server_info.get("server_name")
    nats = JetStreamScrub(house.nc, house.repository, ours=embedded)
    postgres = PostgresScrub(url, EmbeddedPostgres(house.settings.home).data)
    erase = Erase(house.keys, nats.dead_letters, nats.commands, postgres)
    subscribe_reaction(house.broker, "erase", erase, workers=1, repository=house.repository, keys=house.keys)
    return asyncio.gather(projector.run(), _keep_sweeping(url, sweep))


async def _keep_sweeping(url: str, sweep: Sweep) -> None:
    while True:
        await asyncio.sleep(PERIOD_S)
        try:
            async with only_one(url) as chosen:
                if chosen:
                    await sweep()
        except (psycopg.Error, Unavailable) as error:
            log.warning("sweep.waiting", reason=str(error))
