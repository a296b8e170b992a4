"""The archive: streams as hash-chained segments, blobs by digest, in a folder or a bucket.

The format is described in docs/archive.md.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import zlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import obstore
import orjson
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, ObjectStore, S3Store

from adapters.jetstream.message import Message
from adapters.jetstream.streams import DEAD
from domain.log import EVENTS, OUTCOMES
from handlers.ports.log import Unavailable

FORMAT = "headrace-archive-1"

CATALOGUED = 10_000
"""Maximum number of blobs in a segment of the catalogue."""

BLOBS = "BLOBS"
"""The catalogue of blobs: messages without a body, with the subject `<tenant>/<digest>`."""

_SEGMENT = re.compile(r"streams/([A-Z]++)/segment-(\d{20})")

SEGMENT_BYTES = 16 * 2**20
"""Size at which a segment is closed, in bytes, unless the settings have another."""

PER_MESSAGE = 500
"""Minimum share of a message in the size of a segment, in bytes."""

LARGEST_MESSAGE = 8 * 2**20
"""Maximum size of a message, in bytes."""

GROWTH = 6
"""Maximum number of bytes that a byte of a message takes as JSON."""

LARGEST_ENTRY = 2**16
"""Maximum size of a person's key and of the signed heads, in bytes."""

LARGEST_BLOB = 2**30
"""Maximum size of a blob, in bytes."""

_NAME = {
    EVENTS: re.compile(r"evt\.\S++"),
    OUTCOMES: re.compile(r"out\.\S++"),
    DEAD: re.compile(r"dead\.\S++"),
    BLOBS: re.compile(r"[a-z0-9][a-z0-9_-]{0,62}/[0-9a-f]{64}"),
}
"""The subjects of the messages in a stream."""

