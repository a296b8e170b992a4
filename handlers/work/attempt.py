"""An attempt at a piece of work: records its steps, until the work is over or a newer attempt has begun."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Generic, Self, TypeVar, cast

from domain.aggregate import Aggregate, new_id
from domain.log import Commit, Metadata, commit_id
from handlers.cause import Cause
from handlers.repository import Repository
from handlers.work.work import Pending, Work

A = TypeVar("A", bound=Aggregate)

Verb = Callable[[A, datetime], None]


class Ended(Exception):
    """The work is over, or a newer attempt has begun: this one stops."""


@dataclass(slots=True)
class Attempt(Generic[A]):
    """One attempt at `item`, which `commit` led to.

    `aggregate` is as of the last step, which is at `sequence` of EVENTS; it is there after `begin` or `go_on`.
    """

    repository: Repository
    work: Work
    commit: Commit
    item: str
    aggregate: A = field(init=False)
    sequence: int = field(init=False, default=0)
    number: int = field(init=False, default=0)

    @property
    def pending(self) -> Pending:
        assert self.work.pending is not None
        return self.work.pending

    @property
    def metadata(self) -> Metadata:
        return self.commit.metadata

    @property
    def tenant(self) -> str:
        return self.metadata.tenant

    @property
    def cause(self) -> Cause:
        """The cause of the model calls of this attempt."""
        return Cause(self.metadata, str(self.work.calls), self.item, self.number)

    def go_on(self, aggregate: A, sequence: int = 0) -> Self:
        """Work on the aggregate as it was loaded, in the attempt that is in progress."""
        self.aggregate, self.sequence = aggregate, max(sequence, self.commit.position.sequence)
        self.number = self.pending.attempt(aggregate, self.item)
        return self

    async def begin(self, verb: Verb[A]) -> None:
        """Record that another attempt begins. Raises: Ended, Unavailable."""
        await self._record(f"begin:{new_id()}", verb, lambda aggregate: self.pending.is_open(aggregate, self.item))
        self.number = self.pending.attempt(self.aggregate, self.item)

    async def step(self, name: str, verb: Verb[A]) -> None:
        """Record a step, once for this attempt. Raises: Ended, Unavailable."""
        await self._record(f"{name}:{self.number}", verb, self.is_current)
        # What the step itself ended may already wait for the next attempt.
        if self.pending.is_open(self.aggregate, self.item) and not self.is_current(self.aggregate):
            raise Ended

    def is_current(self, aggregate: A) -> bool:
        pending = self.pending
        return pending.is_open(aggregate, self.item) and pending.attempt(aggregate, self.item) == self.number

    async def _record(self, step: str, verb: Verb[A], takes: Callable[[A], bool]) -> None:
        at, subject = datetime.now(UTC), self.commit.subject
        taken = True

        def decide(aggregate: A | None) -> A:
            nonlocal taken
            assert aggregate is not None
            taken = takes(aggregate)
            if taken:
                verb(aggregate, at)
            return aggregate

        metadata = self.metadata.caused(commit_id(self.metadata.id, f"{self.item}:{step}"))
        kind = cast("type[A]", self.work.noun)
        change = await self.repository.change(kind, subject.id, metadata, decide)
        self.aggregate = change.aggregate
        self.sequence = max(self.sequence, self.commit.position.sequence, change.position.sequence)
        if not taken or self.aggregate.deleted:
            raise Ended
