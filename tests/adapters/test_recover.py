"""Orphaned work is recovered, on real servers: each case is made, recovered, and checked in the log."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from nats.aio.client import Client

from adapters.jetstream.keys import JetStreamKeys
from adapters.jetstream.log import JetStreamLog
from adapters.jetstream.streams import consumer_config
from adapters.jetstream.workers.consumer import done
from adapters.postgres import pending
from adapters.postgres.pending import due, only_one, overdue, waiting
from adapters.postgres.projector import Projector
from adapters.postgres.tables import connect, set_up, wait_for
from adapters.privacy.vault import AesVault
from domain.aggregate import new_id
from domain.chat.conversation import Conversation
from domain.knowledge import curation
from domain.knowledge.document import Document
from domain.knowledge.segments import Segment, encode_segments
from domain.log import EVENTS, Metadata, Position
from domain.models.model_call import ModelCall
from domain.workflows.effect import Effect
from domain.workflows.run import Run
from domain.workflows.schedule import Schedule
from handlers.cause import Cause
from handlers.models.model_calls import ModelCalls
from handlers.ports.log import PendingWork
from handlers.work.recover import Recover, orphaned
from handlers.work.work import STALLS, callers
from handlers.workflows.schedules import Tick, Waiting, run_id
from tests.domain.workflows.test_effect import REQUESTED
from tests.domain.workflows.test_run import STARTED
from tests.handlers.desk import Desk, files_of


class Scene:
    """A desk, its tables, and a recovery that finds no wait too short."""

    def __init__(self, desk: Desk, url: str) -> None:
        self.desk = desk
        self.url = url
        self.calls = ModelCalls(desk.repository)
        self.recover = Recover(desk.repository, desk.live, partial(self.overdue, 0), partial(done, desk.nc))

    async def overdue(self, deadline_s: float) -> list[PendingWork]:
        """Only this desk's: all tests share the streams."""
        return [wait for wait in await overdue(self.url, deadline_s) if wait.tenant == self.desk.tenant]

    async def caught_up(self) -> None:
        """The tables have all that is in the log."""
        last = (await self.desk.nc.jetstream().stream_info(EVENTS)).state.last_seq
        await wait_for(self.url, Position(EVENTS, last))

    async def forgotten_by(self, consumer: str) -> None:
        """Acknowledge everything without doing it."""
        await forget(self.desk.nc, consumer)
        await self.caught_up()

    async def swept(self) -> list[tuple[str, str]]:
        """The nouns and ids of what a recovery resumed, once the tables show it."""
        waits = await self.recover()
        await self.caught_up()
        return [(wait.work, wait.id) for wait in waits]

    async def document(self) -> str:
        dataset = await self.desk.done("dataset.create", name="Rules")
        return await self.desk.done("document.upload", dataset=dataset, name="a.txt", text="x")

    async def message(self) -> str:
        """The id of a message, and of its conversation."""
        app = await self.desk.done("app.create", name="Guide")
        await self.desk.done("app.configure", app=app)
        return await self.desk.done("message.send", app=app, query="When?")

    async def replay(self) -> str:
        call, now = await self.desk.called(), datetime.now(UTC)
        await self.desk.change("model_call", call, lambda it: it.cancel(now, response="", duration_ms=1.0))
        await self.caught_up()
        return await self.desk.done("replay.request", call=call)

    async def call(self, noun: str, cause: str) -> str:
        """A model call without an end."""
        why = Cause(Metadata(new_id(), self.desk.tenant, cause), noun, cause, 1)
        return await self.calls.request(why, "chat", kind="chat", provider="lab", model="m", request={})

    async def failed(self, document: str) -> None:
        now = datetime.now(UTC)
        await self.desk.change("document", document, lambda it: it.fail(now, stage="parsing", code="x", reason="X."))


async def forget(nc: Client, consumer: str) -> None:
    """Acknowledge all that waits for a consumer."""
    js = nc.jetstream()
    subscription = await js.pull_subscribe_bind(consumer, EVENTS)
    while (info := await js.consumer_info(EVENTS, consumer)).num_pending or info.num_ack_pending:
        with suppress(TimeoutError):
            for message in await subscription.fetch(100, timeout=0.2):
                await message.ack_sync()
    await subscription.unsubscribe()


