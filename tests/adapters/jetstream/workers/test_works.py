from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial

import orjson
import pytest
import structlog
from nats.aio.client import Client

from adapters.jetstream.workers.consumers import Consumers
from adapters.jetstream.workers.works import subscribe_work
from domain.aggregate import Event, new_id
from domain.chat.conversation import Conversation
from domain.log import Commit, Metadata, Subject
from domain.work.dead_letter import DeadLetter, dead_letter_id
from handlers.work.work import PENDING, WORKS
from tests.adapters.jetstream.conftest import Running
from tests.adapters.jetstream.workers.test_consumer import dead, settled
from tests.handlers.desk import Desk
from tests.handlers.work.test_work import OPEN, conversation

NOW = datetime(2026, 5, 4, 8, tzinfo=UTC)


async def test_a_commit_comes_as_it_was_appended(fresh: Client, running: Running) -> None:
    seen: list[tuple[Commit, dict[str, object]]] = []

    async def react(commit: Commit) -> None:
        seen.append((commit, structlog.contextvars.get_contextvars()))

    talk = Conversation.begin(Conversation.Started, new_id(), NOW, app=new_id(), user="ada", name="水门")
    talk.ask(NOW, message=talk.id, app=talk.app, configuration=1, query="When?", inputs={}, user="ada")
    subject = Subject("acme", "conversation", talk.id)
    metadata = Metadata(new_id(), "acme", new_id(), new_id(), "ada")
    events = talk.pending()
    position = await Desk(fresh, "acme").store.append(subject, events, metadata, 0)
    await running(reaction("answer", react, fresh))
    await settled(fresh)
    [(commit, context)] = seen
    assert (commit.subject, commit.metadata, commit.position) == (subject, metadata, position)
    assert list(commit.events) == events
    assert context == {"tenant": "acme", "correlation": metadata.correlation, "causation": metadata.id}


async def test_only_commits_that_begin_the_work_come(fresh: Client, running: Running) -> None:
    desk, ingest = Desk(fresh, "acme"), Reacting()
    ingest.fails = False
    dataset = await desk.done("dataset.create", name="Rules")
    document = await desk.done("document.upload", dataset=dataset, name="a.txt", text="x")
    await desk.done("document.rename", document=document, name="b.txt")
    await desk.change("document", document, lambda it: it.delete(NOW))
    await running(reaction("ingest", ingest, fresh))
    info = await settled(fresh, "ingest")
    assert info.delivered.consumer_seq >= 3
    uploaded, *_ = await desk.commits("document", document)
    assert [commit.position for commit in ingest.seen] == [uploaded.position]


async def test_commits_that_begin_nothing_do_not_wait_behind_those_that_do(fresh: Client, running: Running) -> None:
    go, begun = asyncio.Event(), list[str]()

    async def answer(commit: Commit) -> None:
        begun.append(commit.subject.id)
        await go.wait()

    desk, count = Desk(fresh, "acme"), WORKS["answer"].share + 3
    for _ in range(count):
        talk = Conversation.begin(Conversation.Started, new_id(), NOW, app=new_id(), user="ada", name="Locks")
        talk.ask(NOW, message=talk.id, app=talk.app, configuration=1, query="When?", inputs={}, user="ada")
        asked = Subject("acme", "conversation", talk.id)
        await desk.store.append(asked, talk.pending(), Metadata(new_id(), "acme", new_id()), 0)
    talk.rename(NOW, name="Gates")
    await desk.store.append(asked, talk.pending(), Metadata(new_id(), "acme", new_id()), count)
    await running(reaction("answer", answer, fresh))
    js = fresh.jetstream()
    async with asyncio.timeout(10):
        while len(begun) < count - 3 or (info := await js.consumer_info("EVENTS", "answer")).num_ack_pending > count:
            await asyncio.sleep(0.01)
    assert info.num_pending == 0
    go.set()
    await settled(fresh)
    assert len(begun) == count


FORGED = orjson.dumps([{"type": "conversation.started.v1", "version": 1, "state": {}}])


@pytest.mark.parametrize("body", [orjson.dumps([{"type": "conversation.painted.v1"}]), b"\xff{", FORGED])
async def test_what_is_in_quarantine_is_skipped(fresh: Client, running: Running, body: bytes) -> None:
    """Later messages are not held up, and no dead letter repeats the quarantine."""
    seen: list[Commit] = []

    async def react(commit: Commit) -> None:
        seen.append(commit)

    await fresh.jetstream().publish(f"evt.acme.conversation.{new_id()}", body)
    talk = conversation()
    subject = Subject("acme", "conversation", talk.id)
    await Desk(fresh, "acme").store.append(subject, talk.pending(), Metadata(new_id(), "acme", new_id()), 0)
    await running(reaction("answer", react, fresh))
    info = await settled(fresh)
    assert [commit.subject for commit in seen] == [subject]
    assert info.num_redelivered == 0
    assert await dead(fresh) == []


