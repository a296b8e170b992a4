"""Keeps the tables."""

from __future__ import annotations

from collections.abc import Awaitable

from adapters.jetstream.log import JetStreamLog
from adapters.postgres import tables
from adapters.postgres.projector import Projector
from ops.house import House


async def begin(house: House) -> Awaitable[None]:
    await tables.set_up(house.settings.postgres_url)
    return Projector(house.settings.postgres_url, JetStreamLog(house.nc), house.blobs).run()
