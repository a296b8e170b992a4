"""The log: commits and outcomes, and what travels with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple
from uuid import NAMESPACE_OID, UUID, uuid5

from domain.aggregate import Event

EVENTS = "EVENTS"
"""The stream of commits, on `evt.<tenant>.<noun>.<id>`."""

OUTCOMES = "OUTCOMES"
"""The stream of outcomes, on `out.<tenant>.<command>`."""


class Subject(NamedTuple):
    """Where an aggregate's commits are published: `evt.<tenant>.<noun>.<id>`."""

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
    """What travels with every message: its id, and where it comes from.

    `correlation` is the id of the command that began it all, `causation` the id of the message that caused this one.
    `person` is the id of the end user whose words it holds; the log keeps them under that person's key.
    """

    id: str
    tenant: str
    correlation: str
    causation: str | None = None
    actor: str = "anonymous"
    traceparent: str | None = None
    person: str | None = None

    def caused(self, id: str) -> Metadata:
        """The metadata of a message with this id, caused by the one described here."""
        return Metadata(id, self.tenant, self.correlation, self.id, self.actor, self.traceparent, self.person)


NOT_FINAL = "internal_error"
"""The code of an outcome that another one may follow: the command could not be handled, and may be tried again."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a command: accepted (`position`, `version`, `ids`) or rejected (`code`, `message`, `field`)."""

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

    @property
    def originator_id(self) -> str:
        """The command's id, under the name that an event has for what it is about."""
        return self.command

    @property
    def timestamp(self) -> datetime:
        """The time, under the name that an event has for it."""
        return self.at


@dataclass(frozen=True, slots=True)
class Commit:
    """The events that one cause had on one aggregate, in order: one message of `EVENTS`."""

    subject: Subject
    events: Sequence[Event]
    metadata: Metadata
    position: Position
    at: datetime


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one command: one message of `OUTCOMES`, about `Subject(tenant, "command", command id)`."""

    subject: Subject
    events: tuple[Outcome]
    metadata: Metadata
    position: Position
    at: datetime


Recorded = Commit | Verdict
"""A message of the log: where it stands, when, why, and what it says in `events`."""


def commit_id(cause: str, aggregate: str) -> str:
    """The id of what `cause` does to an aggregate: doing it twice is doing it once."""
    return str(uuid5(_uuid(cause), aggregate))


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        return uuid5(NAMESPACE_OID, text)