@pytest.fixture(scope="module")
async def url(module_database_url: str, nc: Client) -> AsyncIterator[str]:
    """Tables that follow the log."""
    await set_up(module_database_url)
    log = JetStreamLog(nc, JetStreamKeys(nc, AesVault(bytes(32))))
    projector = asyncio.create_task(Projector(module_database_url, log, files_of(nc)).run())
    yield module_database_url
    projector.cancel()
    await asyncio.gather(projector, return_exceptions=True)


@pytest.fixture
def scene(nc: Client, tenant: str, url: str) -> Scene:
    return Scene(Desk(nc, tenant), url)


async def test_a_schedule_begins_one_run_for_a_time_and_its_row_names_the_next(scene: Scene) -> None:
    desk, zone = scene.desk, "Europe/Berlin"
    data = {"type": "trigger-schedule", "mode": "cron", "cron_expression": "0 6 * * *", "timezone": zone}
    graph = {"nodes": [{"id": "t", "data": data}, {"id": "e", "data": {"type": "end"}}], "edges": []}
    app = await desk.done("app.create", name="Report", mode="workflow")
    await desk.done("workflow.save", app=app, document={"app": {"mode": "workflow"}, "workflow": {"graph": graph}})
    await desk.done("workflow.publish", workflow=app)
    await scene.caught_up()
    time = Schedule("0 6 * * *", zone).after(datetime.now(UTC))
    assert time

    async def ours(now: datetime) -> list[Waiting]:
        return [each for each in await due(scene.url, now) if each.tenant == desk.tenant]

    assert await ours(time - timedelta(seconds=1)) == []
    [waiting] = await ours(time)
    assert waiting == Waiting(desk.tenant, app, 1, "t", "0 6 * * *", zone, time)
    late = time + timedelta(seconds=5)
    ticks = [Tick(each.repository, desk.files, ours, lambda: late) for each in (desk, Desk(desk.nc, desk.tenant))]
    await asyncio.gather(*(tick() for tick in ticks))
    await scene.caught_up()
    [began] = await desk.events("run", run_id(waiting, time))
    assert isinstance(began, Run.Started)
    assert await ours(time + timedelta(minutes=5)) == []
    [after] = await ours(time + timedelta(days=2))
    assert after.next_at == Schedule("0 6 * * *", zone).after(time)
    await desk.done("app.set_triggers", app=app, enabled=False)
    await scene.caught_up()
    assert await ours(time + timedelta(days=2)) == []


async def test_a_document_without_a_worker_is_resumed(scene: Scene) -> None:
    document = await scene.document()
    await scene.forgotten_by("ingest")
    assert await scene.swept() == [("ingest", document)]
    [*_, failed, retried] = await scene.desk.events("document", document)
    assert isinstance(failed, Document.Failed)
    assert (failed.code, failed.stage) == ("stalled", "parsing")
    assert isinstance(retried, Document.Retried)
    [*_, commit] = await scene.desk.commits("document", document)
    assert (commit.metadata.correlation, commit.metadata.actor) == (document, "sweeper")
    assert await scene.swept() == []


async def test_a_document_is_put_back_a_few_times_and_then_stays_in_error(scene: Scene) -> None:
    document = await scene.document()
    for _ in range(STALLS + 1):
        await scene.forgotten_by("ingest")
        assert await scene.swept() == [("ingest", document)]
    await scene.forgotten_by("ingest")
    assert await scene.swept() == []
    [*_, last] = await scene.desk.events("document", document)
    assert isinstance(last, Document.Failed)
    assert last.code == "stalled"


async def test_an_edit_that_no_worker_syncs_is_resumed(scene: Scene) -> None:
    document, now = await scene.document(), datetime.now(UTC)
    segments = encode_segments("a-model", [Segment(0, "One.", 0, 4, None, None, 1, [1, 2, 3])])
    digest = await scene.desk.blobs.put(scene.desk.tenant, segments)

    def change(it: Document) -> None:
        it.start(now, stage="parsing")
        it.parsed(now, pages=None, characters=1)
        it.split(now, segments=digest, count=1, tokens=1, model="a-model")
        it.indexed(now, first=0, count=1)
        curation.add_segment(it, now, segment=new_id(), content="More.")

    await scene.desk.change("document", document, change)
    for _ in range(STALLS):
        await scene.forgotten_by("sync")
        assert await scene.swept() == [("sync", document)]
        assert (await scene.desk.types("document", document))[-2:] == ["document.unsettled.v1", "document.resumed.v1"]
    await scene.forgotten_by("sync")
    assert await scene.swept() == [("sync", document)]
    await scene.forgotten_by("sync")
    assert await scene.swept() == []
    assert (await scene.desk.types("document", document))[-1] == "document.unsettled.v1"
    await scene.desk.done("document.retry", document=document)
    await scene.forgotten_by("sync")
    await scene.desk.change("document", document, lambda it: it.mark_synced(now, settled=it.sync["changed"]))
    await scene.caught_up()
    assert await scene.swept() == []


