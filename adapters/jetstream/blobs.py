"""Content-addressed bytes in JetStream's object store, named `<tenant>/<SHA-256 in hex>`."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from typing import Any

import nats.errors
import orjson
from nats.aio.client import Client
from nats.js.object_store import ObjectStore

from adapters.jetstream.direct import DirectReader
from adapters.jetstream.streams import BLOBS
from handlers.ports import Unavailable

_STREAM = f"OBJ_{BLOBS}"


class JetStreamBlobs:
    def __init__(self, nc: Client, *, timeout_s: float = 60.0) -> None:
        self._nc = nc
        self._timeout = timeout_s
        self._reader = DirectReader(nc, timeout_s=timeout_s)
        self._store: ObjectStore | None = None

    async def put(self, tenant: str, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        if await self.size(tenant, digest) is None:
            try:
                async with asyncio.timeout(self._timeout):
                    await (await self._open()).put(f"{tenant}/{digest}", data)
            except (TimeoutError, nats.errors.Error) as error:
                raise _away(error) from error
        return digest

    async def get(self, tenant: str, digest: str) -> bytes:
        # The object store's own `get` makes a consumer for each object, and a stream can have only so many.
        info = await self._info(tenant, digest)
        if info is None:
            raise KeyError(digest)
        pieces = await self._reader.messages(_STREAM, f"$O.{BLOBS}.C.{info['nuid']}")
        data = b"".join(piece.data for piece in pieces)
        if hashlib.sha256(data).hexdigest() != digest:
            raise ValueError(f"The bytes of blob {digest} have changed.")
        return data

    async def size(self, tenant: str, digest: str) -> int | None:
        info = await self._info(tenant, digest)
        return None if info is None else int(info["size"])

    async def _info(self, tenant: str, digest: str) -> dict[str, Any] | None:
        """What the object store says of a blob."""
        name = base64.urlsafe_b64encode(f"{tenant}/{digest}".encode()).decode()
        found = await self._reader.messages(_STREAM, f"$O.{BLOBS}.M.{name}", limit=1)
        return orjson.loads(found[0].data) if found else None

    async def _open(self) -> ObjectStore:
        if self._store is None:
            self._store = await self._nc.jetstream().object_store(BLOBS)
        return self._store


def _away(error: Exception) -> Unavailable:
    return Unavailable(f"The object store does not answer: {error!r}")
