"""Blobs as objects, named `blobs/<tenant>/<two digits>/<SHA-256 in hex>`."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from adapters.many import each
from adapters.objects.folder import PARTIAL
from adapters.objects.objects import Objects
from domain.access.tenant import TENANT
from handlers.ports.log import RENEWED, StoredBlob, Unavailable

MARK = "sweeping"
"""Object that exists while a sweep removes blobs."""

SWEEPING_S = 60.0
"""Maximum time that a sweep removes blobs under one mark, in seconds."""

DEAD_S = 120.0
"""Time after which an unchanged mark is that of a sweep that was killed, in seconds."""

KILLED = timedelta(minutes=10)
"""Age of a mark that the next sweep replaces."""

ABANDONED = timedelta(days=1)
"""Age of a file that is not complete and never will be."""

LOOK_S = 0.2

AT_ONCE = 16

_BLOB = re.compile(rf"blobs/({TENANT.pattern})/[0-9a-f]{{2}}/([0-9a-f]{{64}})")


class ObjectBlobs:
    """A write waits while there is the mark of a sweep, and then writes again what the sweep has removed.

    A sweep looks at the age of a blob after it has made its mark. So either it finds the new age, or the write finds
    the mark, or that the blob is gone: the store need not support conditional removals.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._dead: datetime | None = None
        """The time of a mark that a killed sweep has left."""

    async def put(self, tenant: str, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        found = await self._objects.find(_name(tenant, digest))
        if found is None or datetime.now(UTC) - found.at > RENEWED:
            await self.write(tenant, digest, data)
        return digest

    async def write(self, tenant: str, digest: str, data: bytes) -> None:
        name = _name(tenant, digest)
        while True:
            await self._objects.replace(name, data)
            await self._no_sweep()
            if await self._objects.find(name):
                return

    async def get(self, tenant: str, digest: str) -> bytes:
        data = await self._objects.get(_name(tenant, digest))
        if data is None:
            raise KeyError(digest)
        if hashlib.sha256(data).hexdigest() != digest:
            raise ValueError(f"The bytes of blob {digest} have changed.")
        return data

    async def size(self, tenant: str, digest: str) -> int | None:
        found = await self._objects.find(_name(tenant, digest))
        return found and found.size

    async def keep(self, tenant: str, digest: str) -> int | None:
        found = await self._objects.find(_name(tenant, digest))
        if found and datetime.now(UTC) - found.at > RENEWED:
            try:
                await self.write(tenant, digest, await self.get(tenant, digest))
            except KeyError:
                return None
        return found and found.size

    async def all(self, after: int = 0) -> AsyncGenerator[Sequence[StoredBlob]]:
        async for some in self._objects.list("blobs"):
            names = [(_BLOB.fullmatch(found.name), found) for found in some]
            yield [StoredBlob(match[1], match[2], found.size, found.at) for match, found in names if match]

    async def remove(self, blobs: Sequence[StoredBlob]) -> int:
        async with self._marked() as until:
            left: list[str] = []

            async def look(blob: StoredBlob) -> None:
                name = _name(blob.tenant, blob.digest)
                found = await self._objects.find(name)
                if found and found.at == blob.at:
                    left.append(name)

            await each(blobs, look, AT_ONCE)
            if time.monotonic() > until:
                raise Unavailable("The store of blobs is too slow for a sweep; nothing of this part was removed.")
            await self._objects.remove(left)
        return len(left)

    async def tidy(self) -> None:
        async for some in self._objects.list(PARTIAL):
            await self._objects.remove([found.name for found in some if datetime.now(UTC) - found.at > ABANDONED])

    @asynccontextmanager
    async def _marked(self) -> AsyncIterator[float]:
        """Keep the mark of a sweep within the context; the time (monotonic) until which blobs may be removed."""
        until = time.monotonic() + SWEEPING_S
        found = await self._objects.find(MARK)
        if found and datetime.now(UTC) - found.at > KILLED:
            await self._objects.remove([MARK])
        if not await self._objects.create(MARK, b""):
            raise Unavailable("Another sweep removes blobs, or one was killed some minutes ago: try again later.")
        try:
            yield until
        finally:
            await self._objects.remove([MARK])

    async def _no_sweep(self) -> None:
        """Wait until no sweep removes blobs."""
        mark, seen = await self._objects.find(MARK), time.monotonic()
        while mark and mark.at != self._dead:
            await asyncio.sleep(LOOK_S)
            last, mark = mark, await self._objects.find(MARK)
            if mark != last:
                seen = time.monotonic()
            elif time.monotonic() - seen > DEAD_S:
                self._dead = last.at


def _name(tenant: str, digest: str) -> str:
    return f"blobs/{tenant}/{digest[:2]}/{digest}"
