from __future__ import annotations

import asyncio
from functools import partial

from nats.aio.client import Client
from nats.aio.msg import Msg

from adapters.jetstream.workers.consumer import Counts, Past, subscribe
from domain.log import EVENTS
from tests.adapters.jetstream.conftest import Running
from tests.adapters.jetstream.workers.test_consumer import SUBJECT, never, settled

DOCUMENT = "evt.default.document.one"


class Slow:
    """Works as long as it is not let go, and says what was begun and what was brought to its end."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.ended = 0

    async def __call__(self, message: Msg) -> None:
        self.begun.set()
        await self.go.wait()
        self.ended += 1


async def test_an_answer_in_hand_comes_to_its_end(fresh: Client, running: Running) -> None:
    slow = Slow()
    await fresh.jetstream().publish(SUBJECT, b"")
    consumers = await running(
        partial(subscribe, name="answer", handle=slow, slots=4, share=4, give_up=never, finishes=True)
    )
    await slow.begun.wait()
    leaving = asyncio.create_task(consumers.drain(10))
    await asyncio.sleep(0)
    slow.go.set()
    await leaving
    assert slow.ended == 1
    assert (await settled(fresh)).num_redelivered == 0


async def test_what_outlasts_the_grace_goes_to_another_at_once(fresh: Client, running: Running) -> None:
    slow, deliveries = Slow(), list[Msg]()

    async def handle(message: Msg) -> None:
        deliveries.append(message)

    await fresh.jetstream().publish(SUBJECT, b"")
    consumers = await running(
        partial(subscribe, name="answer", handle=slow, slots=4, share=4, give_up=never, finishes=True)
    )
    await slow.begun.wait()
    await running(partial(subscribe, name="answer", handle=handle, slots=4, share=4, give_up=never, finishes=True))
    async with asyncio.timeout(5):
        await consumers.drain(0.05)
        await settled(fresh)
    assert slow.ended == 0
    assert [message.metadata.num_delivered for message in deliveries] == [2]
    assert (await Counts("answer").of(deliveries[0])) == Past(begun=1), "the second worker, which ended it"


async def test_a_document_goes_on_elsewhere_from_its_last_step(fresh: Client, running: Running) -> None:
    slow, other = Slow(), Slow()
    other.go.set()
    await fresh.jetstream().publish(DOCUMENT, b"")
    consumers = await running(partial(subscribe, name="ingest", handle=slow, slots=4, share=4, give_up=never))
    await slow.begun.wait()
    async with asyncio.timeout(5):
        await consumers.drain(60)
        await running(partial(subscribe, name="ingest", handle=other, slots=4, share=4, give_up=never))
        await settled(fresh, "ingest")
    assert (slow.ended, other.ended) == (0, 1)


async def test_who_leaves_takes_nothing_more(fresh: Client, running: Running) -> None:
    seen: list[Msg] = []

    async def handle(message: Msg) -> None:
        seen.append(message)

    consumers = await running(
        partial(subscribe, name="answer", handle=handle, slots=4, share=4, give_up=never, finishes=True)
    )
    await consumers.drain(1)
    for _ in range(20):
        await fresh.jetstream().publish(SUBJECT, b"")
    await fresh.flush()
    info = await fresh.jetstream().consumer_info(EVENTS, "answer")
    assert seen == []
    assert (info.num_pending, info.num_ack_pending) == (20, 0)


async def test_messages_that_wait_go_to_another_at_once(fresh: Client, running: Running) -> None:
    """Only those whose turn has come may finish."""
    slow, other = Slow(), Slow()
    other.go.set()
    for _ in range(10):
        await fresh.jetstream().publish(SUBJECT, b"")
    consumers = await running(
        partial(subscribe, name="answer", handle=slow, slots=2, share=1, give_up=never, finishes=True)
    )
    await slow.begun.wait()
    leaving = asyncio.create_task(consumers.drain(10))
    await running(partial(subscribe, name="answer", handle=other, slots=4, share=3, give_up=never))
    async with asyncio.timeout(5):
        while other.ended < 9:
            await asyncio.sleep(0.01)
    slow.go.set()
    await leaving
    await settled(fresh)
    assert (slow.ended, other.ended) == (1, 9)
