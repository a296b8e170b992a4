"""Snapshots of long aggregates, in a key-value bucket: a cache that may be thrown away."""

from __future__ import annotations

import dataclasses
import zlib
from typing import Any, cast

import nats.errors
import orjson
from nats.aio.client import Client
from nats.js.errors import KeyNotFoundError
from nats.js.kv import KeyValue

from adapters.jetstream import codec
from adapters.jetstream.streams import SNAPSHOTS
from handlers.ports import Subject, Taken, Unavailable


class JetStreamSnapshots:
    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._bucket: KeyValue | None = None

    async def get(self, subject: Subject) -> Taken | None:
        try:
            entry = await (await self._open()).get(str(subject))
        except KeyNotFoundError:
            return None
        except nats.errors.Error as error:
            raise Unavailable(f"The snapshots cannot be read: {error!r}") from error
        fields = orjson.loads(zlib.decompress(entry.value or b""))
        if fields["shape"] != _shape(subject.noun):  # another version's: the commits say it all
            return None
        commits = {id: (sequence, version) for id, sequence, version in fields["commits"]}
        return Taken(codec.decode_snapshot(fields["snapshot"]), fields["sequence"], commits)

    async def put(self, subject: Subject, taken: Taken) -> None:
        fields = {
            "shape": _shape(subject.noun),
            "snapshot": codec.encode_snapshot(taken.snapshot),
            "sequence": taken.sequence,
            "commits": [[id, *place] for id, place in taken.commits.items()],
        }
        try:
            await (await self._open()).put(str(subject), zlib.compress(orjson.dumps(fields), 1))
        except nats.errors.Error as error:
            raise Unavailable(f"The snapshots cannot be written: {error!r}") from error

    async def _open(self) -> KeyValue:
        if self._bucket is None:
            self._bucket = await self._nc.jetstream().key_value(SNAPSHOTS)
        return self._bucket


def _shape(noun: str) -> list[str]:
    """What the state of a noun is made of, as this version has it."""
    return sorted(f"{field.name}: {field.type}" for field in dataclasses.fields(cast("Any", codec.NOUNS[noun])))