class Reacting:
    """Fails until it is switched off."""

    def __init__(self) -> None:
        self.fails = True
        self.seen: list[Commit] = []

    async def __call__(self, commit: Commit) -> None:
        if self.fails:
            raise ZeroDivisionError("odd")
        self.seen.append(commit)


async def buried_in(desk: Desk, consumer: str, commit: str, *expected: type[Event]) -> str:
    """The letter of a commit, once this is all that happened to it."""
    letter = dead_letter_id(consumer, "acme", commit)
    async with asyncio.timeout(10):
        while await desk.types("dead_letter", letter) != [type.TOPIC for type in expected]:
            await asyncio.sleep(0.01)
    return letter


async def test_a_commit_that_died_comes_again_when_its_letter_is_retried(fresh: Client, running: Running) -> None:
    """To the consumer that could not handle it, and to no other; and back, if that was in vain."""
    desk, forgets, others = Desk(fresh, "acme"), Reacting(), Reacting()
    others.fails = False
    dataset = await desk.done("dataset.create", name="Rules")
    await desk.done("dataset.delete", dataset=dataset)
    await running(reaction("forget_datasets", forgets, fresh))
    await running(reaction("ingest", others, fresh))
    [_, commit] = await desk.commits("dataset", dataset)
    letter = await buried_in(desk, "forget_datasets", commit.metadata.id, DeadLetter.Buried)
    await desk.done("dead_letter.retry", dead_letter=letter)
    happened = (DeadLetter.Buried, DeadLetter.Retried, DeadLetter.Returned)
    await buried_in(desk, "forget_datasets", commit.metadata.id, *happened)
    forgets.fails = False
    await desk.done("dead_letter.retry", dead_letter=letter)
    await settled(fresh, "forget_datasets")
    await settled(fresh, "ingest")
    assert forgets.seen == [commit]
    assert others.seen == []
    await buried_in(desk, "forget_datasets", commit.metadata.id, *happened, DeadLetter.Retried)


@pytest.mark.parametrize("name", PENDING)
async def test_what_waits_for_a_commit_that_died_fails_and_a_retry_opens_it_again(
    fresh: Client, running: Running, name: str
) -> None:
    desk, handler = Desk(fresh, "acme"), Reacting()
    work, pending, aggregate = WORKS[name], PENDING[name], OPEN[name]()
    subject = Subject("acme", aggregate.TOPIC, aggregate.id)
    begun = Metadata(new_id(), "acme", new_id(), new_id(), "ada")
    await desk.store.append(subject, aggregate.pending(), begun, 0)
    [begins] = await desk.commits(subject.noun, subject.id)
    [item] = set(work.items(begins))
    frames = await fresh.subscribe(f"live.acme.{aggregate.id}.{item}")
    await running(reaction(name, handler, fresh))
    letter = await buried_in(desk, name, begun.id, DeadLetter.Buried)
    await settled(fresh, name)
    failed = (await desk.events(subject.noun, subject.id))[-1]
    assert (vars(failed)["code"], vars(failed)["reason"]) == ("internal_error", "ZeroDivisionError: odd")
    assert not pending.is_open(await desk.fold(subject.noun, subject.id), item)
    await fresh.flush()
    watched = [orjson.loads((await frames.next_msg()).data) for _ in range(frames.pending_msgs)]
    expected = {"type": "failed", "code": "internal_error", "reason": "ZeroDivisionError: odd"}
    assert watched == [expected] * work.watched
    handler.fails = False
    await desk.done("dead_letter.retry", dead_letter=letter)
    await settled(fresh, name)
    assert pending.is_open(await desk.fold(subject.noun, subject.id), item)
    assert [item for commit in handler.seen for item in work.items(commit)] == [item]
    assert begins not in handler.seen


async def test_a_burial_is_done_once_however_often_it_is_tried(fresh: Client) -> None:
    desk = Desk(fresh, "acme")
    letter = await desk.bury("commands", new_id(), reason="first")
    [buried] = await desk.events("dead_letter", letter)
    assert isinstance(buried, DeadLetter.Buried)
    for reason in ("first", "second"):
        assert await desk.bury("commands", buried.message, reason=reason) == letter
    assert await desk.types("dead_letter", letter) == [DeadLetter.Buried.TOPIC]


async def test_a_tenant_that_is_none_has_no_letter(fresh: Client) -> None:
    desk = Desk(fresh, "_ACME")
    letter = await desk.bury("commands", new_id())
    assert await desk.commits("dead_letter", letter) == []


def reaction(name: str, react: Callable[[Commit], Awaitable[None]], nc: Client) -> Callable[[Consumers], None]:
    desk = Desk(nc, "acme")
    return partial(
        subscribe_work, name=name, handler=react, repository=desk.repository, keys=desk.keys, blobs=desk.blobs
    )
