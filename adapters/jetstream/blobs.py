"""Content-addressed bytes in JetStream's object store, named `<tenant>/<SHA-256 in hex>`."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import uuid4

import nats.errors
import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import APIError

from adapters.jetstream.direct import DirectReader, sequence
from adapters.jetstream.raw import RawStream
from adapters.jetstream.streams import BLOBS, NOT_LAST
from domain.access.tenant import TENANT
from handlers.ports.log import RENEWED, StoredBlob, Unavailable

_STREAM = f"OBJ_{BLOBS}"
_CHUNK = 128 * 2**10

_NAME = re.compile(rf"({TENANT.pattern})/([0-9a-f]{{64}})")


class JetStreamBlobs:
    """Reads and writes objects as any client of the object store.

    The library's own `put` purges old chunks, which needs a right that not all users have, and its `get` makes a
    consumer for each object, whose number per stream is limited.
    """

    def __init__(self, nc: Client, *, timeout_s: float = 60.0) -> None:
        self._nc = nc
        self._js = nc.jetstream(timeout=timeout_s)
        self._reader = DirectReader(nc, timeout_s=timeout_s)

    async def put(self, tenant: str, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        if await self.keep(tenant, digest) is None:
            await self.write(tenant, digest, data)
        return digest

    async def write(self, tenant: str, digest: str, data: bytes) -> None:
        with _answered():
            await self._store(f"{tenant}/{digest}", data)

    async def get(self, tenant: str, digest: str) -> bytes:
        subject = _meta(f"{tenant}/{digest}")
        # Another writer may have replaced the bytes, and the server that answered has not heard of it: ask the leader.
        for last in (self._last, partial(self._reader.last, _STREAM)):
            data = await self._bytes(await last(subject))
            if data is None:
                raise KeyError(digest)
            if hashlib.sha256(data).hexdigest() == digest:
                return data
        raise ValueError(f"The bytes of blob {digest} have changed.")

    async def size(self, tenant: str, digest: str) -> int | None:
        info = _info(await self._last(_meta(f"{tenant}/{digest}")))
        return None if info is None else int(info["size"])

    async def keep(self, tenant: str, digest: str) -> int | None:
        subject = _meta(f"{tenant}/{digest}")
        message = await self._last(subject)
        while info := _info(message):
            assert message
            written = datetime.fromisoformat((message.headers or {})["Nats-Time-Stamp"])
            if datetime.now(UTC) - written <= RENEWED:
                break
            renewed = orjson.dumps(info | {"mtime": datetime.now(UTC).isoformat()})
            if await self._replace(subject, renewed, sequence(message)):
                break
            message = await self._reader.last(_STREAM, subject)
        return None if info is None else int(info["size"])

    async def all(self, after: int = 0) -> AsyncGenerator[Sequence[StoredBlob]]:
        async with aclosing(self._listed(after)) as chunks:
            async for some in chunks:
                yield [
                    StoredBlob(match[1], match[2], int(info["size"]), at, place)
                    for info, place, at in some
                    if not info.get("deleted") and (match := _NAME.fullmatch(str(info["name"])))
                ]

    async def remove(self, blobs: Sequence[StoredBlob]) -> int:
        """Mark each as deleted if its entry is the listed one, and then free its bytes and the mark."""
        removed = 0
        for blob in blobs:
            subject = _meta(f"{blob.tenant}/{blob.digest}")
            message = await self._reader.last(_STREAM, subject)
            info = _info(message)
            if not message or not info or sequence(message) != blob.sequence:
                continue
            gone = orjson.dumps(info | {"deleted": True, "mtime": datetime.now(UTC).isoformat()})
            if mark := await self._replace(subject, gone, blob.sequence):
                await self._free(subject, info["nuid"], mark)
                removed += 1
        return removed

    async def tidy(self) -> None:
        async with aclosing(self._listed(0)) as chunks:
            async for some in chunks:
                for info, place, _ in some:
                    if info.get("deleted"):
                        await self._free(_meta(str(info["name"])), info["nuid"], place)

    async def _free(self, subject: str, nuid: str, mark: int) -> None:
        """Free the bytes of a blob, and the mark of its deletion."""
        with _answered():
            await self._js.purge_stream(_STREAM, subject=f"$O.{BLOBS}.C.{nuid}")
            await self._js.purge_stream(_STREAM, subject=subject, seq=mark + 1)

    async def _listed(self, after: int) -> AsyncGenerator[list[tuple[dict[str, Any], int, datetime]]]:
        """The entries of the object store with their sequences and times.

        An entry that is renewed meanwhile comes again at the end: none is left out.
        """
        entries = RawStream(self._nc, _STREAM, f"$O.{BLOBS}.M.>")
        while after < (last := await entries.last()):
            async with aclosing(entries.read(after, last)) as chunks:
                async for messages in chunks:
                    yield [(orjson.loads(it.body), it.sequence, datetime.fromisoformat(it.time)) for it in messages]
            after = last

    async def _last(self, subject: str) -> Msg | None:
        """The last message of a subject; a server that lags behind does not hide it."""
        found = await self._reader.messages(_STREAM, subject, limit=1) or await self._reader.load_from_leader(
            _STREAM, subject
        )
        return found[-1] if found else None

    async def _bytes(self, message: Msg | None) -> bytes | None:
        """The bytes of the object with this entry; None without one."""
        info = _info(message)
        if info is None:
            return None
        subject = f"$O.{BLOBS}.C.{info['nuid']}"
        pieces = await self._reader.messages(_STREAM, subject)
        if len(pieces) < info["chunks"]:
            pieces += await self._reader.load_from_leader(_STREAM, subject, after=sequence(pieces[-1]) if pieces else 0)
        return b"".join(piece.data for piece in pieces)

    async def _replace(self, subject: str, info: bytes, expected: int) -> int:
        """Replace the entry that has this sequence. Return the sequence of the new one, 0 when there is another."""
        headers = {"Nats-Rollup": "sub", "Nats-Expected-Last-Subject-Sequence": str(expected)}
        with _answered():
            try:
                return (await self._js.publish(subject, info, stream=_STREAM, headers=headers)).seq
            except APIError as error:
                if error.err_code not in NOT_LAST:
                    raise
                return 0

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


def _info(message: Msg | None) -> dict[str, Any] | None:
    """The metadata of an object; None when it is missing or deleted."""
    info: dict[str, Any] = orjson.loads(message.data) if message else {"deleted": True}
    return None if info.get("deleted") else info


@contextmanager
def _answered() -> Iterator[None]:
    """Raises: Unavailable."""
    try:
        yield
    except nats.errors.Error as error:
        raise Unavailable(f"The object store does not answer: {error!r}") from error


def _meta(name: str) -> str:
    return f"$O.{BLOBS}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"
