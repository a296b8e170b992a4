"""Snapshots of long aggregates, in a key-value bucket: a cache that may be thrown away."""

from __future__ import annotations

import dataclasses
import zlib
from typing import Any, cast

import nats.errors
import orjson
import structlog
from nats.aio.client import Client

from adapters.jetstream import codec
from adapters.jetstream.codec import NotAuthentic
from adapters.jetstream.direct import DirectReader, sequence
from adapters.jetstream.keys import JetStreamKeys
from adapters.jetstream.streams import SNAPSHOTS
from domain.log import Position, Subject
from domain.nouns import NOUNS
from handlers.ports.log import SavedSnapshot, Unavailable

log = structlog.get_logger(__name__)

_STREAM = f"KV_{SNAPSHOTS}"

_SEALED = b"sealed "
"""Prefix of a snapshot with words of a person; the person's id follows."""


class JetStreamSnapshots:
    def __init__(self, nc: Client, keys: JetStreamKeys | None = None, *, timeout_s: float = 5.0) -> None:
        self._js = nc.jetstream(timeout=timeout_s)
        self._reader = DirectReader(nc, timeout_s=timeout_s)
        self._keys = keys

    async def get(self, subject: Subject) -> SavedSnapshot | None:
        kept = f"$KV.{SNAPSHOTS}.{subject}"
        message = (await self._reader.latest(_STREAM, [kept])).get(kept)
        if message is None:
            return None
        data, person = message.data, None
        if self._keys:
            await self._keys.macs.load()
            try:
                self._keys.check(Position(_STREAM, sequence(message)), kept, message.headers or {}, data)
            except NotAuthentic:  # load the commits instead
                return None
        if data.startswith(_SEALED):
            opened, person = await self._opened(subject, data)
            if opened is None:  # the person was erased: load the commits instead
                return None
            data = opened
        fields = orjson.loads(zlib.decompress(data))
        if fields["shape"] != _shape(subject.noun):  # of another version: load the commits instead
            return None
        commits = {id: (sequence, version) for id, sequence, version in fields["commits"]}
        return SavedSnapshot(codec.decode_snapshot(fields["snapshot"]), fields["sequence"], commits, person)

    async def put(self, subject: Subject, taken: SavedSnapshot) -> None:
        fields = {
            "shape": _shape(subject.noun),
            "snapshot": codec.encode_snapshot(taken.snapshot),
            "sequence": taken.sequence,
            "commits": [[id, *place] for id, place in taken.commits.items()],
        }
        data = zlib.compress(orjson.dumps(fields), 1)
        if taken.person:
            if self._keys is None:
                raise Unavailable("The snapshot holds words of a person, and no keys are configured.")
            sealed = (await self._keys.of(subject.tenant, taken.person)).seal(_about(subject, taken.person), data)
            data = _SEALED + f"{taken.person} {sealed}".encode()
        kept, headers = f"$KV.{SNAPSHOTS}.{subject}", dict[str, str]()
        if self._keys:
            headers = self._keys.macs.sign(_STREAM, kept, headers, data)
        try:
            await self._js.publish(kept, data, stream=_STREAM, headers=headers)
        except nats.errors.MaxPayloadError:
            log.warning("snapshot left out", subject=str(subject), bytes=len(data))
        except nats.errors.Error as error:
            raise Unavailable(f"The snapshots cannot be written: {error!r}") from error

    async def _opened(self, subject: Subject, data: bytes) -> tuple[bytes | None, str]:
        person, _, sealed = data[len(_SEALED) :].decode().partition(" ")
        if self._keys is None:
            raise Unavailable("The snapshot holds words of a person, and no keys are configured.")
        return (await self._keys.of(subject.tenant, person)).open(_about(subject, person), sealed), person


def _about(subject: Subject, person: str) -> str:
    return f"{subject}/{person}"


def _shape(noun: str) -> list[str]:
    """The structure of a noun's state in this version."""
    return sorted(f"{field.name}: {field.type}" for field in dataclasses.fields(cast("Any", NOUNS[noun])))
