from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

import orjson
import structlog
from nats.aio.client import Client

from adapters.jetstream.reactions import subscribe_reaction
from adapters.jetstream.store import JetStreamEventStore
from domain.aggregate import new_id
from domain.conversation import Conversation
from handlers.ports import Commit, Metadata, Subject
from tests.adapters.jetstream.conftest import Running
from tests.adapters.jetstream.test_consumer import dead, settled

NOW = datetime(2026, 5, 4, 8, tzinfo=UTC)


async def test_a_commit_comes_as_it_was_appended(fresh: Client, running: Running) -> None:
    seen: list[tuple[Commit, dict[str, object]]] = []

    async def react(commit: Commit) -> None:
        seen.append((commit, structlog.contextvars.get_contextvars()))

    talk = Conversation.start(new_id(), NOW, app=new_id(), user="ada", name="水门")
    talk.rename(NOW, name="Other")
    subject = Subject("acme", "conversation", talk.id)
    metadata = Metadata(new_id(), "acme", new_id(), new_id(), "ada")
    events = talk.pending()
    position = await JetStreamEventStore(fresh).append(subject, events, metadata, 0)
    await running(partial(subscribe_reaction, name="answer", react=react, workers=4))
    await settled(fresh)
    [(commit, told)] = seen
    assert (commit.subject, commit.metadata, commit.position) == (subject, metadata, position)
    assert list(commit.events) == events
    assert told == {"tenant": "acme", "correlation": metadata.correlation, "causation": metadata.id}


async def test_an_unknown_event_is_skipped(fresh: Client, running: Running) -> None:
    """A newer version wrote it; what follows is not held up."""
    seen: list[Commit] = []

    async def react(commit: Commit) -> None:
        seen.append(commit)

    unknown = orjson.dumps([{"type": "conversation.painted.v1", "version": 1, "state": {}}])
    await fresh.jetstream().publish(f"evt.acme.conversation.{new_id()}", unknown)
    talk = Conversation.start(new_id(), NOW, app=new_id(), user="ada", name="After")
    subject = Subject("acme", "conversation", talk.id)
    await JetStreamEventStore(fresh).append(subject, talk.pending(), Metadata(new_id(), "acme", new_id()), 0)
    await running(partial(subscribe_reaction, name="answer", react=react, workers=1))
    info = await settled(fresh)
    assert [commit.subject for commit in seen] == [subject]
    assert info.num_redelivered == 0
    assert await dead(fresh) == []


async def test_what_is_no_commit_ends_in_the_dead_letters(fresh: Client, running: Running) -> None:
    async def react(commit: Commit) -> None:
        raise AssertionError("never called")

    await fresh.jetstream().publish(f"evt.acme.conversation.{new_id()}", b"\xff{")
    await running(partial(subscribe_reaction, name="answer", react=react, workers=1))
    await settled(fresh)
    [letter] = await dead(fresh)
    assert letter.data == b"\xff{"
    assert (letter.headers or {})["Headrace-Reason"].startswith("JSONDecodeError: ")
