"""The archive: streams as hash-chained segments, blobs by digest, in a folder or a bucket.

The format is described in docs/archive.md.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import zlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import obstore
import orjson
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, ObjectStore, S3Store

from adapters.jetstream.message import Message
from handlers.ports.log import Unavailable

FORMAT = "headrace-archive-1"

BLOBS = "BLOBS"
"""The catalogue of blobs: messages without a body, with the subject `<tenant>/<digest>`."""

_SEGMENT = re.compile(r"segment-(\d{20})")


class Broken(Exception):
    """A part of the archive is missing or was changed; `whole` is the last sequence before it."""

    def __init__(self, segment: str, reason: str, whole: int) -> None:
        super().__init__(f"{segment} {reason}.")
        self.segment = segment
        self.whole = whole


class AlreadyWritten(Exception):
    """Another archiver has written the next segment."""


@dataclass(frozen=True, slots=True)
class Segment:
    """The first line of a segment; `previous`: the hash of the chain before it, `contents`: the SHA-256 of the rest."""

    format: str
    stream: str
    first: int
    last: int
    count: int
    previous: str
    contents: str

    @property
    def chain(self) -> str:
        return sha256(bytes.fromhex(self.previous + self.contents))

    def line(self) -> bytes:
        return orjson.dumps(asdict(self)) + b"\n"


class Head(NamedTuple):
    """The end of a stream's archive: its last sequence and message, and the hash of the chain up to it."""

    last: int
    chain: str
    message: Message | None = None


class Archive:
    """An archive, in which nothing is overwritten, except for keys of erased people.

    Every method raises: Unavailable, when the store does not answer.
    """

    def __init__(self, store: ObjectStore, folder: Path | None = None) -> None:
        self._store = store
        self._folder = folder

    @classmethod
    def at(cls, url: str) -> Self:
        """The archive in a folder (a path or file:///…) or in a bucket (s3://bucket/prefix)."""
        try:
            if url.startswith("s3://"):
                return cls(S3Store.from_url(url, retry_config={"max_retries": 3, "retry_timeout": _PATIENCE}))
            folder = Path(unquote(urlsplit(url).path) if url.startswith("file://") else url).expanduser().absolute()
            return cls(LocalStore(folder, mkdir=True), folder)
        except (BaseError, OSError) as error:
            raise _away(error) from error

    # --- segments ------------------------------------------------------------------------------------------------

    async def firsts(self, stream: str) -> list[int]:
        """The first sequences of the segments of a stream, in order."""
        try:
            names = [found["path"] async for chunk in obstore.list(self._store, f"streams/{stream}") for found in chunk]
        except (BaseError, OSError) as error:
            raise _away(error) from error
        return sorted(int(match[1]) for name in names if (match := _SEGMENT.fullmatch(name.rpartition("/")[2])))

    async def head(self, stream: str) -> Head:
        """The end of the archive, from its last segment alone. Raises: Broken."""
        firsts = await self.firsts(stream)
        if not firsts:
            return Head(0, beginning(stream))
        segment, messages = await self.segment(stream, firsts[-1])
        return Head(segment.last, segment.chain, messages[-1])

    async def segment(self, stream: str, first: int) -> tuple[Segment, list[Message]]:
        """A segment and its messages; the caller checks that it follows the one before. Raises: Broken."""
        name = path(stream, first)
        data = await self._get(name)
        if data is None:
            raise Broken(name, "is missing", first - 1)
        try:
            return _opened(stream, first, data)
        except ValueError as error:
            raise Broken(name, str(error), first - 1) from error

    async def messages(self, stream: str, after: int = 0) -> AsyncGenerator[tuple[Segment, list[Message]]]:
        """The segments of the chain with their messages, from the one that holds the message after `after`.

        Raises: Broken, at a break of the chain.
        """
        firsts = await self.firsts(stream)
        start = max(0, sum(first <= after + 1 for first in firsts) - 1)
        last, chain = 0, beginning(stream)
        for index, first in enumerate(firsts[start:]):
            if first != last + 1 and (index or not start):
                raise Broken(path(stream, last + 1), f"is missing: the next one begins at {first}", last)
            segment, messages = await self.segment(stream, first)
            if segment.previous != chain and (index or not start):
                raise Broken(path(stream, first), "does not follow the segment before it", first - 1)
            last, chain = segment.last, segment.chain
            yield segment, messages

    async def append(self, stream: str, head: Head, messages: Sequence[Message]) -> Head:
        """Add a segment. Return the new end of the archive. Raises: AlreadyWritten."""
        contents = await asyncio.to_thread(lambda: zlib.compress(b"".join(message.line() for message in messages)))
        first, last, count = head.last + 1, messages[-1].sequence, len(messages)
        segment = Segment(FORMAT, stream, first, last, count, head.chain, sha256(contents))
        if not await self._put(path(stream, first), segment.line() + contents):
            raise AlreadyWritten(path(stream, first))
        return Head(last, segment.chain, messages[-1])

    # --- blobs ---------------------------------------------------------------------------------------------------

    async def blob(self, digest: str) -> bytes | None:
        """The bytes of a blob, None when it is missing. Raises: ValueError when they do not have the digest."""
        data = await self._get(blob_path(digest))
        if data is not None and sha256(data) != digest:
            raise ValueError(f"{blob_path(digest)} is not what was written.")
        return data

    async def has_blob(self, digest: str) -> bool:
        try:
            await obstore.head_async(self._store, blob_path(digest))
        except FileNotFoundError:
            return False
        except (BaseError, OSError) as error:
            raise _away(error) from error
        return True

    async def put_blob(self, digest: str, data: bytes) -> None:
        await self._put(blob_path(digest), data)

    # --- keys ----------------------------------------------------------------------------------------------------

    async def keys(self) -> set[str]:
        """The names of the keys of people, `<tenant>/<person>`, including erased ones."""
        try:
            found = [each["path"] async for some in obstore.list(self._store, "keys") for each in some]
        except (BaseError, OSError) as error:
            raise _away(error) from error
        return {name.removeprefix("keys/") for name in found}

    async def key(self, name: str) -> bytes | None:
        """The archived entry of the bucket of keys for a person, None for none."""
        return await self._get(f"keys/{name}")

    async def put_key(self, name: str, data: bytes) -> None:
        """Store a key, or the mark of its erasure: the only write that overwrites."""
        try:
            if self._folder:
                await asyncio.to_thread(_replace, self._folder, f"keys/{name}", data)
            else:
                await obstore.put_async(self._store, f"keys/{name}", data, use_multipart=False)
        except (BaseError, OSError) as error:
            raise _away(error) from error

    # --- the store -----------------------------------------------------------------------------------------------

    async def _get(self, name: str) -> bytes | None:
        try:
            found = await obstore.get_async(self._store, name)
            return bytes(await found.bytes_async())
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as error:
            raise _away(error) from error

    async def _put(self, name: str, data: bytes) -> bool:
        """Write atomically; False when the name is taken."""
        try:
            if self._folder:
                return await asyncio.to_thread(_write, self._folder, name, data)
            await obstore.put_async(self._store, name, data, mode="create", use_multipart=False)
        except AlreadyExistsError:
            return False
        except (BaseError, OSError) as error:
            raise _away(error) from error
        return True


