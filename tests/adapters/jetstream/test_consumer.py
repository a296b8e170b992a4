from __future__ import annotations

import asyncio
from functools import partial

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ConsumerInfo, RawStreamMsg

from adapters.jetstream import consumer, streams
from adapters.jetstream.consumer import TRIES, subscribe
from adapters.jetstream.streams import DEAD
from domain.log import EVENTS
from handlers.ports import Unavailable
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
    """Fails so many times, each time in the same way, and then no more."""

    def __init__(self, times: int, error: Exception) -> None:
        self.times = times
        self.error = error
        self.deliveries: list[int] = []

    async def __call__(self, message: Msg) -> None:
        self.deliveries.append(message.metadata.num_delivered)
        if len(self.deliveries) <= self.times:
            raise self.error


async def test_every_message_is_handled_and_acknowledged(fresh: Client, running: Running) -> None:
    seen: list[bytes] = []

    async def handle(message: Msg) -> None:
        seen.append(message.data)

    for number in range(20):
        await fresh.jetstream().publish(SUBJECT, b"%d" % number)
    await running(partial(subscribe, name="answer", handle=handle, workers=4))
    info = await settled(fresh)
    assert sorted(seen, key=int) == [b"%d" % number for number in range(20)]
    assert info.num_redelivered == 0


async def test_only_the_subjects_of_the_consumer_come(fresh: Client, running: Running) -> None:
    seen: list[str] = []

    async def handle(message: Msg) -> None:
        seen.append(message.subject)

    await fresh.jetstream().publish("evt.default.document.one", b"")
    await fresh.jetstream().publish(SUBJECT, b"")
    await running(partial(subscribe, name="answer", handle=handle, workers=4))
    await settled(fresh)
    assert seen == [SUBJECT]


async def test_no_more_than_the_workers_at_a_time(fresh: Client, running: Running) -> None:
    now = most = 0

    async def handle(message: Msg) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1

    for _ in range(20):
        await fresh.jetstream().publish(SUBJECT, b"")
    await running(partial(subscribe, name="answer", handle=handle, workers=3))
    await settled(fresh)
    assert most == 3


async def test_a_message_waits_for_a_server_that_is_away(fresh: Client, running: Running) -> None:
    """However often it is in vain."""
    handle = Failing(TRIES + 3, Unavailable("PostgreSQL is away."))
    await fresh.jetstream().publish(SUBJECT, b"")
    await running(partial(subscribe, name="answer", handle=handle, workers=4))
    await settled(fresh)
    assert handle.deliveries == list(range(1, TRIES + 5))
    assert await dead(fresh) == []


async def test_a_failure_that_passes_is_no_failure(fresh: Client, running: Running) -> None:
    handle = Failing(TRIES - 1, ValueError("odd"))
    await fresh.jetstream().publish(SUBJECT, b"")
    await running(partial(subscribe, name="answer", handle=handle, workers=4))
    await settled(fresh)
    assert len(handle.deliveries) == TRIES
    assert await dead(fresh) == []


async def test_what_keeps_failing_goes_to_the_dead_letters(fresh: Client, running: Running) -> None:
    handle = Failing(1000, ValueError("odd\r\nNats-Msg-Id: forged, 水门"))
    buried: list[tuple[bytes, str]] = []

    async def bury(message: Msg, error: Exception) -> None:
        buried.append((message.data, str(error)))

    headers = {"Nats-Msg-Id": "commit-1", "Headrace-Correlation": "cause-1"}
    await fresh.jetstream().publish("evt.default.conversation.other", b"before")
    ack = await fresh.jetstream().publish(SUBJECT, b'[{"type": 1}]', headers=headers)

    async def only_one(message: Msg) -> None:
        if message.subject == SUBJECT:
            await handle(message)

    await running(partial(subscribe, name="answer", handle=only_one, workers=4, bury=bury))
    await settled(fresh)
    assert handle.deliveries == list(range(1, TRIES + 1))
    [letter] = await dead(fresh)
    assert (letter.subject, letter.data) == ("dead.answer", b'[{"type": 1}]')
    told = letter.headers or {}
    assert told["Headrace-Reason"] == "ValueError: odd  Nats-Msg-Id: forged, 水门"
    assert told["Headrace-Subject"] == SUBJECT
    assert told["Headrace-Sequence"] == str(ack.seq)
    assert told["Headrace-Id"] == "commit-1"
    assert told["Headrace-Correlation"] == "cause-1"
    assert told["Headrace-Where"].startswith("__call__:")
    assert "Nats-Msg-Id" not in told
    assert [data for data, _ in buried] == [b'[{"type": 1}]']


async def test_a_burial_that_fails_is_tried_again(fresh: Client, running: Running) -> None:
    """The message is not acknowledged before everyone knows."""
    buried = Failing(1, Unavailable("NATS is away."))

    async def bury(message: Msg, error: Exception) -> None:
        await buried(message)

    await fresh.jetstream().publish(SUBJECT, b"")
    await running(partial(subscribe, name="answer", handle=Failing(1000, ValueError("odd")), workers=4, bury=bury))
    async with asyncio.timeout(10):
        while not buried.deliveries:
            await asyncio.sleep(0.01)
    info = await fresh.jetstream().consumer_info(EVENTS, "answer")
    assert len(buried.deliveries) == 1
    assert info.num_ack_pending == 1


async def test_long_work_is_not_given_to_another(
    monkeypatch: pytest.MonkeyPatch,
    fresh: Client,
    running: Running,
) -> None:
    """It takes three times as long as a message may be out without a sign of life."""
    for module in (streams, consumer):
        monkeypatch.setattr(module, "ACK_WAIT_S", 0.6)
    await fresh.jetstream().delete_consumer(EVENTS, "answer")
    await fresh.jetstream().add_consumer(EVENTS, streams.consumer_config("answer"))
    deliveries: list[int] = []

    async def handle(message: Msg) -> None:
        deliveries.append(message.metadata.num_delivered)
        await asyncio.sleep(1.8)

    await fresh.jetstream().publish(SUBJECT, b"")
    for _ in range(2):
        await running(partial(subscribe, name="answer", handle=handle, workers=2))
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
    await running(partial(subscribe, name="answer", handle=handle, workers=2))
    await settled(fresh)
    assert handle.deliveries == [2]