async def test_what_waits_is_counted_by_tenant_and_quantity(scene: Scene) -> None:
    assert scene.desk.tenant not in await waiting(scene.url)
    message, document, replay = await scene.message(), await scene.document(), await scene.replay()
    await scene.caught_up()
    assert (await waiting(scene.url))[scene.desk.tenant] == {"messages": 1, "documents": 1, "replays": 1}
    now = datetime.now(UTC)
    await scene.failed(document)
    await scene.desk.change("replay", replay, lambda it: it.fail(now, code="timeout", reason="Silence."))
    await scene.caught_up()
    assert (await waiting(scene.url))[scene.desk.tenant] == {"messages": 1}
    await scene.desk.answered(message, message)
    await scene.caught_up()
    assert scene.desk.tenant not in await waiting(scene.url)


async def test_what_waits_is_found_by_indexes(scene: Scene) -> None:
    """In tables that are mostly of what has ended."""
    async with connect(scene.url) as connection:
        await connection.execute("SET enable_seqscan = off")
        plan = await (await connection.execute(f"EXPLAIN {pending._waiting()}")).fetchall()
    assert {f"ix_{table}_open" for table in ("documents", "messages", "replays")} <= set(
        re.findall(r"ix_\w+", str(plan))
    )


async def test_a_message_without_a_worker_is_resumed(scene: Scene) -> None:
    message = await scene.message()
    await scene.desk.change("conversation", message, lambda it: it.answering(datetime.now(UTC), message=message))
    await scene.forgotten_by("answer")
    assert await scene.swept() == [("answer", message)]
    [*_, failed, retried] = await scene.desk.events("conversation", message)
    assert isinstance(failed, Conversation.Failed)
    assert failed.code == "stalled"
    assert isinstance(retried, Conversation.Retried)
    assert await scene.swept() == []


async def test_what_is_in_hand_is_left_alone_however_long_it_takes(scene: Scene) -> None:
    message = await scene.message()
    document = await scene.document()
    await scene.caught_up()
    subscription = await scene.desk.nc.jetstream().pull_subscribe_bind("answer", EVENTS)
    held = await subscription.fetch(100, timeout=2)
    waits = await scene.overdue(0)
    assert {(wait.work, wait.id, *wait.consumers) for wait in waits} == {
        ("answer", message, "answer"),
        ("ingest", document, "ingest"),
    }
    assert orphaned(waits, await done(scene.desk.nc)) == []
    assert await scene.swept() == []
    for one in held:
        await one.ack_sync()
    await subscription.unsubscribe()
    await scene.forgotten_by("answer")
    assert await scene.swept() == [("answer", message)]
    await scene.forgotten_by("ingest")
    assert await scene.swept() == [("ingest", document)]


async def test_what_is_young_is_left_alone(scene: Scene) -> None:
    await scene.document()
    await scene.forgotten_by("ingest")
    assert await scene.overdue(60) == []


async def test_a_consumer_that_was_created_again_owns_everything(scene: Scene) -> None:
    """It begins at the first message, and will come to what waits."""
    document = await scene.document()
    await scene.forgotten_by("ingest")
    js = scene.desk.nc.jetstream()
    await js.delete_consumer(EVENTS, "ingest")
    assert "ingest" not in await done(scene.desk.nc)
    assert await scene.swept() == []
    await js.add_consumer(EVENTS, consumer_config("ingest"))
    assert await scene.swept() == []
    assert await scene.desk.types("document", document) == ["document.uploaded.v2"]
    await scene.forgotten_by("ingest")
    assert await scene.swept() == [("ingest", document)]


async def test_what_moved_on_since_the_tables_looked_is_left_alone(scene: Scene) -> None:
    document, message = await scene.document(), await scene.message()
    for consumer in ("ingest", "answer"):
        await scene.forgotten_by(consumer)
    waits, now = await scene.overdue(0), datetime.now(UTC)
    await scene.desk.change("document", document, lambda it: it.start(now, stage="parsing"))
    await scene.desk.change("conversation", message, lambda it: it.answering(now, message=message))

    async def as_it_was() -> list[PendingWork]:
        return waits

    assert len(waits) == 2
    await Recover(scene.desk.repository, scene.desk.live, as_it_was, partial(done, scene.desk.nc))()
    assert (await scene.desk.types("document", document))[-1] == "document.started.v1"
    assert (await scene.desk.types("conversation", message))[-1] == "message.answering.v1"