_PATIENCE = timedelta(seconds=20)


def beginning(stream: str) -> str:
    """The chain before the first segment of a stream."""
    return sha256(stream.encode())


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def path(stream: str, first: int) -> str:
    # By the first sequence alone: of two archivers with different segments, one must find the name taken.
    return f"streams/{stream}/segment-{first:020}"


def blob_path(digest: str) -> str:
    return f"blobs/{digest[:2]}/{digest}"


def _opened(stream: str, first: int, data: bytes) -> tuple[Segment, list[Message]]:
    """Raises: ValueError, with the fault."""
    line, _, contents = data.partition(b"\n")
    try:
        segment = Segment(**orjson.loads(line))
        known = segment.line() == line + b"\n"
    except (ValueError, TypeError):
        known = False
    if not known:
        raise ValueError("has a first line that is not what was written")
    if segment.format != FORMAT:
        raise ValueError(f"is of format {segment.format}, not {FORMAT}")
    if (segment.stream, segment.first) != (stream, first):
        raise ValueError(f"holds {segment.stream} from {segment.first} on: it was swapped or renamed")
    if sha256(contents) != segment.contents:
        raise ValueError("has contents that are not what was written")
    messages = [Message.of(line) for line in zlib.decompress(contents).splitlines()]
    if len(messages) != segment.count or messages[-1].sequence != segment.last:
        raise ValueError("has a first line that is not what was written")
    return segment, messages


def _write(folder: Path, name: str, data: bytes) -> bool:
    """Give a file its name once it is complete and synced: no kill or power cut leaves a partial one."""
    target, partial = folder / name, folder / "partial" / uuid4().hex
    for parent in (target.parent, partial.parent):
        parent.mkdir(parents=True, exist_ok=True)
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(partial, target)
    except FileExistsError:
        return False
    finally:
        with suppress(OSError):
            partial.unlink()
    for parent in (target.parent, target.parent.parent):
        _sync(parent)
    return True


def _replace(folder: Path, name: str, data: bytes) -> None:
    """As `_write`, but overwrite."""
    target, partial = folder / name, folder / "partial" / uuid4().hex
    for parent in (target.parent, partial.parent):
        parent.mkdir(parents=True, exist_ok=True)
    with partial.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(target)
    for parent in (target.parent, target.parent.parent):
        _sync(parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _away(error: Exception) -> Unavailable:
    said = str(error).partition("Debug source")[0]
    return Unavailable(f"The archive cannot be reached: {' '.join(said.split()) or type(error).__name__}")
