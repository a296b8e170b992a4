"""The quarantine on a log in memory: a frozen aggregate is held, all others go on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime

from domain.aggregate import new_id
from domain.chat.app import App
from domain.log import EVENTS, OUTCOMES, Commit, Metadata, Position, Quarantined, Recorded, Subject
from domain.work.quarantine import Quarantine, quarantine_id
from handlers.work.quarantine import HoldingLog

NOW = datetime(2026, 5, 4, 8, tzinfo=UTC)
TENANT = "acme"


class Past:
    """A log that a test writes."""

    def __init__(self) -> None:
        self.messages: list[Recorded] = []

    def next(self) -> Position:
        return Position(EVENTS, len(self.messages) + 1)

    def app(self, id: str) -> None:
        app = App.begin(App.Created, id, NOW, name="Guide", description="")
        subject, metadata = Subject(TENANT, "app", id), Metadata(new_id(), TENANT, new_id())
        self.messages.append(Commit(subject, app.pending(), metadata, self.next(), NOW))

    def junk(self, id: str, *, newer: bool = False) -> int:
        subject, metadata = Subject(TENANT, "app", id), Metadata("", TENANT, "")
        self.messages.append(Quarantined(subject, metadata, self.next(), NOW, "is no commit.", newer))
        return len(self.messages)

    def discard(self, stream: str, sequence: int) -> None:
        id = quarantine_id(stream, sequence)
        quarantine = Quarantine.begin(Quarantine.Discarded, id, NOW, stream=stream, sequence=sequence)
        subject, metadata = Subject(TENANT, "quarantine", id), Metadata(new_id(), TENANT, new_id())
        self.messages.append(Commit(subject, quarantine.pending(), metadata, self.next(), NOW))

    async def read(self, stream: str, after: int, *, follow: bool = True) -> AsyncGenerator[Sequence[Recorded]]:
        yield self.messages[after:]


async def held(log: HoldingLog, after: int = 0) -> dict[int, int | None]:
    """The messages in quarantine, each with the one that holds it."""
    return {
        message.position.sequence: message.held_by
        async for chunk in log.read(EVENTS, after)
        for message in chunk
        if isinstance(message, Quarantined)
    }


async def test_what_follows_in_a_frozen_aggregate_is_held_and_nothing_else() -> None:
    past = Past()
    past.app("a")
    bad = past.junk("a")
    past.app("a")
    past.app("b")
    assert await held(HoldingLog(past)) == {bad: None, bad + 1: bad}


async def test_an_aggregate_goes_on_when_all_that_froze_it_is_discarded() -> None:
    past = Past()
    first, second = past.junk("a"), past.junk("a")
    past.discard(EVENTS, first)
    past.app("a")
    past.discard(EVENTS, second)
    past.app("a")
    assert await held(HoldingLog(past)) == {first: None, second: None, 4: second}


async def test_the_discard_of_an_outcome_of_the_same_sequence_releases_nothing() -> None:
    past = Past()
    bad = past.junk("a")
    past.discard(OUTCOMES, bad)
    past.app("a")
    assert await held(HoldingLog(past)) == {bad: None, 3: bad}


async def test_a_reader_that_begins_later_knows_what_was_frozen_before() -> None:
    past = Past()
    bad = past.junk("a", newer=True)
    past.app("a")
    log = HoldingLog(past, [(bad, Subject(TENANT, "app", "a"), True)])
    assert await held(log, after=bad) == {bad + 1: bad}
