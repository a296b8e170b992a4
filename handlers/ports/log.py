"""Ports of the log: event store, outcomes, blobs, snapshots, dead letters, live frames."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol

from domain.aggregate import Event, Snapshot
from domain.log import Commit, Metadata, Outcome, Position, Quarantined, Recorded, Subject


class Unavailable(Exception):
    """A server that the work needs does not answer; the work waits and is tried again."""


class Conflict(Exception):
    """The aggregate has changed since it was loaded: load it and decide again."""


class TooLarge(Exception):
    """A record does not fit into one commit, and another try would not change that; sizes in bytes."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"A message of {size:,} bytes does not fit into the log, which takes at most {limit:,}.")
        self.size = size
        self.limit = limit


class Frozen(Unavailable):
    """An aggregate has a message in quarantine: it stays as it is until that is discarded, or this version upgraded."""

    def __init__(self, subject: Subject, found: Quarantined) -> None:
        stream, sequence = found.position
        action = "Upgrade this program." if found.newer else "An operator may discard the message."
        super().__init__(f"{subject} is frozen: {stream} {sequence} {found.reason} {action}")


class Ends(NamedTuple):
    """The sequences of the last messages of aggregates, and the one up to which EVENTS was searched for them."""

    sequences: dict[Subject, int]
    through: int


class EventStore(Protocol):
    @property
    def largest(self) -> int:
        """Bytes that a commit may have as it is stored."""
        ...

    async def load(self, subject: Subject, *, after: int = 0, limit: int | None = None) -> list[Commit]:
        """The first `limit` commits of an aggregate whose stream sequence is greater than `after`, in order.

        May lag behind the last append: then commits are missing at the end. `append` notices, `load_from_leader` knows.
        Raises: Frozen, Unavailable.
        """
        ...

    async def load_from_leader(self, subject: Subject, *, after: int) -> list[Commit]:
        """The commits that `load` did not see after the sequence `after`, every one that is acknowledged.

        Raises: Frozen, Unavailable.
        """
        ...

    async def ends(self, subjects: Sequence[Subject], *, after: int = 0) -> Ends:
        """The sequences of the last messages of these aggregates, at most 1000.

        Those of aggregates without a message after `after` may be left out.

        Every acknowledged commit counts, and what is in quarantine. Raises: Unavailable.
        """
        ...

    async def append(self, subject: Subject, events: Sequence[Event], metadata: Metadata, expected: int) -> Position:
        """Commit the events if the aggregate's last commit is at sequence `expected` (0: it has none).

        A commit with this id that is already the aggregate's last is a success: its position is returned.
        Raises: Conflict, TooLarge, Unavailable.
        """
        ...


class Log(Protocol):
    """The streams `EVENTS` (of commits) and `OUTCOMES` (of verdicts), for those who read all of one in order."""

    def read(self, stream: str, after: int, *, follow: bool = True) -> AsyncGenerator[Sequence[Recorded]]:
        """The messages whose sequence is greater than `after`, in order, as many at a time as have arrived.

        Ends at what was the stream's last sequence when it began; when it follows, only if the stream ends before
        `after`, and so has lost what was there. Raises: Unavailable.
        """
        ...


@dataclass(frozen=True, slots=True)
class SavedSnapshot:
    """A snapshot, the sequence of its aggregate's last commit, (sequence, version) of the latest commits by id, and the
    person whose words it holds."""

    snapshot: Snapshot
    sequence: int
    commits: dict[str, tuple[int, int]]
    person: str | None = None


class Snapshots(Protocol):
    async def get(self, subject: Subject) -> SavedSnapshot | None: ...

    async def put(self, subject: Subject, taken: SavedSnapshot) -> None:
        """Keep it in place of an earlier one; one that is too large is left out. Raises: Unavailable."""
        ...


RENEWED = timedelta(hours=1)
"""Age up to which a blob that is put again or kept is not renewed: a sweep only removes much older ones."""


