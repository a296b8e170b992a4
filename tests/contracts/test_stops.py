"""The contract of Stops."""

from __future__ import annotations

import asyncio

import pytest
from nats.aio.client import Client

from adapters.jetstream.stops import NatsStops
from adapters.jetstream.store import JetStreamEventStore
from domain.access.end_user import EndUser
from domain.aggregate import Aggregate, new_id
from domain.chat.conversation import Conversation
from domain.log import Metadata, Subject
from domain.workflows.run import Run
from handlers.ports.log import EventStore, Stops
from tests.domain.scenario import NOW
from tests.domain.workflows.test_run import STARTED
from tests.memory import Memory, MemoryEventStore, MemoryStops


@pytest.fixture
def store(place: Memory | Client) -> EventStore:
    return MemoryEventStore(place) if isinstance(place, Memory) else JetStreamEventStore(place)


@pytest.fixture
async def stops(place: Memory | Client) -> Stops:
    if isinstance(place, Memory):
        return MemoryStops(place)
    heard = NatsStops(place)
    await heard.start()
    return heard


async def commit(store: EventStore, tenant: str, aggregate: Aggregate) -> None:
    metadata = Metadata(new_id(), tenant, new_id())
    await store.append(Subject(tenant, aggregate.TOPIC, aggregate.id), aggregate.pending(), metadata, 0)


def asked_to_stop(conversation: str, message: str) -> Conversation:
    talk = Conversation.begin(Conversation.Started, conversation, NOW, app="guide", user="ada", name="Locks")
    talk.ask(NOW, message=message, app="guide", configuration=1, query="When?", inputs={}, user="ada")
    talk.stop(NOW, message=message)
    return talk


async def test_a_stop_is_heard_by_who_watches_the_message(stops: Stops, store: EventStore, tenant: str) -> None:
    conversation, other = new_id(), new_id()
    stop = stops.watch(tenant, conversation, "one")
    others = [
        stops.watch(tenant, conversation, "two"),
        stops.watch(tenant, other, "one"),
        stops.watch(f"{tenant}x", conversation, "one"),
    ]
    assert stops.watch(tenant, conversation, "one") is stop
    await commit(store, tenant, asked_to_stop(conversation, "one"))
    await asyncio.wait_for(stop.wait(), 5)
    assert not any(other.is_set() for other in others)


async def test_an_answer_is_stopped_when_its_person_is_erased(stops: Stops, store: EventStore, tenant: str) -> None:
    hers = stops.watch(tenant, "c", "one", person="ada")
    others = [stops.watch(tenant, "c", "two", person="eve"), stops.watch(f"{tenant}x", "c", "one", person="ada")]
    await commit(store, tenant, EndUser.begin(EndUser.Erased, "ada", NOW, known=True))
    await asyncio.wait_for(hers.wait(), 5)
    assert not any(other.is_set() for other in others)


async def test_who_owns_a_run_hears_of_its_stop(stops: Stops, store: EventStore, tenant: str) -> None:
    run = Run.begin(Run.Started, new_id(), NOW, **STARTED)
    hears, other = stops.watch(tenant, run.id, run.id), stops.watch(tenant, "other", "other")
    run.stop(NOW)
    await commit(store, tenant, run)
    await asyncio.wait_for(hears.wait(), 5)
    assert not other.is_set()


async def test_who_no_longer_watches_hears_nothing(stops: Stops, store: EventStore, tenant: str) -> None:
    conversation = new_id()
    before = stops.watch(tenant, conversation, "one")
    stops.unwatch(tenant, conversation, "one")
    stops.unwatch(tenant, conversation, "one")
    last = stops.watch(tenant, "other", "one")
    await commit(store, tenant, asked_to_stop(conversation, "one"))
    await commit(store, tenant, asked_to_stop("other", "one"))
    await asyncio.wait_for(last.wait(), 5)
    assert not before.is_set()
