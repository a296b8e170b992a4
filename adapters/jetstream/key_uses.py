"""The last uses of API keys, in a key-value bucket: noted in memory, and written once a minute."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

import nats.errors
import structlog
from nats.aio.client import Client

from adapters.jetstream.direct import DirectReader
from adapters.jetstream.streams import KEY_USES
from adapters.many import each
from handlers.ports.log import Unavailable

log = structlog.get_logger(__name__)

INTERVAL_S = 60.0
"""Interval of writing, in seconds."""

STREAM = f"KV_{KEY_USES}"

_AT_ONCE = 100
_ASKED = 1000
_LAST_S = 2.0
"""Maximum time for the last writing of a process that ends, in seconds."""

_Key = tuple[str, str]
"""Tenant and id."""


class JetStreamKeyUses:
    """The last use of a key is the newest that a door has written, a minute old at most."""

    def __init__(self, nc: Client, *, timeout_s: float = 5.0) -> None:
        self._js = nc.jetstream(timeout=timeout_s)
        self._reader = DirectReader(nc, timeout_s=timeout_s)
        self._noted: dict[_Key, datetime] = {}

    def used(self, tenant: str, key: str) -> None:
        """As the port."""
        self._noted[tenant, key] = datetime.now(UTC)

    async def keep_writing(self) -> None:
        """Write each minute, and once more when it is cancelled. While the bucket is away, uses are kept in memory."""
        try:
            while True:
                await asyncio.sleep(INTERVAL_S)
                try:
                    await self.write()
                except Unavailable as error:
                    log.warning("key_uses.waiting", reason=str(error))
        finally:
            with suppress(Unavailable, TimeoutError):
                async with asyncio.timeout(_LAST_S):
                    await self.write()

    async def write(self) -> None:
        """Write what was noted since the last time. Raises: Unavailable."""
        noted, self._noted = self._noted, {}
        left = dict(noted)

        async def put(use: tuple[_Key, datetime]) -> None:
            (tenant, key), at = use
            await self._js.publish(_subject(tenant, key), at.isoformat().encode(), stream=STREAM)
            del left[tenant, key]

        try:
            await each(noted.items(), put, _AT_ONCE)
        except nats.errors.Error as error:
            raise Unavailable(f"The last uses of keys cannot be written: {error!r}") from error
        finally:
            self._noted = left | self._noted

    async def last(self, tenant: str, keys: Sequence[str]) -> dict[str, datetime]:
        """The last use of each of these keys of a tenant that was ever used, by its id. Raises: Unavailable."""
        found: dict[str, datetime] = {}
        for begin in range(0, len(keys), _ASKED):
            subjects = {_subject(tenant, key): key for key in keys[begin : begin + _ASKED]}
            for subject, message in (await self._reader.latest(STREAM, list(subjects))).items():
                found[subjects[subject]] = datetime.fromisoformat(message.data.decode())
        return found


def _subject(tenant: str, key: str) -> str:
    return f"$KV.{KEY_USES}.{tenant}.{key}"