class Blobs(Protocol):
    """Bytes by their SHA-256 in hex, per tenant; the same bytes are stored once.

    A blob is put before the commit that names it. A sweep removes blobs that no commit names some days after they were
    last put or kept. Every method raises: Unavailable.
    """

    async def put(self, tenant: str, data: bytes) -> str: ...

    async def get(self, tenant: str, digest: str) -> bytes:
        """Raises: KeyError when there is no such blob, ValueError when its bytes do not have the digest."""
        ...

    async def size(self, tenant: str, digest: str) -> int | None:
        """The size in bytes, or None when there is no such blob."""
        ...

    async def keep(self, tenant: str, digest: str) -> int | None:
        """As `size`, for a blob that a commit is about to name: its age begins again, as if it were put."""
        ...


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob in its place: the size in bytes, and when it was last put or kept.

    `sequence` grows with the time of writing, where the place numbers what is written; elsewhere it is 0.
    """

    tenant: str
    digest: str
    size: int
    at: datetime
    sequence: int = 0


class ListedBlobs(Blobs, Protocol):
    """Blobs for those who copy all of them."""

    def all(self, after: int = 0) -> AsyncGenerator[Sequence[StoredBlob]]:
        """Every blob, some hundreds at a time; of those with a sequence, only the ones after `after`."""
        ...

    async def write(self, tenant: str, digest: str, data: bytes) -> None:
        """Store the bytes of this digest, replacing those that are there."""
        ...


class BlobPlace(ListedBlobs, Protocol):
    """One place of blobs, which can be swept."""

    async def remove(self, blobs: Sequence[StoredBlob]) -> int:
        """Remove those that were neither put nor kept since they were listed. Return their number."""
        ...

    async def tidy(self) -> None:
        """Free what an interrupted write or removal has left."""
        ...


class Outcomes(Protocol):
    async def get(self, tenant: str, command: str) -> Outcome | None: ...

    async def put(self, outcome: Outcome) -> None:
        """Publish the outcome on `out.<tenant>.<command>`; a second one for the same command is dropped, but for one
        that follows `NOT_FINAL` and has another code."""
        ...


class DeadLetters(Protocol):
    """Messages that could not be handled, as they came, by consumer and letter, as long as their letters wait."""

    async def send_again(self, consumer: str, letter: str) -> None:
        """Put a command back into its queue, with the id and the actor that it had. Raises: Unavailable, TooLarge."""
        ...

    async def remove(self, consumer: str, letter: str, until: datetime) -> None:
        """Remove what was kept for the letter until then. Raises: Unavailable."""
        ...


@dataclass(frozen=True, slots=True)
class PendingWork:
    """Work, or a model call, that has not ended and has not changed since `since`.

    `work` is its name in the table of works, or `model_call`; `id` its item, in `aggregate`. `attempt` is the number of
    attempts so far (0 for a call), `position` the sequence in EVENTS of its last change, `consumers` are the works that
    may move it, `correlation` is the id of the command that began it, and `person` the one whose words it holds.
    """

    work: str
    tenant: str
    aggregate: str
    id: str
    status: str
    attempt: int
    since: datetime
    position: int
    consumers: list[str]
    correlation: str
    person: str | None = None


class Live(Protocol):
    """Frames for clients that watch an answer grow; lost when no client does, and when they are too large."""

    async def publish(self, tenant: str, conversation: str, message: str, frame: dict[str, Any]) -> None:
        """Publish on `live.<tenant>.<conversation>.<message>`, as JSON."""
        ...


class Stops(Protocol):
    """Tells a worker that an actor asked for the end of an answer it gives, or of a run."""

    def watch(self, tenant: str, conversation: str, message: str, *, person: str | None = None) -> asyncio.Event:
        """Set when the stop of the message is requested, or the person who asked is erased, from now on.

        Of a run, given as both: set also when one of its forms is answered, or its time ends.
        """
        ...

    def unwatch(self, tenant: str, conversation: str, message: str) -> None: ...