async def test_a_first_message_is_recovered_though_its_conversation_has_changed_since(scene: Scene) -> None:
    """It has the id of its conversation, whose other changes are not its own."""
    message = await scene.message()
    await scene.forgotten_by("answer")
    await scene.desk.done("conversation.rename", conversation=message, name="Opening hours")
    await scene.forgotten_by("answer")
    await scene.recover()
    assert (await scene.desk.types("conversation", message))[-2:] == ["message.failed.v1", "message.retried.v1"]


async def test_recovering_twice_is_recovering_once(scene: Scene) -> None:
    """Two of them saw the same tables."""
    document = await scene.document()
    await scene.forgotten_by("ingest")
    desk = Desk(scene.desk.nc, scene.desk.tenant)
    other = Recover(desk.repository, desk.live, partial(scene.overdue, 0), partial(done, desk.nc))
    await asyncio.gather(scene.recover(), other())
    types = await scene.desk.types("document", document)
    assert types == ["document.uploaded.v2", "document.failed.v1", "document.retried.v1"]


async def ended(scene: Scene) -> str:
    document = await scene.document()
    await scene.failed(document)
    return document


async def test_a_replay_without_a_worker_is_resumed(scene: Scene) -> None:
    replay = await scene.replay()
    call = await scene.call("replay", replay)
    await scene.caught_up()
    assert await scene.swept() == []
    await scene.forgotten_by("replay")
    assert await scene.swept() == [("replay", replay)]
    commit = (await scene.desk.commits("replay", replay))[-1]
    assert [event.TOPIC for event in commit.events] == ["replay.failed.v1", "replay.retried.v1"]
    assert (commit.metadata.correlation, commit.metadata.actor) == (replay, "sweeper")
    assert await scene.swept() == []
    found = await scene.desk.repository.get(ModelCall, scene.desk.tenant, call)
    assert found
    assert found.status == "requested"


async def over(scene: Scene) -> str:
    replay, now = await scene.replay(), datetime.now(UTC)
    await scene.desk.change("replay", replay, lambda it: it.fail(now, code="timeout", reason="Silence."))
    return replay


async def deleted(scene: Scene) -> str:
    message = await scene.message()
    await scene.desk.done("conversation.delete", conversation=message)
    return message


@pytest.mark.parametrize(("noun", "make"), [("document", ended), ("message", deleted), ("replay", over)])
async def test_a_call_whose_cause_is_over_is_lost(scene: Scene, noun: str, make: Any) -> None:
    """A time by which no worker can have it any more."""
    cause = await make(scene)
    call = await scene.call(noun, cause)
    for consumer in callers(noun):
        assert await scene.swept() == []
        await scene.forgotten_by(consumer)
    assert await scene.swept() == [("model_call", call)]
    [*_, failed] = await scene.desk.commits("model_call", call)
    [event] = failed.events
    assert isinstance(event, ModelCall.Failed)
    assert event.code == "lost"
    assert failed.metadata.correlation == cause
    assert await scene.swept() == []


async def test_a_call_whose_cause_is_at_work_is_left_to_it(scene: Scene) -> None:
    message = await scene.message()
    call = await scene.call("message", message)
    await scene.forgotten_by("answer")
    assert [wait.id for wait in await scene.overdue(0)] == [message]
    assert await scene.swept() == [("answer", message)]
    found = await scene.desk.repository.get(ModelCall, scene.desk.tenant, call)
    assert found
    assert found.status == "requested"


async def test_a_call_of_a_worker_that_still_answers_a_deleted_conversation_is_left_to_it(scene: Scene) -> None:
    message = await deleted(scene)
    await scene.call("message", message)
    await scene.caught_up()
    for consumer in callers("message"):
        assert await scene.swept() == []
        await scene.forgotten_by(consumer)
    assert len(await scene.swept()) == 1


async def test_one_recovers_at_a_time(url: str) -> None:
    async with only_one(url) as first, only_one(url) as second:
        assert (first, second) == (True, False)
    async with only_one(url) as third:
        assert third


