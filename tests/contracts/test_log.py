"""The contract of Log."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from nats.aio.client import Client

from adapters.jetstream.log import JetStreamLog
from adapters.jetstream.outcomes import JetStreamOutcomes
from adapters.jetstream.store import JetStreamEventStore
from domain.aggregate import new_id
from domain.knowledge.dataset import Dataset
from domain.log import EVENTS, OUTCOMES, Commit, Metadata, Outcome, Position, Quarantined, Recorded, Subject, Verdict
from handlers.ports.log import EventStore, Outcomes
from tests.memory import Memory, MemoryEventStore, MemoryLog, MemoryOutcomes

Place = Memory | Client


def log_of(place: Place) -> MemoryLog | JetStreamLog:
    return MemoryLog(place) if isinstance(place, Memory) else JetStreamLog(place)


def store_of(place: Place) -> EventStore:
    return MemoryEventStore(place) if isinstance(place, Memory) else JetStreamEventStore(place)


def outcomes_of(place: Place) -> Outcomes:
    return MemoryOutcomes(place) if isinstance(place, Memory) else JetStreamOutcomes(place)


NOW = datetime(2026, 5, 4, 8, tzinfo=UTC)


async def commit(place: Place, tenant: str, count: int = 1) -> list[Position]:
    store = store_of(place)
    positions = []
    for _ in range(count):
        dataset = Dataset.begin(Dataset.Created, new_id(), NOW, name="Rules", description="")
        dataset.delete(NOW)
        metadata = Metadata(new_id(), tenant, new_id(), new_id(), "ada")
        positions.append(await store.append(Subject(tenant, "dataset", dataset.id), dataset.pending(), metadata, 0))
    return positions


async def replayed(place: Place, stream: str, after: int) -> list[Recorded]:
    return [message async for batch in log_of(place).read(stream, after, follow=False) for message in batch]


async def test_an_empty_stream_ends_at_once(place: Place) -> None:
    assert await log_of(place).last(EVENTS) == 0
    assert await replayed(place, EVENTS, 0) == []


async def test_a_replay_is_whole_and_in_order(place: Place, tenant: str) -> None:
    positions = await commit(place, tenant, 50)
    messages = await replayed(place, EVENTS, 0)
    assert all(later.position.sequence == earlier.position.sequence + 1 for earlier, later in pairwise(messages))
    assert messages[0].position == Position(EVENTS, 1)
    assert [message.position for message in messages][-50:] == positions
    last = messages[-1]
    assert isinstance(last, Commit)
    assert [event.TOPIC for event in last.events] == ["dataset.created.v2", "dataset.deleted.v1"]
    assert (last.subject.tenant, last.subject.noun, last.metadata.actor) == (tenant, "dataset", "ada")
    assert last.metadata.causation is not None
    [loaded] = await store_of(place).load(last.subject)
    assert (loaded.position, loaded.metadata) == (last.position, last.metadata)
    assert abs(loaded.at - last.at) < timedelta(microseconds=2)
    assert list(loaded.events) == list(last.events)


async def test_a_replay_begins_after_a_sequence(place: Place, tenant: str) -> None:
    positions = await commit(place, tenant, 10)
    after = positions[6].sequence
    assert [message.position for message in await replayed(place, EVENTS, after)] == positions[7:]
    assert await replayed(place, EVENTS, positions[-1].sequence) == []


async def test_who_follows_sees_what_comes(place: Place, tenant: str) -> None:
    before = await commit(place, tenant, 3)
    seen: list[Position] = []
    arrived = asyncio.Event()

    async def follow() -> None:
        async with aclosing(log_of(place).read(EVENTS, before[0].sequence)) as batches:
            async for batch in batches:
                seen.extend(message.position for message in batch)
                arrived.set()

    following = asyncio.create_task(follow())
    while seen != before[1:]:
        await asyncio.wait_for(arrived.wait(), 5)
        arrived.clear()
    later = await commit(place, tenant, 20)
    while seen != [*before[1:], *later]:
        await asyncio.wait_for(arrived.wait(), 5)
        arrived.clear()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_who_stops_following_leaves_nothing_behind(nc: Client, tenant: str) -> None:
    await commit(nc, tenant)
    async with aclosing(log_of(nc).read(EVENTS, 0)) as batches:
        await anext(batches)
        assert len(await nc.jetstream().consumers_info(EVENTS)) > 0
    async with asyncio.timeout(10):
        while [
            it for it in await nc.jetstream().consumers_info(EVENTS) if not it.config.durable_name and it.push_bound
        ]:
            await asyncio.sleep(0.02)


async def test_outcomes_are_read_as_verdicts(place: Place, tenant: str) -> None:
    outcomes = []
    for number in range(5):
        id = new_id()
        outcome = Outcome(
            id, "app.create", "accepted", Metadata(id, tenant, id), NOW, Position(EVENTS, number + 1), 1, {"app": id}
        )
        await outcomes_of(place).put(outcome)
        outcomes.append(outcome)
    messages = await replayed(place, OUTCOMES, 0)
    assert all(isinstance(message, Verdict) for message in messages)
    assert [message.events for message in messages] == [(outcome,) for outcome in outcomes]
    assert [message.subject for message in messages] == [Subject(tenant, "command", it.command) for it in outcomes]
    assert [message.position.sequence for message in messages] == list(range(1, 6))


@pytest.mark.parametrize(
    ("body", "reason", "newer"),
    [
        (b'[{"type": "dataset.painted.v1", "version": 1, "state": {}}]', "dataset.painted.v1", True),
        (b'{"stream": "COMMANDS", "seq": 1}', "is no commit", False),
    ],
)
async def test_an_event_that_cannot_be_read_is_in_quarantine(
    nc: Client, tenant: str, body: bytes, reason: str, newer: bool
) -> None:
    """It has no events. The last test: the stream cannot be cleaned."""
    [known] = await commit(nc, tenant)
    subject = Subject(tenant, "dataset", new_id())
    ack = await nc.jetstream().publish(str(subject), body, headers={"Nats-Msg-Id": new_id()})
    [found] = await replayed(nc, EVENTS, known.sequence)
    assert isinstance(found, Quarantined)
    assert (found.subject, found.position, found.newer, found.events) == (
        subject,
        Position(EVENTS, ack.seq),
        newer,
        (),
    )
    assert reason in found.reason
