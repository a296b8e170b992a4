"""A document: a file on its way from bytes to segments that can be found.

Its status goes waiting → parsing → splitting → indexing → completed, from any of them to error, and by a retry back
to waiting.
"""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from typing import Any, Self
from uuid import UUID, uuid5

from domain import aggregate
from domain.aggregate import Aggregate, Rejection

STALLS = 3
"""How often a document that nobody works at is put back to work by itself."""


def segment_id(document: str, segments: str, position: int) -> str:
    """The id of a document's segment, by the digest of the blob that holds it and its position in there."""
    return str(uuid5(UUID(document), f"{segments}:{position}"))


class Document(Aggregate):
    TOPIC = "document"
    dataset: str
    name: str
    media_type: str
    digest: str
    status: str = field(default="waiting", init=False)
    attempt: int = field(default=0, init=False)
    segments: str | None = field(default=None, init=False)
    total: int = field(default=0, init=False)
    done: int = field(default=0, init=False)
    stalls: int = field(default=0, init=False)

    class Event(aggregate.Event):
        pass

    class Uploaded(Event, aggregate.Created):
        """Bytes arrived; they are the blob `digest` (SHA-256, hex)."""

        TOPIC = "document.uploaded.v1"
        dataset: str
        name: str
        media_type: str
        digest: str
        size: int
        metadata: dict[str, Any]

    class Started(Event):
        """A worker began, with the segments of an earlier attempt at stage indexing; `attempt` counts from 1."""

        TOPIC = "document.started.v1"
        attempt: int
        stage: str

        def apply(self, document: Document) -> None:
            document.status = self.stage
            document.attempt = self.attempt

    class Parsed(Event):
        """The text was extracted."""

        TOPIC = "document.parsed.v1"
        pages: int | None
        characters: int

        def apply(self, document: Document) -> None:
            document.status = "splitting"

    class Split(Event):
        """The text was cut into `count` segments, stored as the blob `segments` (SHA-256, hex)."""

        TOPIC = "document.split.v1"
        segments: str
        count: int
        tokens: int
        model: str

        def apply(self, document: Document) -> None:
            document.status = "indexing"
            document.segments = self.segments
            document.total = self.count
            document.done = 0

    class Indexed(Event):
        """The `count` segments from position `first` on were embedded and can be found."""

        TOPIC = "document.indexed.v1"
        dataset: str
        segments: str
        first: int
        count: int

        def apply(self, document: Document) -> None:
            document.done = self.first + self.count

    class Completed(Event):
        """Every segment can be found."""

        TOPIC = "document.completed.v1"

        def apply(self, document: Document) -> None:
            document.status = "completed"

    class Failed(Event):
        """The work ended at `stage` (parsing, splitting or indexing) for `reason`."""

        TOPIC = "document.failed.v1"
        stage: str
        code: str
        reason: str

        def apply(self, document: Document) -> None:
            document.status = "error"
            document.stalls += self.code == "stalled"

    class Retried(Event):
        """It is to be tried again; what was already indexed is kept."""

        TOPIC = "document.retried.v1"

        def apply(self, document: Document) -> None:
            document.status = "waiting"

    class Deleted(Event):
        """The document must never be found again."""

        TOPIC = "document.deleted.v1"
        dataset: str

        def apply(self, document: Document) -> None:
            document.deleted = True

    @classmethod
    def upload(
        cls,
        id: str,
        at: datetime,
        *,
        dataset: str,
        name: str,
        media_type: str,
        digest: str,
        size: int,
        metadata: dict[str, Any],
    ) -> Self:
        return cls._create(
            cls.Uploaded,
            id=id,
            timestamp=at,
            dataset=dataset,
            name=name,
            media_type=media_type,
            digest=digest,
            size=size,
            metadata=metadata,
        )

    @property
    def ended(self) -> bool:
        """Nothing more is to be done, unless somebody asks."""
        return self.deleted or self.status in ("completed", "error")

    @property
    def stage(self) -> str:
        """Where the work is, or begins."""
        return "parsing" if self.status == "waiting" else self.status

    def start(self, at: datetime, *, stage: str) -> None:
        if not self.ended:
            self.record(self.Started, at, attempt=self.attempt + 1, stage=stage)

    def parsed(self, at: datetime, *, pages: int | None, characters: int) -> None:
        if self.status == "parsing" and not self.deleted:
            self.record(self.Parsed, at, pages=pages, characters=characters)

    def split(self, at: datetime, *, segments: str, count: int, tokens: int, model: str) -> None:
        if self.status == "splitting" and not self.deleted:
            self.record(self.Split, at, segments=segments, count=count, tokens=tokens, model=model)

    def indexed(self, at: datetime, *, first: int, count: int) -> None:
        if not self.ended and first == self.done:
            self.record(self.Indexed, at, dataset=self.dataset, segments=self.segments, first=first, count=count)
            if self.done == self.total:
                self.record(self.Completed, at)

    def fail(self, at: datetime, *, stage: str, code: str, reason: str) -> None:
        if not self.ended:
            self.record(self.Failed, at, stage=stage, code=code, reason=reason)

    def retry(self, at: datetime) -> None:
        if self.status != "error":
            raise Rejection("not_failed", f"Document {self.id} is {self.status}, not in error.", "document")
        self.record(self.Retried, at)

    def stall(self, at: datetime, *, reason: str) -> None:
        """Nobody works at it: put it back to work, or let it fail when that did not help before."""
        if not self.ended:
            self.fail(at, stage=self.stage, code="stalled", reason=reason)
            if self.stalls <= STALLS:
                self.retry(at)

    def delete(self, at: datetime) -> None:
        if not self.deleted:
            self.record(self.Deleted, at, dataset=self.dataset)
