"""The role `archive`: follows the log into the archive."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import nats.errors
import structlog

from adapters.archive.archiver import Archiver, Differs
from adapters.archive.store import Archive, Broken
from handlers.ports.log import Unavailable
from ops.blob_choice import open_blobs
from ops.roles import RoleFailed
from ops.settings import InvalidSetting
from ops.wiring import Wiring

log = structlog.get_logger(__name__)

SHORTEST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0


async def begin(wiring: Wiring) -> Awaitable[object]:
    """Raises: InvalidSetting."""
    if not wiring.settings.archive_url:
        raise InvalidSetting("HEADRACE_ARCHIVE_URL is not set: there is no archive to write to.")
    return _follow(wiring)


async def _follow(wiring: Wiring) -> None:
    """Archive what is new until cancelled, through outages. Raises: RoleFailed."""
    settings, wait = wiring.settings, SHORTEST_WAIT_S
    archive = Archive.at(settings.archive_url, settings.archive_segment_bytes)
    key = settings.archive_signature()
    blobs = open_blobs(settings, wiring.nc)
    archiver = Archiver(wiring.nc, archive, segment_bytes=settings.archive_segment_bytes, key=key, blobs=blobs)
    log.info("archive.following", archive=settings.archive_url, signed=key is not None)
    while True:
        try:
            if any((added := await archiver.update()).values()):
                log.info("archive.added", **added)
            wait = SHORTEST_WAIT_S
            await archiver.due(settings.archive_every_s)
        except (Unavailable, nats.errors.Error) as error:
            log.warning("archive.waiting", reason=str(error) or repr(error), seconds=wait)
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT_S)
        except (Broken, Differs) as error:
            raise RoleFailed(f"The archive was not written: {error}") from error
