"""Puts a step of long work on record, and notices that the work is over."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from domain.aggregate import Aggregate
from domain.log import Metadata
from handlers.repository import Change, Repository

A = TypeVar("A", bound=Aggregate)


class Ended(Exception):
    """No more work is needed: another worker brought it to its end, or what it is about was deleted."""


async def step(
    repository: Repository,
    kind: type[A],
    id: str,
    metadata: Metadata,
    is_over: Callable[[A], bool],
    verb: Callable[[A, datetime], None],
) -> Change[A]:
    """The aggregate after the step, and where that stands. Raises: Ended when it takes no more, Unavailable."""
    at = datetime.now(UTC)
    over = False

    def decide(aggregate: A | None) -> A:
        nonlocal over
        assert aggregate is not None
        over = is_over(aggregate)
        verb(aggregate, at)
        return aggregate

    change = await repository.change(kind, id, metadata, decide)
    if over or change.aggregate.deleted:
        raise Ended
    return change
