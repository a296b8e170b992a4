"""Blobs that move from one place to another: written to the new one, read from the new one, then the old."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress

from handlers.ports.log import ListedBlobs, StoredBlob


class MovedBlobs:
    def __init__(self, new: ListedBlobs, old: ListedBlobs) -> None:
        self._new = new
        self._old = old

    async def put(self, tenant: str, data: bytes) -> str:
        return await self._new.put(tenant, data)

    async def write(self, tenant: str, digest: str, data: bytes) -> None:
        await self._new.write(tenant, digest, data)

    async def get(self, tenant: str, digest: str) -> bytes:
        for place in (self._new, self._old):
            with suppress(KeyError):
                return await place.get(tenant, digest)
        return await self._new.get(tenant, digest)  # it may have moved since the first look

    async def size(self, tenant: str, digest: str) -> int | None:
        for place in (self._new, self._old, self._new):
            if (size := await place.size(tenant, digest)) is not None:
                return size
        return None

    async def keep(self, tenant: str, digest: str) -> int | None:
        if (size := await self._new.keep(tenant, digest)) is not None:
            return size
        try:
            data = await self.get(tenant, digest)
        except KeyError:
            return None
        await self._new.put(tenant, data)
        return len(data)

    async def all(self, after: int = 0) -> AsyncGenerator[Sequence[StoredBlob]]:
        """As the port; a blob that has moved may come twice."""
        for place in (self._new, self._old):
            async with aclosing(place.all(after)) as chunks:
                async for some in chunks:
                    yield some
