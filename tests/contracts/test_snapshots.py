"""The contract of Snapshots."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import nats
import pytest
from nats.aio.client import Client

from adapters.jetstream.snapshots import JetStreamSnapshots
from domain.aggregate import Snapshot, new_id
from domain.chat.conversation import Conversation
from domain.log import Subject
from handlers.ports.log import SavedSnapshot, Snapshots, Unavailable
from ops.servers.embedded import EmbeddedNats
from tests.memory import Memory, MemorySnapshots

NOW = datetime(2026, 5, 4, 8, tzinfo=UTC)


@pytest.fixture
def snapshots(place: Memory | Client) -> Snapshots:
    return MemorySnapshots(place) if isinstance(place, Memory) else JetStreamSnapshots(place)


def conversation(questions: int = 3) -> Conversation:
    app = new_id()
    talk = Conversation.begin(Conversation.Started, new_id(), NOW, app=app, user="ada", name="水门")
    for number in range(questions):
        id = new_id()
        inputs = {"tone": "calm"}
        talk.ask(NOW, message=id, app=app, configuration=1, query=f"{number}?", inputs=inputs, user="ada")
        talk.stopped(NOW, message=id, answer=f"{number}!")
    talk.pending()
    return talk


def taken(talk: Conversation, commits: int = 3) -> SavedSnapshot:
    return SavedSnapshot(Snapshot.of(talk), 77, {new_id(): (70 + number, number) for number in range(commits)})


async def test_there_is_none_before_it_is_put(snapshots: Snapshots, tenant: str) -> None:
    assert await snapshots.get(Subject(tenant, "conversation", new_id())) is None


async def test_it_is_got_as_it_was_put(snapshots: Snapshots, tenant: str) -> None:
    talk = conversation()
    subject, put = Subject(tenant, "conversation", talk.id), taken(talk)
    await snapshots.put(subject, put)
    got = await snapshots.get(subject)
    assert got == put
    assert list(got.commits) == list(put.commits)
    again = got.snapshot.mutate(None)
    assert isinstance(again, Conversation)
    assert vars(again) == vars(talk)
    assert list(again.messages) == list(talk.messages)


async def test_one_that_is_too_large_is_left_out_and_an_earlier_one_stays(
    nc: Client, snapshots: Snapshots, tenant: str
) -> None:
    talk = conversation()
    subject, put = Subject(tenant, "conversation", talk.id), taken(talk)
    await snapshots.put(subject, put)
    talk.rename(NOW, name=os.urandom(nc.max_payload).hex())
    talk.pending()
    await snapshots.put(subject, taken(talk))
    assert await snapshots.get(subject) == put


async def test_a_newer_one_takes_its_place(snapshots: Snapshots, tenant: str) -> None:
    talk = conversation()
    subject = Subject(tenant, "conversation", talk.id)
    await snapshots.put(subject, taken(talk))
    talk.rename(NOW, name="Newer")
    talk.pending()
    newer = taken(talk)
    await snapshots.put(subject, newer)
    assert await snapshots.get(subject) == newer


async def test_a_long_one_fits(snapshots: Snapshots, tenant: str) -> None:
    talk = conversation(questions=5000)
    subject, put = Subject(tenant, "conversation", talk.id), taken(talk, commits=1000)
    await snapshots.put(subject, put)
    assert await snapshots.get(subject) == put


async def test_tenants_are_apart(snapshots: Snapshots, tenant: str) -> None:
    talk = conversation()
    await snapshots.put(Subject(tenant, "conversation", talk.id), taken(talk))
    assert await snapshots.get(Subject("other", "conversation", talk.id)) is None


async def test_a_bucket_that_was_never_made_is_unavailable(tmp_path_factory: pytest.TempPathFactory) -> None:
    talk = conversation()
    subject = Subject("default", "conversation", talk.id)
    async with EmbeddedNats(tmp_path_factory.mktemp("bare")) as server:
        nc = await nats.connect(server.url)
        with pytest.raises(Unavailable):
            await JetStreamSnapshots(nc).get(subject)
        with pytest.raises(Unavailable):
            await JetStreamSnapshots(nc).put(subject, taken(talk))
        await nc.close()