async def test_a_call_that_was_not_released_in_time_is_refused(scene: Scene) -> None:
    message = await scene.message()
    late, waiting = [await scene.desk.held(new_id(), message, message, seconds=seconds) for seconds in (0.0, 60.0)]
    await scene.forgotten_by("resume")
    assert await scene.swept() == [("expired_hold", late)]
    assert await scene.desk.types("tool_call", late) == [
        "tool_call.requested.v1", "tool_call.held.v1", "tool_call.refused.v1"
    ]  # fmt: skip
    assert len(await scene.desk.types("tool_call", waiting)) == 2
    assert await scene.swept() == []


async def test_a_call_of_a_tool_whose_message_has_ended_is_lost(scene: Scene) -> None:
    message, now = await scene.message(), datetime.now(UTC)
    call = await scene.desk.held(new_id(), message, message)
    await scene.desk.change("tool_call", call, lambda it: it.release(now))
    await scene.desk.change("tool_call", call, lambda it: it.begin_again(now, attempt=1))
    await scene.forgotten_by("answer")
    fails = {"message": message, "code": "timeout", "reason": "Silence.", "answer": ""}
    await scene.desk.change("conversation", message, lambda it: it.fail(now, **fails))
    for consumer in callers("message"):
        await scene.forgotten_by(consumer)
    assert ("tool_call", call) in await scene.swept()
    [*_, lost] = await scene.desk.events("tool_call", call)
    assert (lost.TOPIC, lost.code) == ("tool_call.failed.v1", "lost")  # type: ignore[attr-defined]


async def test_a_message_that_waits_for_a_person_is_not_orphaned(scene: Scene) -> None:
    message, now = await scene.message(), datetime.now(UTC)
    await scene.desk.change("conversation", message, lambda it: it.answering(now, message=message))
    await scene.desk.change("conversation", message, lambda it: it.hold(now, message=message, calls=[new_id()]))
    await scene.forgotten_by("answer")
    assert await scene.swept() == []


async def run_of(scene: Scene, *decisions: Any) -> str:
    """A run on which this was decided."""
    id, metadata = new_id(), Metadata(new_id(), scene.desk.tenant, new_id())
    run = Run.begin(Run.Started, id, datetime.now(UTC), **STARTED)
    await scene.desk.repository.change(Run, id, metadata, lambda known: known or run, new=True)
    for decision in decisions:
        await scene.desk.change("run", id, decision)
    return id


async def test_the_time_of_a_form_ends_also_while_a_worker_owns_its_run(scene: Scene) -> None:
    now = datetime.now(UTC)
    late, later = (
        {"key": key, "node": "ask", "until": (now + timedelta(days=days)).isoformat(), "content": "", "inputs": []}
        for key, days in (("late", -1), ("later", 1))
    )
    forms: Any = [{**each, "actions": []} for each in (late, later)]
    id = await run_of(
        scene, lambda run: run.take(now, by="first"), lambda run: run.step(now, steps=[], values=[], forms=forms)
    )
    await scene.caught_up()
    assert await scene.swept() == [("expired_form", "late")]
    assert (await scene.desk.types("run", id))[-1] == "run.timed_out.v1"
    await scene.caught_up()
    assert await scene.swept() == []


async def test_a_run_without_a_worker_is_gone_on_with_and_one_that_is_paused_is_not(scene: Scene) -> None:
    now = datetime.now(UTC)
    lost = await run_of(scene, lambda run: run.take(now, by="first"))
    await run_of(
        scene, lambda run: run.take(now, by="first"), lambda run: run.step(now, steps=[], values=[], paused=True)
    )
    await scene.forgotten_by("run")
    await scene.caught_up()
    assert await scene.swept() == [("run", lost)]
    assert (await scene.desk.types("run", lost))[-2:] == ["run.finished.v1", "run.retried.v1"]


async def test_a_request_whose_run_has_ended_is_lost(scene: Scene) -> None:
    now, id = datetime.now(UTC), new_id()
    run = await run_of(scene, lambda run: run.fail(now, code="timeout", reason="Silence."))
    effect = Effect.begin(Effect.Requested, id, now, **{**REQUESTED, "cause_id": run})
    metadata = Metadata(new_id(), scene.desk.tenant, new_id())
    await scene.desk.repository.change(Effect, id, metadata, lambda known: known or effect, new=True)
    for consumer in callers("run"):
        await scene.forgotten_by(consumer)
    await scene.caught_up()
    assert await scene.swept() == [("effect", id)]
    [*_, lost] = await scene.desk.events("effect", id)
    assert (lost.TOPIC, lost.code) == ("effect.failed.v1", "lost")  # type: ignore[attr-defined]
