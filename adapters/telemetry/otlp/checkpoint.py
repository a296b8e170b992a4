"""Progress of the export to a target, stored with the log, so that rebuilt tables are not exported again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import nats.errors
import orjson
from nats.aio.client import Client
from nats.js.errors import BucketNotFoundError, KeyNotFoundError, KeyWrongLastSequenceError

from adapters.jetstream.streams import EXPORTS
from adapters.telemetry.otlp.ended import BEGINNING, Place
from handlers.ports.log import Unavailable


class Moved(Exception):
    """Another exporter has moved the checkpoint."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The last row that the target has, the numbers of accepted and refused spans, and the time."""

    target: str
    place: Place = BEGINNING
    sent: int = 0
    set_aside: int = 0
    at: datetime | None = None
    revision: int = 0

    def moved(self, place: Place, sent: int, set_aside: int) -> Checkpoint:
        return replace(
            self,
            place=place,
            sent=self.sent + sent,
            set_aside=self.set_aside + set_aside,
            at=datetime.now(UTC),
        )


class Checkpoints:
    """Raises: Unavailable."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc

    async def get(self, target: str) -> Checkpoint:
        """The checkpoint of a target; the beginning when nothing was sent to it."""
        try:
            bucket = await self._nc.jetstream().key_value(EXPORTS)
            entry = await bucket.get(_key(target))
        except (KeyNotFoundError, BucketNotFoundError):
            return Checkpoint(target)
        except nats.errors.Error as error:
            raise Unavailable(f"The checkpoint of the export cannot be read: {error!r}") from error
        kept = orjson.loads(entry.value or b"{}")
        return Checkpoint(
            target,
            Place(*kept["place"]),
            kept["sent"],
            kept["set_aside"],
            datetime.fromisoformat(kept["at"]),
            entry.revision or 0,
        )

    async def put(self, checkpoint: Checkpoint) -> Checkpoint:
        """Store it, unless it was moved since it was read. Raises: Moved, too."""
        fields = {
            "target": checkpoint.target,
            "place": [*checkpoint.place],
            "sent": checkpoint.sent,
            "set_aside": checkpoint.set_aside,
            "at": checkpoint.at,
        }
        try:
            bucket = await self._nc.jetstream().key_value(EXPORTS)
            revision = await bucket.update(_key(checkpoint.target), orjson.dumps(fields), last=checkpoint.revision)
        except KeyWrongLastSequenceError as error:
            raise Moved(f"The export to {checkpoint.target} is further than this process knows.") from error
        except nats.errors.Error as error:
            raise Unavailable(f"The checkpoint of the export cannot be written: {error!r}") from error
        return replace(checkpoint, revision=revision)


def _key(target: str) -> str:
    return hashlib.sha256(target.encode()).hexdigest()[:32]
