"""Content-addressed bytes in JetStream's object store, named `<tenant>/<SHA-256 in hex>`."""

from __future__ import annotations

import asyncio
import hashlib

import nats.errors
from nats.aio.client import Client
from nats.js.errors import DigestMismatchError, NotFoundError
from nats.js.object_store import ObjectStore

from adapters.jetstream.streams import BLOBS
from handlers.ports import Unavailable


class JetStreamBlobs:
    def __init__(self, nc: Client, *, timeout_s: float = 60.0) -> None:
        self._nc = nc
        self._timeout = timeout_s
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
        try:
            async with asyncio.timeout(self._timeout):
                data: bytes | None = (await (await self._open()).get(f"{tenant}/{digest}")).data or b""
        except NotFoundError:
            raise KeyError(digest) from None
        except DigestMismatchError:
            data = None
        except (TimeoutError, nats.errors.Error) as error:
            raise _away(error) from error
        if data is None or hashlib.sha256(data).hexdigest() != digest:
            raise ValueError(f"The bytes of blob {digest} have changed.")
        return data

    async def size(self, tenant: str, digest: str) -> int | None:
        try:
            async with asyncio.timeout(self._timeout):
                return (await (await self._open()).get_info(f"{tenant}/{digest}")).size
        except NotFoundError:
            return None
        except (TimeoutError, nats.errors.Error) as error:
            raise _away(error) from error

    async def _open(self) -> ObjectStore:
        if self._store is None:
            self._store = await self._nc.jetstream().object_store(BLOBS)
        return self._store


def _away(error: Exception) -> Unavailable:
    return Unavailable(f"The object store does not answer: {error!r}")
