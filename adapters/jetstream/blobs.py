"""Content-addressed bytes in JetStream's object store, named `<tenant>/<SHA-256 in hex>`."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import nats.errors
import orjson
from nats.aio.client import Client

from adapters.jetstream.direct import DirectReader, sequence
from adapters.jetstream.streams import BLOBS
from handlers.ports.log import Unavailable

_STREAM = f"OBJ_{BLOBS}"
_CHUNK = 128 * 2**10


class JetStreamBlobs:
    """Reads and writes objects as any client of the object store.

    The library's own `put` purges old chunks, which needs a right that not all users have, and its `get` makes a
    consumer for each object, whose number per stream is limited.
    """

    def __init__(self, nc: Client, *, timeout_s: float = 60.0) -> None:
        self._js = nc.jetstream(timeout=timeout_s)
        self._reader = DirectReader(nc, timeout_s=timeout_s)

    async def put(self, tenant: str, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        if await self.size(tenant, digest) is None:
            await self.write(tenant, digest, data)
        return digest

    async def write(self, tenant: str, digest: str, data: bytes) -> None:
        """Store the bytes of this digest, replacing those that are there."""
        try:
            await self._store(f"{tenant}/{digest}", data)
        except nats.errors.Error as error:
            raise Unavailable(f"The object store does not answer: {error!r}") from error

    async def get(self, tenant: str, digest: str) -> bytes:
        info = await self._info(f"{tenant}/{digest}")
        if info is None:
            raise KeyError(digest)
        subject = f"$O.{BLOBS}.C.{info['nuid']}"
        pieces = await self._reader.messages(_STREAM, subject)
        if len(pieces) < info["chunks"]:
            pieces += await self._reader.load_from_leader(_STREAM, subject, after=sequence(pieces[-1]) if pieces else 0)
        data = b"".join(piece.data for piece in pieces)
        if hashlib.sha256(data).hexdigest() != digest:
            raise ValueError(f"The bytes of blob {digest} have changed.")
        return data

    async def size(self, tenant: str, digest: str) -> int | None:
        info = await self._info(f"{tenant}/{digest}")
        return None if info is None else int(info["size"])

    async def _info(self, name: str) -> dict[str, Any] | None:
        """The object store's metadata of a blob."""
        subject = _meta(name)
        found = await self._reader.messages(_STREAM, subject, limit=1) or await self._reader.load_from_leader(
            _STREAM, subject
        )
        info = orjson.loads(found[-1].data) if found else {"deleted": True}
        return None if info.get("deleted") else info

    async def _store(self, name: str, data: bytes) -> None:
        """Store an object so that any client of the object store can read it."""
        nuid = uuid4().hex
        starts = range(0, len(data), _CHUNK)
        for start in starts:
            await self._js.publish(f"$O.{BLOBS}.C.{nuid}", data[start : start + _CHUNK], stream=_STREAM)
        info = {
            "name": name,
            "bucket": BLOBS,
            "nuid": nuid,
            "size": len(data),
            "chunks": len(starts),
            "mtime": datetime.now(UTC).isoformat(),
            "digest": f"SHA-256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()}",
            "options": {"max_chunk_size": _CHUNK},
        }
        await self._js.publish(_meta(name), orjson.dumps(info), stream=_STREAM, headers={"Nats-Rollup": "sub"})


def _meta(name: str) -> str:
    return f"$O.{BLOBS}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"
