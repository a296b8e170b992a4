"""Follows the log into the archive."""

from __future__ import annotations

import asyncio

import nats.errors
import structlog

from adapters.archive.archiver import Archiver
from adapters.archive.store import Archive
from adapters.jetstream.client import Client, Unreachable
from handlers.ports.log import Unavailable
from ops.settings import Settings

log = structlog.get_logger(__name__)

SHORTEST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0


async def follow(settings: Settings) -> None:
    """Archive until cancelled, through outages. Raises: Broken, Differs."""
    wait = SHORTEST_WAIT_S
    while True:
        try:
            async with await Client.connect(settings.nats_url, credentials=settings.nats_credentials) as client:
                archiver = Archiver(
                    client.connection,
                    Archive.at(settings.archive_url),
                    segment_bytes=settings.archive_segment_mb * 2**20,
                )
                log.info("archive.following", archive=settings.archive_url)
                while True:
                    if any((added := await archiver.update()).values()):
                        log.info("archive.added", **added)
                    wait = SHORTEST_WAIT_S
                    await archiver.due(settings.archive_every_s)
        except (Unavailable, Unreachable, nats.errors.Error) as error:
            log.warning("archive.waiting", reason=str(error) or repr(error), seconds=wait)
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT_S)
