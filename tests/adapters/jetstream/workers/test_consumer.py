from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ConsumerInfo, RawStreamMsg
from structlog.testing import capture_logs

from adapters.jetstream import streams
from adapters.jetstream.nats_py import Raw
from adapters.jetstream.streams import DEAD, FAILURES, set_up
from adapters.jetstream.workers import consumer, overflow, pull
from adapters.jetstream.workers.consumer import SUSPECT, Counts, Past, done, subscribe
from domain.log import EVENTS, Position
from handlers.ports.log import Unavailable
from handlers.work.dead_letters import Failure
from handlers.work.work import TRIES
from tests.adapters.jetstream.conftest import Running

SUBJECT = "evt.default.conversation.one"


async def settled(nc: Client, name: str = "answer") -> ConsumerInfo:
    """The consumer, once nothing waits and nothing is out."""
    async with asyncio.timeout(15):
        while True:
            info = await nc.jetstream().consumer_info(EVENTS, name)
            if not (info.num_pending or info.num_ack_pending):
                return info
            await asyncio.sleep(0.01)


async def dead(nc: Client) -> list[RawStreamMsg]:
    last = (await nc.jetstream().stream_info(DEAD)).state.last_seq
    return [await nc.jetstream().get_msg(DEAD, sequence, direct=True) for sequence in range(1, last + 1)]


class Failing:
    """Fails `times` times, each time in the same way, and then no more."""

    def __init__(self, times: int, error: Exception) -> None:
        self.times = times
        self.error = error
        self.deliveries: list[int] = []

    async def __call__(self, message: Msg) -> None:
        self.deliveries.append(message.metadata.num_delivered)
        if len(self.deliveries) <= self.times:
            raise self.error


class AtOnce:
    """Counts how many messages it has in hand, and how many those were at most."""

    def __init__(self) -> None:
        self.now = self.most = 0

    async def __call__(self, message: Msg) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.01)
        self.now -= 1


class Grave:
    """Remembers who was buried in it."""

    def __init__(self) -> None:
        self.deaths: list[Failure] = []

    async def __call__(self, message: Msg, death: Failure) -> None:
        self.deaths.append(death)


async def never(message: Msg, death: Failure) -> None:
    raise AssertionError(f"{message.subject} was buried: {death}")


async def test_every_message_is_handled_and_acknowledged(fresh: Client, running: Running) -> None:
    seen: list[bytes] = []

    async def handle(message: Msg) -> None:
        seen.append(message.data)

    for number in range(20):
        await fresh.jetstream().publish(SUBJECT, b"%d" % number)
    await running(partial(subscribe, name="answer", handle=handle, slots=4, share=4, give_up=never))
    info = await settled(fresh)
    assert sorted(seen, key=int) == [b"%d" % number for number in range(20)]
    assert info.num_redelivered == 0


async def test_what_may_hold_words_fails_without_them_in_the_logs(fresh: Client, running: Running) -> None:
    grave, handle = Grave(), Failing(2 * TRIES, ValueError("Wumpelfisch"))
    with capture_logs() as logs:
        for headers in (None, {"Headrace-Person": "someone"}):
            await fresh.jetstream().publish(SUBJECT, b"", headers=headers)
        await running(partial(subscribe, name="answer", handle=handle, slots=1, share=1, give_up=grave))
        await settled(fresh)
    assert [death.reason for death in grave.deaths] == ["ValueError: Wumpelfisch"] * 2
    failed = [entry for entry in logs if entry["event"] == "failed"]
    plain, hers = ([entry for entry in failed if ("exc_info" in entry) is plain] for plain in (True, False))
    assert len(plain) == len(hers) == TRIES
    assert {entry["error"] for entry in hers} == {"ValueError"}
    assert all(entry["stack"][-1].startswith("test_consumer.py:__call__:") for entry in hers)
    assert sorted(entry["reason"] for entry in logs if entry["event"] == "given up") == [
        "ValueError",
        "ValueError: Wumpelfisch",
    ]


async def test_only_the_subjects_of_the_consumer_come(fresh: Client, running: Running) -> None:
    seen: list[str] = []

    async def handle(message: Msg) -> None:
        seen.append(message.subject)

    await fresh.jetstream().publish("evt.default.document.one", b"")
    await fresh.jetstream().publish(SUBJECT, b"")
    await running(partial(subscribe, name="answer", handle=handle, slots=4, share=4, give_up=never))
    await settled(fresh)
    assert seen == [SUBJECT]


