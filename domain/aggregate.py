"""What every noun shares: its identity, its events, its way of saying no."""

from __future__ import annotations

import os
import time
from dataclasses import field
from datetime import UTC, datetime
from typing import Any, ClassVar, Self, cast
from uuid import UUID

from eventsourcing.domain import (
    BaseAggregate,
    CanInitAggregate,
    CanMutateAggregate,
    CanSnapshotAggregate,
    MetaDomainEvent,
)
from eventsourcing.utils import register_topic


class Rejection(Exception):
    """A command that breaks a rule.

    `code` is stable and for programs, `message` is a sentence for people that names the rule and what to do,
    `field` is the field at fault as a path (`retrieval.top_k`), or None when no single field is.
    """

    def __init__(self, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field


def new_id(at: datetime | None = None) -> str:
    """A fresh UUIDv7 in canonical form: 48 bits of Unix milliseconds, then 74 random bits (RFC 9562)."""
    milliseconds = time.time_ns() // 1_000_000 if at is None else int(at.timestamp() * 1000)
    return uuid7(milliseconds, os.urandom(10))


def uuid7(milliseconds: int, rest: bytes) -> str:
    """The UUIDv7 of a Unix time in milliseconds and at least ten bytes; equal arguments give the equal id."""
    bits = int.from_bytes(rest[:10])
    value = (
        (milliseconds & (2**48 - 1)) << 80 | 0x7 << 76 | (bits >> 62 & 0xFFF) << 64 | 0b10 << 62 | bits & (2**62 - 1)
    )
    return str(UUID(int=value))


class Event(CanMutateAggregate[str], metaclass=MetaDomainEvent):
    """A fact about one aggregate.

    `TOPIC` is its stored name, `<noun>.<past tense>.v<n>`, and never changes; when the shape changes, n and
    `class_version` grow together, and `upcast_v<n-1>_v<n>(state)` brings the stored state up. Fields hold plain JSON.
    """

    TOPIC: ClassVar[str]
    PERSONAL: ClassVar[frozenset[str]] = frozenset()
    """The fields that hold words of a person, or of a model to one: they are empty when the person was erased."""
    class_version: ClassVar[int] = 1

    originator_id: str
    originator_version: int
    timestamp: datetime

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if topic := cls.__dict__.get("TOPIC"):
            for older in range(1, cls.class_version):
                register_topic(f"{topic.rpartition('.')[0]}.v{older}", cls)


class Created(Event, CanInitAggregate[str]):
    """The first event of an aggregate."""

    originator_topic: str


class Snapshot(CanSnapshotAggregate[str], metaclass=MetaDomainEvent):
    """The folded state of an aggregate at a version, kept to load a long one quickly; never the record."""

    TOPIC = "snapshot.taken.v1"

    originator_id: str
    originator_version: int
    timestamp: datetime
    topic: str
    state: dict[str, Any]

    @classmethod
    def of(cls, aggregate: Aggregate) -> Self:
        """The snapshot of an aggregate that has nothing pending."""
        state = {name: value for name, value in vars(aggregate).items() if name not in _IDENTITY}
        return cls(  # type: ignore[call-arg]  # the metaclass makes it a dataclass
            originator_id=aggregate.id,
            originator_version=aggregate.version,
            timestamp=aggregate.modified_on,
            topic=aggregate.TOPIC,
            state=state,
        )


_IDENTITY = {"_id", "_version", "_pending_events"}


class Aggregate(BaseAggregate[str]):
    """A noun: the smallest thing that changes as one. State holds only what a rule or a handler reads, as plain JSON.

    The fields that are not `init=False` are taken from the first event.
    """

    TOPIC: ClassVar[str]
    deleted: bool = field(default=False, init=False)

    def record(self, event: type[Event], at: datetime, **fields: Any) -> None:
        """Trigger `event`, which happened at `at`, and fold it into the state."""
        self.trigger_event(event, timestamp=at.astimezone(UTC), **fields)

    def pending(self) -> list[Event]:
        """What was recorded since it was loaded or last asked."""
        return cast("list[Event]", self.collect_events())
