"""Given what happened, when this is decided, then that happens: scenarios for the rules of a noun."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, Self, TypeVar

from domain.aggregate import Aggregate, Event, Rejection

A = TypeVar("A", bound=Aggregate)
Decision = Callable[[A], object]

NOW = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)
"""When everything happens."""

_OF_EVERY_EVENT = {"originator_id", "originator_version", "originator_topic", "timestamp"}


@dataclass
class Scenario(Generic[A]):
    """An aggregate, and what the last decision did to it."""

    aggregate: A
    events: list[Event] = field(default_factory=list)
    rejection: Rejection | None = None

    def when(self, decision: Decision[A]) -> Self:
        """Decide; what it yields is there for the `then`s."""
        self.events, self.rejection = [], None
        try:
            decision(self.aggregate)
        except Rejection as rejection:
            self.rejection = rejection
        self.events = self.aggregate.pending()
        return self

    def then(self, *expected: type[Event], **fields: Any) -> Self:
        """Exactly these events happened, and the last of them has these fields among its own."""
        assert self.rejection is None, f"rejected: {self.rejection!r}"
        assert [type(event) for event in self.events] == list(expected)
        last = self.events[-1]
        assert {name: getattr(last, name) for name in fields} == fields
        assert last.timestamp == NOW
        return self

    def whole(self, **fields: Any) -> Self:
        """The last event has these fields and no others of its own."""
        own = {name: value for name, value in vars(self.events[-1]).items() if name not in _OF_EVERY_EVENT}
        assert own == fields
        return self

    def nothing(self) -> Self:
        assert self.rejection is None, f"rejected: {self.rejection!r}"
        assert self.events == []
        return self

    def rejects(self, code: str, field: str | None) -> Self:
        """The decision was refused for this reason, and changed nothing."""
        assert self.rejection is not None, f"not rejected, but {self.events}"
        assert (self.rejection.code, self.rejection.field) == (code, field)
        assert self.rejection.message.endswith(".")
        assert self.events == []
        return self

    def once(self, decision: Decision[A], *expected: type[Event], **fields: Any) -> Self:
        """The decision yields these events, and nothing when it is decided again."""
        return self.when(decision).then(*expected, **fields).when(decision).nothing()


def given(aggregate: A, *decisions: Decision[A]) -> Scenario[A]:
    """The aggregate after the decisions."""
    for decision in decisions:
        decision(aggregate)
    aggregate.pending()
    return Scenario(aggregate)


def made(aggregate: A) -> Scenario[A]:
    """An aggregate that was just made: its first events are there for the `then`s."""
    return Scenario(aggregate, aggregate.pending())


def refold(kind: type[A], events: list[Event]) -> A:
    """The aggregate that the events alone give."""
    folded: Any = None
    for event in events:
        folded = event.mutate(folded)
    assert isinstance(folded, kind)
    return folded