_KEY = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}/[A-Za-z0-9_-]{1,64}")
"""Tenant and person."""


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
    """An archive, in which nothing is overwritten, except for keys of people and the signed heads.

    Every method raises: Unavailable, when the store does not answer.
    """

    def __init__(self, store: ObjectStore, folder: Path | None = None, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._store = store
        self._folder = folder
        self._segment_bytes = segment_bytes

    @classmethod
    def at(cls, url: str, segment_bytes: int = SEGMENT_BYTES) -> Self:
        """The archive in a folder (a path or file:///…) or in a bucket (s3://bucket/prefix).

        `segment_bytes` bounds the segments: of larger ones nothing is unpacked.
        """
        try:
            if url.startswith("s3://"):
                store = S3Store.from_url(url, retry_config={"max_retries": 3, "retry_timeout": _PATIENCE})
                return cls(store, segment_bytes=segment_bytes)
            folder = Path(unquote(urlsplit(url).path) if url.startswith("file://") else url).expanduser().absolute()
            return cls(LocalStore(folder, mkdir=True), folder, segment_bytes)
        except (BaseError, OSError) as error:
            raise _away(error) from error

    # --- segments ------------------------------------------------------------------------------------------------

    async def firsts(self, stream: str) -> list[int]:
        """The first sequences of the segments of a stream, in order."""
        try:
            names = [found["path"] async for chunk in obstore.list(self._store, f"streams/{stream}") for found in chunk]
        except (BaseError, OSError) as error:
            raise _away(error) from error
        found = [match for name in names if (match := _SEGMENT.fullmatch(name))]
        return sorted(int(match[2]) for match in found if match[1] == stream)

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
        try:
            data = await self._get(name, self._limit)
            if data is None:
                raise Broken(name, "is missing", first - 1)
            return _opened(stream, first, data, self._segment_bytes)
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
        try:
            data = await self._get(blob_path(digest), LARGEST_BLOB)
        except ValueError as error:
            raise ValueError(f"{blob_path(digest)} {error}.") from error
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

    async def keys(self) -> Mapping[str, datetime]:
        """The time of the last write of every key, by its name, `<tenant>/<person>`, including erased ones."""
        try:
            found = [each async for some in obstore.list(self._store, "keys") for each in some]
        except (BaseError, OSError) as error:
            raise _away(error) from error
        names = {each["path"].removeprefix("keys/"): each["last_modified"] for each in found}
        return {name: at for name, at in names.items() if _KEY.fullmatch(name)}

    async def key(self, name: str) -> bytes | None:
        """The archived entry of the bucket of keys for a person, None for none. Raises: ValueError."""
        return await self.small(f"keys/{name}")

    async def put_key(self, name: str, data: bytes) -> None:
        """Store a key, the same key encrypted again, or the mark of its erasure."""
        await self.replace(f"keys/{name}", data)

    # --- what is overwritten -------------------------------------------------------------------------------------

    async def small(self, name: str) -> bytes | None:
        """The bytes of a small object; None when it is missing. Raises: ValueError when it is too large."""
        try:
            return await self._get(name, LARGEST_ENTRY)
        except ValueError as error:
            raise ValueError(f"{name} {error}.") from error

    async def replace(self, name: str, data: bytes) -> None:
        """Store an object, and overwrite it if it is there."""
        try:
            if self._folder:
                await asyncio.to_thread(_replace, self._folder, name, data)
            else:
                await obstore.put_async(self._store, name, data, use_multipart=False)
        except (BaseError, OSError) as error:
            raise _away(error) from error

    # --- the store -----------------------------------------------------------------------------------------------

    @property
    def _limit(self) -> int:
        return largest(self._segment_bytes)

    async def _get(self, name: str, limit: int) -> bytes | None:
        """Raises: ValueError when it is larger than the limit, in bytes."""
        try:
            found = await obstore.get_async(self._store, name)
            if found.meta["size"] > limit:
                raise ValueError(f"has {found.meta['size']:,} bytes, and at most {limit:,} are read")
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


def largest(segment_bytes: int) -> int:
    """Maximum size of a segment's contents, unpacked, in bytes: a full segment, and the message that closes it."""
    return GROWTH * (segment_bytes + LARGEST_MESSAGE)


def _opened(stream: str, first: int, data: bytes, segment_bytes: int) -> tuple[Segment, list[Message]]:
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
    limit = CATALOGUED if stream == BLOBS else segment_bytes // PER_MESSAGE + 1
    if segment.count > limit:
        raise ValueError(f"holds {segment.count:,} messages, and at most {limit:,} fit into a segment; {_LARGER}")
    lines = _unpacked(contents, largest(segment_bytes)).split(b"\n", segment.count)
    if len(lines) != segment.count + 1 or lines.pop():
        raise ValueError("has a first line that is not what was written")
    messages = [Message.of(line) for line in lines]
    sequences = [message.sequence for message in messages]
    if not messages or sequences[-1] != segment.last or sequences[0] < first or sequences != sorted(set(sequences)):
        raise ValueError("has a first line that is not what was written")
    if stream != DEAD and segment.count != segment.last - first + 1:
        raise ValueError("lacks messages in between")
    for message in messages:
        if not _NAME[stream].fullmatch(message.subject) or any("\n" in part for part in _flat(message.headers)):
            raise ValueError(f"holds a message, {message.sequence}, that cannot be of {stream}")
    return segment, messages


_LARGER = "it is damaged, or was written with a larger segment size than the configured one"


def _unpacked(contents: bytes, limit: int) -> bytes:
    """Raises: ValueError when there is more than the limit, in bytes; that is not unpacked."""
    unpacking = zlib.decompressobj()
    try:
        found = unpacking.decompress(contents, limit)
    except zlib.error as error:
        raise ValueError("has contents that cannot be unpacked") from error
    if unpacking.unconsumed_tail:
        raise ValueError(f"unpacks to more than {limit:,} bytes; {_LARGER}")
    if not unpacking.eof or unpacking.unused_data:
        raise ValueError("has contents that cannot be unpacked")
    return found


def _flat(headers: Mapping[str, str]) -> list[str]:
    return [part for pair in headers.items() for part in pair]


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
