"""The log: commits and outcomes, and the metadata that travels with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha1
from typing import Literal, NamedTuple
from uuid import NAMESPACE_OID, UUID, uuid5

from domain.aggregate import Event, sentence

EVENTS = "EVENTS"
"""The stream of commits, on `evt.<tenant>.<noun>.<id>`."""

OUTCOMES = "OUTCOMES"
"""The stream of outcomes, on `out.<tenant>.<command>`."""


class Subject(NamedTuple):
    """The subject of an aggregate's commits: `evt.<tenant>.<noun>.<id>`."""

    tenant: str
    noun: str
    id: str

    def __str__(self) -> str:
        return f"evt.{self.tenant}.{self.noun}.{self.id}"


class Position(NamedTuple):
    """A place in a log."""

    stream: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Metadata:
    """The id and the origin of a message.

    `correlation` is the id of the first command of the chain, `causation` that of the message that caused this one.
    `actor` sent that command, through `door` (None for older ones). `person` is the id of the data subject: the end
    user whose words the message holds, sealed with that person's key. `origin` is the report of the door that names the
    address of the sender: of a command and its outcome alone.
    """

    id: str
    tenant: str
    correlation: str
    causation: str | None = None
    actor: str = "anonymous"
    traceparent: str | None = None
    person: str | None = None
    door: str | None = None
    origin: str | None = None

    def caused(self, id: str) -> Metadata:
        """The metadata of a message with this id that this one causes."""
        return dataclasses.replace(self, id=id, causation=self.id, origin=None)

    def on(self, subject: Subject) -> Metadata:
        """The metadata of the one commit that this message causes on an aggregate."""
        return self.caused(commit_id(self.id, str(subject)))


NOT_FINAL = "internal_error"
"""The code of an outcome that is not final: the command could not be handled, and may be retried."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a command: accepted (`position`, `version`, `ids`) or rejected (`code`, `message`, `field`)."""

    command: str
    name: str
    status: Literal["accepted", "rejected"]
    metadata: Metadata
    at: datetime
    position: Position | None = None
    version: int | None = None
    ids: dict[str, str] = dataclasses.field(default_factory=dict)
    code: str | None = None
    message: str | None = None
    field: str | None = None
    excerpt: str | None = None
    details: dict[str, str | int] = dataclasses.field(default_factory=dict)
    """Figures of a rejection, by name; empty for most codes."""

    @property
    def sentence(self) -> str:
        """The rejection for people, with the field at fault; empty when accepted."""
        return sentence(self.message or "", self.field)

    @property
    def originator_id(self) -> str:
        """The command's id, under the name that events use."""
        return self.command

    @property
    def timestamp(self) -> datetime:
        """The time, under the name that events use."""
        return self.at


@dataclass(frozen=True, slots=True)
class Commit:
    """The events that one cause had on one aggregate, in order: one message of `EVENTS`."""

    subject: Subject
    events: Sequence[Event]
    metadata: Metadata
    position: Position
    at: datetime
    size: int = dataclasses.field(default=0, compare=False)
    """Bytes that it takes in the log; 0 when unknown."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one command: one message of `OUTCOMES`, about `Subject(tenant, "command", command id)`."""

    subject: Subject
    events: tuple[Outcome]
    metadata: Metadata
    position: Position
    at: datetime
    size: int = dataclasses.field(default=0, compare=False)
    """Bytes that it takes in the log; 0 when unknown."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A message of the log that cannot be taken for what its subject says, so that it has no events.

    `newer`: a newer version wrote it, and this one cannot read it yet. `held_by` is the sequence of the earlier message
    that froze the aggregate, where this message itself could be read.
    """

    subject: Subject
    metadata: Metadata
    position: Position
    at: datetime
    reason: str
    newer: bool = False
    held_by: int | None = None
    events: tuple[()] = ()
    size: int = dataclasses.field(default=0, compare=False)
    """Bytes that it takes in the log; 0 when unknown."""


Recorded = Commit | Verdict | Quarantined
"""A message of the log."""


def commit_id(cause: str, aggregate: str) -> str:
    """The id of the commit that `cause` has on an aggregate; a repeated commit is a duplicate."""
    return derived_id(aggregate, _uuid(cause))


def derived_id(text: str, within: UUID = NAMESPACE_OID) -> str:
    """The UUIDv5 of a text in a namespace; `uuid5` takes twice as long."""
    digest = sha1(within.bytes + text.encode(), usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digest[16], 16) & 3]
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:32]}"


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        return uuid5(NAMESPACE_OID, text)
