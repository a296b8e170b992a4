"""How a worker leaves: it takes nothing more, brings what is near its end to it, and hands the rest to the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from weakref import WeakKeyDictionary

import nats.errors
import structlog
from faststream.nats import NatsBroker
from faststream.nats.message import NatsMessage

log = structlog.get_logger(__name__)

BROUGHT_TO_THEIR_END = ("commands", "answer")
"""Consumers whose messages in hand may end here: somebody waits. What else is done goes on from its last step."""

Take = Callable[[NatsMessage], Awaitable[None]]


class InFlight:
    """The messages that the subscribers of a broker have in hand."""

    def __init__(self) -> None:
        self.leaving = False
        self.full: dict[asyncio.Task[None], str] = {}

    def hold(self, consumer: str, take: Take, hand_back: Take) -> Take:
        """Take as `take` does; what is broken off by `drain`, or comes after it, is handed back."""

        async def taken(message: NatsMessage) -> None:
            task = asyncio.current_task()
            assert task is not None
            if self.leaving:
                await hand_back(message)
                return
            self.full[task] = consumer
            try:
                await take(message)
            except asyncio.CancelledError:
                if not self.leaving:
                    raise
                task.uncancel()
                await hand_back(message)
            finally:
                del self.full[task]

        return taken


_in_flight: WeakKeyDictionary[NatsBroker, InFlight] = WeakKeyDictionary()


def in_flight(broker: NatsBroker) -> InFlight:
    return _in_flight.setdefault(broker, InFlight())


async def drain(broker: NatsBroker, grace_s: float) -> None:
    """Take nothing more; hand back at once what others can go on with, and after `grace_s` what is left."""
    held = in_flight(broker)
    held.leaving = True
    with suppress(nats.errors.Error):
        await _close(broker)
    await _break_off([task for task, name in held.full.items() if name not in BROUGHT_TO_THEIR_END])
    if held.full:
        log.info("leaving", in_hand=len(held.full), grace_s=grace_s)
        await asyncio.wait(list(held.full), timeout=grace_s)
    await _break_off(list(held.full))


async def _close(broker: NatsBroker) -> None:
    """Have the server send nothing more, and receive what it had sent by then."""
    connections = set()
    for subscriber in broker.subscribers:
        if subscription := getattr(subscriber, "subscription", None):
            connections.add(connection := subscription._nc)
            await connection._send_unsubscribe(subscription._sub._id)
    for connection in connections:
        await connection.flush(timeout=2)


async def _break_off(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        log.info("handed back", messages=len(tasks))
        await asyncio.wait(tasks, timeout=5)
