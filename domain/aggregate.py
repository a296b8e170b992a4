"""Aggregates, their events and snapshots, and the rejection of a command."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import field
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Concatenate, ParamSpec, Self, cast, dataclass_transform
from uuid import UUID

from eventsourcing.domain import (
    BaseAggregate,
    CanInitAggregate,
    CanMutateAggregate,
    CanSnapshotAggregate,
    MetaDomainEvent,
)
from eventsourcing.utils import register_topic

P = ParamSpec("P")

ErrorCode = Annotated[str, "Error code, see [codes](codes.md)."]
ErrorMessage = Annotated[str, "Error message."]


class Rejection(Exception):
    """A command that breaks a rule.

    `code` is stable and for programs. `message` is a sentence for people: the rule, the limit, what to do; it does not
    repeat the field. `field` is the path of the field at fault (`retrieval.top_k`), None when it is no single one.
    `details` are figures of the message, for programs.
    """

    def __init__(
        self, code: str, message: str, field: str | None = None, details: Mapping[str, str | int] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field
        self.details = dict(details or {})


def sentence(message: str, field: str | None) -> str:
    """A rejection for people: the field at fault, and the message."""
    return f"{field}: {message}" if field else message


def new_id(at: datetime | None = None) -> str:
    """A new UUIDv7 in canonical form: 48 bits of Unix milliseconds, then 74 random bits (RFC 9562)."""
    milliseconds = time.time_ns() // 1_000_000 if at is None else int(at.timestamp() * 1000)
    return uuid7(milliseconds, os.urandom(10))


def uuid7(milliseconds: int, rest: bytes) -> str:
    """The UUIDv7 of a Unix time in milliseconds and at least ten bytes; equal arguments give equal ids."""
    bits = int.from_bytes(rest[:10])
    value = (
        (milliseconds & (2**48 - 1)) << 80 | 0x7 << 76 | (bits >> 62 & 0xFFF) << 64 | 0b10 << 62 | bits & (2**62 - 1)
    )
    return str(UUID(int=value))


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class _MetaEvent(MetaDomainEvent):
    """Makes each event a frozen dataclass, in a way that type checkers see."""


class Event(CanMutateAggregate[str], metaclass=_MetaEvent):
    """A fact about one aggregate.

    `TOPIC` is its stored name, `<noun>.<past tense>.v<n>`, and never changes. When the shape changes, n and
    `class_version` grow together, and `upcast_v<n-1>_v<n>(state)` converts the stored state. Fields hold plain JSON;
    `Annotated[type, "…"]` gives a field its description in the reference and the JSON Schema.
    """

    TOPIC: ClassVar[str]
    PERSONAL: ClassVar[frozenset[str]] = frozenset()
    """Fields with words of a person, or of a model to one: empty once the person is erased."""
    PACKED: ClassVar[frozenset[str]] = frozenset()
    """Fields with long lists, which are compressed where they are stored."""
    class_version: ClassVar[int] = 1

    originator_id: str
    originator_version: int
    timestamp: Annotated[datetime, "Time of the event."]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if topic := cls.__dict__.get("TOPIC"):
            for older in range(1, cls.class_version):
                register_topic(f"{topic.rpartition('.')[0]}.v{older}", cls)


class Created(Event, CanInitAggregate[str]):
    """The first event of an aggregate."""

    originator_topic: Annotated[str, "Noun of the aggregate."]


class Snapshot(CanSnapshotAggregate[str], metaclass=_MetaEvent):
    """The folded state of an aggregate at a version: a cache that makes long aggregates quick to load."""

    TOPIC = "snapshot.taken.v1"

    originator_id: str
    originator_version: int
    timestamp: datetime
    topic: str
    state: dict[str, Any]

    @classmethod
    def of(cls, aggregate: Aggregate) -> Self:
        """The snapshot of an aggregate without pending events."""
        state = {name: value for name, value in vars(aggregate).items() if name not in _IDENTITY}
        if (version := getattr(type(aggregate), "class_version", 1)) > 1:
            state["class_version"] = version
        return cls(
            originator_id=aggregate.id,
            originator_version=aggregate.version,
            timestamp=aggregate.modified_on,
            topic=aggregate.TOPIC,
            state=state,
        )


_IDENTITY = {"_id", "_version", "_pending_events"}


class Aggregate(BaseAggregate[str]):
    """A noun: the unit of consistency. State holds only what a rule or a handler reads, as plain JSON.

    The first event sets the fields that are not `init=False`.
    """

    TOPIC: ClassVar[str]
    CONTENDED: ClassVar[bool] = False
    """Many processes change it at once: after a conflict, only the commits since are read."""
    deleted: bool = field(default=False, init=False)

    @classmethod
    def begin(
        cls,
        event: Callable[Concatenate[str, int, datetime, str, P], Created],
        id: str,
        at: datetime,
        *_: P.args,
        **fields: P.kwargs,
    ) -> Self:
        """The aggregate that begins with `event`, at the time `at`, with these fields of the event."""
        return cls._create(cast("type[Created]", event), id=id, timestamp=at.astimezone(UTC), **fields)

    def record(
        self, event: Callable[Concatenate[str, int, datetime, P], Event], at: datetime, *_: P.args, **fields: P.kwargs
    ) -> None:
        """Trigger `event`, at the time `at`, with these fields of its own, and fold it into the state."""
        self.trigger_event(cast("type[Event]", event), timestamp=at.astimezone(UTC), **fields)

    def pending(self) -> list[Event]:
        """The events recorded since the aggregate was loaded, or since the last call."""
        return cast("list[Event]", self.collect_events())
