"""Snapshots of long aggregates, in a key-value bucket: a cache that may be thrown away."""

from __future__ import annotations

import dataclasses
import zlib
from typing import Any, cast

import nats.errors
import orjson
import structlog
from nats.aio.client import Client
from nats.js.errors import KeyNotFoundError
from nats.js.kv import KeyValue

from adapters.jetstream import codec
from adapters.jetstream.keys import JetStreamKeys
from adapters.jetstream.streams import SNAPSHOTS
from domain.log import Subject
from domain.nouns import NOUNS
from handlers.ports.log import SavedSnapshot, Unavailable

log = structlog.get_logger(__name__)

_SEALED = b"sealed "
"""Prefix of a snapshot with words of a person; the person's id follows."""


class JetStreamSnapshots:
    def __init__(self, nc: Client, keys: JetStreamKeys | None = None) -> None:
        self._nc = nc
        self._keys = keys
        self._bucket: KeyValue | None = None

    async def get(self, subject: Subject) -> SavedSnapshot | None:
        try:
            entry = await (await self._open()).get(str(subject))
        except KeyNotFoundError:
            return None
        except nats.errors.Error as error:
            raise Unavailable(f"The snapshots cannot be read: {error!r}") from error
        data, person = entry.value or b"", None
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
        try:
            await (await self._open()).put(str(subject), data)
        except nats.errors.MaxPayloadError:
            log.warning("snapshot left out", subject=str(subject), bytes=len(data))
        except nats.errors.Error as error:
            raise Unavailable(f"The snapshots cannot be written: {error!r}") from error

    async def _opened(self, subject: Subject, data: bytes) -> tuple[bytes | None, str]:
        person, _, sealed = data[len(_SEALED) :].decode().partition(" ")
        if self._keys is None:
            raise Unavailable("The snapshot holds words of a person, and no keys are configured.")
        return (await self._keys.of(subject.tenant, person)).open(_about(subject, person), sealed), person

    async def _open(self) -> KeyValue:
        if self._bucket is None:
            self._bucket = await self._nc.jetstream().key_value(SNAPSHOTS)
        return self._bucket


def _about(subject: Subject, person: str) -> str:
    return f"{subject}/{person}"


def _shape(noun: str) -> list[str]:
    """The structure of a noun's state in this version."""
    return sorted(f"{field.name}: {field.type}" for field in dataclasses.fields(cast("Any", NOUNS[noun])))