async def test_no_more_than_the_workers_at_a_time(fresh: Client, running: Running) -> None:
    handle = AtOnce()
    for _ in range(20):
        await fresh.jetstream().publish(SUBJECT, b"")
    await running(partial(subscribe, name="answer", handle=handle, slots=3, share=3, give_up=never))
    await settled(fresh)
    assert handle.most == 3


async def busy(nc: Client, count: int, tenant: str = "busy") -> None:
    """Messages of a tenant."""
    await asyncio.gather(
        *(nc.jetstream().publish(f"evt.{tenant}.conversation.{number}", b"") for number in range(count))
    )


class Slowly:
    """Handles messages of the tenant `busy` until it is let go, and those of others at once."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.begun: list[str] = []
        self.seen = asyncio.Event()

    async def __call__(self, message: Msg) -> None:
        _, tenant, _ = message.subject.split(".", 2)
        self.begun.append(tenant)
        if tenant == "busy":
            await self.go.wait()
        else:
            self.seen.set()


async def test_a_tenant_does_not_wait_behind_another(
    monkeypatch: pytest.MonkeyPatch, fresh: Client, running: Running
) -> None:
    """Neither for its slots, nor for what it has waiting; and nothing of that is written down."""
    monkeypatch.setattr(consumer, "QUEUED", 16)
    monkeypatch.setattr(overflow, "SHORTEST_S", 0.05)
    monkeypatch.setattr(overflow, "FAR_S", 0.3)
    handle, js = Slowly(), fresh.jetstream()
    await busy(fresh, 300)
    await running(partial(subscribe, name="answer", handle=handle, slots=8, share=4, give_up=never))
    async with asyncio.timeout(5):
        while len(handle.begun) < 4 or (await js.consumer_info(EVENTS, "answer")).num_redelivered < 200:
            await asyncio.sleep(0.01)
    await js.publish(SUBJECT, b"")
    async with asyncio.timeout(3):
        await handle.seen.wait()
    assert Counter(handle.begun) == {"busy": 4, "default": 1}
    assert (await js.stream_info(f"KV_{FAILURES}")).state.last_seq == 0
    handle.go.set()
    await settled(fresh)
    assert Counter(handle.begun) == {"busy": 300, "default": 1}
    assert (await js.stream_info(f"KV_{FAILURES}")).state.last_seq == 0, "this worker knows that it passed them on"


async def test_what_another_worker_passed_on_is_not_suspect(
    monkeypatch: pytest.MonkeyPatch, fresh: Client, running: Running
) -> None:
    """However often: it has not begun."""
    monkeypatch.setattr(consumer, "QUEUED", 4)
    monkeypatch.setattr(consumer, "DEATHS", SUSPECT)
    monkeypatch.setattr(overflow, "SHORTEST_S", 0.02)
    monkeypatch.setattr(overflow, "FAR_S", 0.02)
    full, handle, js = Slowly(), Slowly(), fresh.jetstream()
    handle.go.set()
    await busy(fresh, 40)
    consumers = await running(partial(subscribe, name="answer", handle=full, slots=1, share=1, give_up=never))
    async with asyncio.timeout(5):
        while (await js.consumer_info(EVENTS, "answer")).delivered.consumer_seq < 40 * 8:
            await asyncio.sleep(0.01)
    await consumers.stop()
    await running(partial(subscribe, name="answer", handle=handle, slots=4, share=3, give_up=never))
    await settled(fresh)
    assert len(handle.begun) == 40


async def test_messages_that_wait_stay_with_the_worker(
    monkeypatch: pytest.MonkeyPatch, fresh: Client, running: Running
) -> None:
    """They wait three times as long as a message may be out without a sign of life."""
    monkeypatch.setattr(streams, "ACK_WAIT_S", 0.6)
    monkeypatch.setattr(consumer, "HEARTBEAT_S", 0.2)
    await fresh.jetstream().add_consumer(EVENTS, streams.consumer_config("answer"))
    handle = Slowly()
    await busy(fresh, 20)
    await running(partial(subscribe, name="answer", handle=handle, slots=2, share=1, give_up=never))
    await asyncio.sleep(1.8)
    handle.go.set()
    assert (await settled(fresh)).delivered.consumer_seq == 20


async def test_a_message_waits_for_a_server_that_is_away(fresh: Client, running: Running) -> None:
    """However often it is in vain."""
    handle = Failing(TRIES + 3, Unavailable("PostgreSQL is away."))
    await fresh.jetstream().publish(SUBJECT, b"")
    await running(partial(subscribe, name="answer", handle=handle, slots=4, share=4, give_up=never))
    await settled(fresh)
    assert handle.deliveries == list(range(1, TRIES + 5))
    assert await dead(fresh) == []


async def test_a_failure_that_passes_is_no_failure(fresh: Client, running: Running) -> None:
    handle = Failing(TRIES - 1, ValueError("odd"))
    await fresh.jetstream().publish(SUBJECT, b"")
    await running(partial(subscribe, name="answer", handle=handle, slots=4, share=4, give_up=never))
    await settled(fresh)
    assert len(handle.deliveries) == TRIES
    assert await dead(fresh) == []


async def test_what_keeps_failing_is_buried(fresh: Client, running: Running) -> None:
    handle, grave = Failing(1000, ValueError("odd")), Grave()
    await fresh.jetstream().publish("evt.default.conversation.other", b"before")
    ack = await fresh.jetstream().publish(SUBJECT, b'[{"type": 1}]')

    async def only_one(message: Msg) -> None:
        if message.subject == SUBJECT:
            await handle(message)

    await running(partial(subscribe, name="answer", handle=only_one, slots=4, share=4, give_up=grave))
    await settled(fresh)
    assert handle.deliveries == list(range(1, TRIES + 1))
    [death] = grave.deaths
    assert (death.consumer, death.position, death.subject) == ("answer", Position(EVENTS, ack.seq), SUBJECT)
    assert (death.reason, death.failures, death.deaths) == ("ValueError: odd", TRIES, 0)
    assert death.where.startswith("test_consumer.py:__call__:")
    assert len(death.stack) == 16


async def test_equal_failures_have_equal_digests_and_others_have_not(fresh: Client, running: Running) -> None:
    grave = Grave()

    async def fail(message: Msg) -> None:
        if message.data == b"odd":
            raise ValueError(message.subject)
        raise KeyError(message.subject)

    for data in (b"odd", b"even", b"odd"):
        await fresh.jetstream().publish(SUBJECT, data)
    await running(partial(subscribe, name="answer", handle=fail, slots=4, share=4, give_up=grave))
    await settled(fresh)
    one, other, again = (death.stack for death in sorted(grave.deaths, key=lambda death: death.position))
    assert one == again != other


async def test_a_burial_that_fails_is_tried_again(fresh: Client, running: Running) -> None:
    """The message is not acknowledged before everyone knows."""
    buried = Failing(1, Unavailable("NATS is away."))

    async def bury(message: Msg, death: Failure) -> None:
        await buried(message)

    await fresh.jetstream().publish(SUBJECT, b"")
    await running(
        partial(subscribe, name="answer", handle=Failing(1000, ValueError("odd")), slots=4, share=4, give_up=bury)
    )
    await settled(fresh)
    assert buried.deliveries == [TRIES, TRIES + 1]


async def test_failures_are_counted_across_workers(fresh: Client, running: Running) -> None:
    """Each of two workers fails, and neither reaches the limit by itself."""
    first, second, grave = Failing(1000, ValueError("odd")), Failing(1000, ValueError("odd")), Grave()
    await fresh.jetstream().publish(SUBJECT, b"")
    consumers = await running(partial(subscribe, name="answer", handle=first, slots=1, share=1, give_up=grave))
    async with asyncio.timeout(10):
        while len(first.deliveries) < 2:
            await asyncio.sleep(0.001)
    await consumers.stop()
    await running(partial(subscribe, name="answer", handle=second, slots=1, share=1, give_up=grave))
    await settled(fresh)
    assert len(first.deliveries) + len(second.deliveries) >= TRIES
    assert len(second.deliveries) < TRIES
    [death] = grave.deaths
    assert death.failures == TRIES


async def test_nothing_is_written_down_of_what_succeeds_at_once(fresh: Client, running: Running) -> None:
    handle = Failing(0, ValueError())
    for _ in range(20):
        await fresh.jetstream().publish(SUBJECT, b"")
    await running(partial(subscribe, name="answer", handle=handle, slots=4, share=4, give_up=never))
    await settled(fresh)
    assert (await fresh.jetstream().stream_info(f"KV_{FAILURES}")).state.last_seq == 0


async def test_suspects_are_handled_one_at_a_time(fresh: Client, running: Running) -> None:
    """Three messages that were in hand when workers died, whichever of them it was."""
    handle = AtOnce()
    for _ in range(3):
        await fresh.jetstream().publish(SUBJECT, b"")
    await taken_and_dropped(fresh, 3, SUSPECT + 1)
    await running(partial(subscribe, name="answer", handle=handle, slots=4, share=4, give_up=never))
    await settled(fresh)
    assert handle.most == 1


async def taken_and_dropped(nc: Client, count: int, times: int) -> None:
    """Take messages off the stream `times` times, as workers do that then die."""
    js = nc.jetstream()
    await js.add_consumer(EVENTS, streams.consumer_config("answer"), ack_wait=0.1)
    lost = await js.pull_subscribe_bind("answer", EVENTS)
    for _ in range(times):
        taken = list[Msg]()
        while len(taken) < count:
            taken += await lost.fetch(count - len(taken), timeout=5)
    for message in taken:
        await Counts("answer").put(message, Past(begun=times))
    await js.add_consumer(EVENTS, streams.consumer_config("answer"), ack_wait=0.5)


async def test_what_was_in_hand_when_workers_died_too_often_is_buried(
    monkeypatch: pytest.MonkeyPatch, fresh: Client, running: Running
) -> None:
    """No worker ever touches it again."""
    monkeypatch.setattr(consumer, "DEATHS", SUSPECT)
    await fresh.jetstream().publish(SUBJECT, b"")
    await taken_and_dropped(fresh, 1, SUSPECT)
    handle, grave = Failing(0, ValueError()), Grave()
    await running(partial(subscribe, name="answer", handle=handle, slots=4, share=4, give_up=grave))
    await settled(fresh)
    assert handle.deliveries == []
    [death] = grave.deaths
    assert death.reason == f"{SUSPECT} workers died while they handled it."
    assert (death.where, death.stack, death.failures, death.deaths) == ("", "", 0, SUSPECT)


async def test_what_kills_is_not_touched_again_when_its_burial_fails(
    monkeypatch: pytest.MonkeyPatch, fresh: Client, running: Running
) -> None:
    monkeypatch.setattr(consumer, "DEATHS", SUSPECT)
    await fresh.jetstream().publish(SUBJECT, b"")
    await taken_and_dropped(fresh, 1, SUSPECT)
    handle, buried = Failing(0, ValueError()), Failing(3, Unavailable("NATS is away."))

    async def bury(message: Msg, death: Failure) -> None:
        await buried(message)

    await running(partial(subscribe, name="answer", handle=handle, slots=4, share=4, give_up=bury))
    await settled(fresh)
    assert handle.deliveries == []
    assert len(buried.deliveries) == 4


async def test_a_suspect_that_is_given_back_has_not_killed(
    monkeypatch: pytest.MonkeyPatch, fresh: Client, running: Running
) -> None:
    monkeypatch.setattr(consumer, "DEATHS", SUSPECT + 2)
    await fresh.jetstream().publish(SUBJECT, b"")
    await taken_and_dropped(fresh, 1, SUSPECT)
    handle = Failing(5, Unavailable("away"))
    await running(partial(subscribe, name="answer", handle=handle, slots=4, share=4, give_up=never))
    await settled(fresh)
    assert len(handle.deliveries) == 6


async def test_what_takes_too_long_goes_to_another(
    monkeypatch: pytest.MonkeyPatch, fresh: Client, running: Running
) -> None:
    """However often: it may be long work, which goes on from step to step."""
    monkeypatch.setattr(consumer, "LONGEST_S", 0.02)
    deliveries: list[int] = []

    async def hang(message: Msg) -> None:
        deliveries.append(message.metadata.num_delivered)
        if len(deliveries) <= TRIES:
            await asyncio.Event().wait()

    await fresh.jetstream().publish(SUBJECT, b"")
    await running(partial(subscribe, name="answer", handle=hang, slots=4, share=4, give_up=never))
    await settled(fresh)
    assert deliveries == list(range(1, TRIES + 2))


async def test_what_was_given_back_is_no_death(
    monkeypatch: pytest.MonkeyPatch, fresh: Client, running: Running
) -> None:
    monkeypatch.setattr(consumer, "DEATHS", SUSPECT)
    handle = Failing(SUSPECT + 3, Unavailable("away"))
    await fresh.jetstream().publish(SUBJECT, b"")
    await running(partial(subscribe, name="answer", handle=handle, slots=4, share=4, give_up=never))
    await settled(fresh)
    assert len(handle.deliveries) == SUSPECT + 4


async def test_a_message_that_comes_while_it_is_in_hand_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, fresh: Client, running: Running
) -> None:
    """The server gave it away because it heard no heartbeat, and its handler lives."""
    js, finish, deliveries = fresh.jetstream(), asyncio.Event(), []

    async def handle(message: Msg) -> None:
        deliveries.append(message)
        await finish.wait()

    await js.add_consumer(EVENTS, streams.consumer_config("answer"), ack_wait=0.1)
    await js.publish(SUBJECT, b"")
    await running(partial(subscribe, name="answer", handle=handle, slots=2, share=2, give_up=never))
    async with asyncio.timeout(10):
        while (await js.consumer_info(EVENTS, "answer")).delivered.consumer_seq < 3:
            await asyncio.sleep(0.01)
    finish.set()
    await settled(fresh)
    assert len(deliveries) == 1
    assert (await Counts("answer").of(deliveries[0])) == Past()


async def test_consumers_of_an_older_version_are_brought_up_to_date(fresh: Client) -> None:
    js = fresh.jetstream()
    await js.delete_consumer(EVENTS, "answer")
    old = streams.consumer_config("answer")
    old.filter_subjects, old.filter_subject, old.ack_wait = None, "evt.*.conversation.*", 30.0
    await js.add_consumer(EVENTS, old)
    await js.publish(SUBJECT, b"")
    [message] = await (await js.pull_subscribe_bind("answer", EVENTS)).fetch(1)
    await message.ack_sync()
    await asyncio.gather(*(set_up(js) for _ in range(3)))
    info = await js.consumer_info(EVENTS, "answer")
    assert (info.config.ack_wait, info.config.filter_subjects) == (
        streams.ACK_WAIT_S,
        ["evt.*.conversation.*", streams.LETTERS],
    )
    assert info.ack_floor
    assert info.ack_floor.stream_seq == 1


async def test_what_a_consumer_is_done_with(fresh: Client, running: Running) -> None:
    """Up to what it has in hand, or all there is."""
    js, finish, begun = fresh.jetstream(), asyncio.Event(), asyncio.Event()

    async def handle(message: Msg) -> None:
        if message.data == b"slow":
            begun.set()
            await finish.wait()

    for data in (b"", b"slow", b""):
        await js.publish(SUBJECT, data)
    await js.publish("evt.default.app.one", b"")
    assert (await done(fresh))["answer"] == 0
    await running(partial(subscribe, name="answer", handle=handle, slots=4, share=4, give_up=never))
    await begun.wait()
    async with asyncio.timeout(10):
        while (await done(fresh))["answer"] != 1:
            await asyncio.sleep(0.01)
    finish.set()
    await settled(fresh)
    assert (await done(fresh))["answer"] == 4


async def test_long_work_is_not_given_to_another(
    monkeypatch: pytest.MonkeyPatch,
    fresh: Client,
    running: Running,
) -> None:
    """It takes three times as long as a message may be out without a sign of life."""
    monkeypatch.setattr(streams, "ACK_WAIT_S", 0.6)
    monkeypatch.setattr(consumer, "HEARTBEAT_S", 0.2)
    await fresh.jetstream().delete_consumer(EVENTS, "answer")
    await fresh.jetstream().add_consumer(EVENTS, streams.consumer_config("answer"))
    deliveries: list[int] = []

    async def handle(message: Msg) -> None:
        deliveries.append(message.metadata.num_delivered)
        await asyncio.sleep(1.8)

    await fresh.jetstream().publish(SUBJECT, b"")
    for _ in range(2):
        await running(partial(subscribe, name="answer", handle=handle, slots=2, share=2, give_up=never))
    await settled(fresh)
    assert deliveries == [1]


async def test_what_a_worker_leaves_undone_goes_to_another(
    monkeypatch: pytest.MonkeyPatch, fresh: Client, running: Running
) -> None:
    """The first takes the message off the stream and is never heard of again."""
    monkeypatch.setattr(streams, "ACK_WAIT_S", 0.3)
    await fresh.jetstream().delete_consumer(EVENTS, "answer")
    await fresh.jetstream().add_consumer(EVENTS, streams.consumer_config("answer"))
    await fresh.jetstream().publish(SUBJECT, b"")
    lost = await fresh.jetstream().pull_subscribe_bind("answer", EVENTS)
    [message] = await lost.fetch(1, timeout=2)
    assert message.metadata.num_delivered == 1
    handle = Failing(0, ValueError())
    await running(partial(subscribe, name="answer", handle=handle, slots=2, share=2, give_up=never))
    await settled(fresh)
    assert handle.deliveries == [2]


async def test_a_batch_that_is_complete_is_followed_by_the_next_at_once(
    fresh: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server ends it with the status of a refusal, after which a worker would pause."""
    monkeypatch.setattr(pull, "BATCH", 10)
    monkeypatch.setattr(pull, "PAUSE_S", 1000.0)
    for number in range(35):
        await fresh.jetstream().publish(f"evt.acme.conversation.{number}", b"[]")
    taken: list[Raw] = []
    pulling = pull.Pull(fresh, EVENTS, "answer", taken.append)
    await pulling.start()
    async with asyncio.timeout(10):
        while len(taken) < 35:
            await asyncio.sleep(0.01)
    await pulling.end()
