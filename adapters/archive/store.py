"""The archive: streams as hash-chained segments, blobs by digest, in a folder or a bucket.

The format is described in docs/archive.md.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import zlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import NamedTuple, Self

import orjson

from adapters.jetstream.message import Message
from adapters.jetstream.streams import DEAD
from adapters.objects.address import objects_at
from adapters.objects.objects import Objects
from domain.access.tenant import TENANT, TENANT_OR_HOUSE
from domain.log import EVENTS, OUTCOMES

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
    BLOBS: re.compile(rf"{TENANT.pattern}/[0-9a-f]{{64}}"),
}
"""The subjects of the messages in a stream."""

_KEY = re.compile(rf"({TENANT_OR_HOUSE.pattern})/[A-Za-z0-9_-]{{1,64}}")
"""Tenant, or the house, and person."""


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

    def __init__(self, objects: Objects, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._objects = objects
        self._segment_bytes = segment_bytes

    @classmethod
    def at(cls, url: str, segment_bytes: int = SEGMENT_BYTES) -> Self:
        """The archive in a folder (a path or file:///…) or in a bucket (s3://bucket/prefix).

        `segment_bytes` bounds the segments: of larger ones nothing is unpacked.
        """
        return cls(objects_at(url, "The archive", make=True), segment_bytes)

    # --- segments ------------------------------------------------------------------------------------------------

    async def firsts(self, stream: str) -> list[int]:
        """The first sequences of the segments of a stream, in order."""
        names = [each.name async for some in self._objects.list(f"streams/{stream}") for each in some]
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
            data = await self._objects.get(name, largest(self._segment_bytes))
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
        if not await self._objects.create(path(stream, first), segment.line() + contents):
            raise AlreadyWritten(path(stream, first))
        return Head(last, segment.chain, messages[-1])

    # --- blobs ---------------------------------------------------------------------------------------------------

    async def blob(self, digest: str) -> bytes | None:
        """The bytes of a blob, None when it is missing. Raises: ValueError when they do not have the digest."""
        try:
            data = await self._objects.get(blob_path(digest), LARGEST_BLOB)
        except ValueError as error:
            raise ValueError(f"{blob_path(digest)} {error}.") from error
        if data is not None and sha256(data) != digest:
            raise ValueError(f"{blob_path(digest)} is not what was written.")
        return data

    async def has_blob(self, digest: str) -> bool:
        return await self._objects.find(blob_path(digest)) is not None

    async def put_blob(self, digest: str, data: bytes) -> None:
        await self._objects.create(blob_path(digest), data)

    # --- keys ----------------------------------------------------------------------------------------------------

    async def keys(self) -> Mapping[str, datetime]:
        """The time of the last write of every key, by its name, `<tenant>/<person>`, including erased ones."""
        found = [each async for some in self._objects.list("keys") for each in some]
        names = {each.name.removeprefix("keys/"): each.at for each in found}
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
            return await self._objects.get(name, LARGEST_ENTRY)
        except ValueError as error:
            raise ValueError(f"{name} {error}.") from error

    async def replace(self, name: str, data: bytes) -> None:
        """Store an object, and overwrite it if it is there."""
        await self._objects.replace(name, data)


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
