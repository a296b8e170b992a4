"""Shutdown of a worker: it takes no more messages, finishes those a person waits for, and hands back the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from weakref import WeakKeyDictionary

import nats.errors
import structlog
from faststream.nats import NatsBroker
from faststream.nats.message import NatsMessage

from adapters.jetstream.nats_py import end

log = structlog.get_logger(__name__)

Take = Callable[[NatsMessage], Awaitable[None]]


class InFlight:
    """The messages that the subscribers of a broker are handling."""

    def __init__(self) -> None:
        self.draining = False
        self.finishes: dict[asyncio.Task[None], bool] = {}

    def hold(self, take: Take, hand_back: Take, *, finishes: bool) -> Take:
        """Return `take`, with messages that `drain` cancels, or that come after it, handed back.

        With `finishes`, they may finish within the grace period.
        """

        async def taken(message: NatsMessage) -> None:
            task = asyncio.current_task()
            assert task is not None
            if self.draining:
                await hand_back(message)
                return
            self.finishes[task] = finishes
            try:
                await take(message)
            except asyncio.CancelledError:
                if not self.draining:
                    raise
                task.uncancel()
                await hand_back(message)
            finally:
                del self.finishes[task]

        return taken


_in_flight: WeakKeyDictionary[NatsBroker, InFlight] = WeakKeyDictionary()


def in_flight(broker: NatsBroker) -> InFlight:
    return _in_flight.setdefault(broker, InFlight())


async def drain(broker: NatsBroker, grace_s: float) -> None:
    """Take no more messages; hand back at once what need not finish, and after `grace_s` seconds the rest."""
    held = in_flight(broker)
    held.draining = True
    with suppress(nats.errors.Error):
        await _close(broker)
    await _cancel([task for task, finishes in held.finishes.items() if not finishes])
    if held.finishes:
        log.info("draining", in_flight=len(held.finishes), grace_s=grace_s)
        await asyncio.wait(list(held.finishes), timeout=grace_s)
    await _cancel(list(held.finishes))


async def _close(broker: NatsBroker) -> None:
    """Unsubscribe, and receive what the server had sent before."""
    connections = set()
    for subscriber in broker.subscribers:
        if subscription := getattr(subscriber, "subscription", None):
            connections.add(await end(subscription))
    for connection in connections:
        await connection.flush(timeout=2)


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        log.info("handed back", messages=len(tasks))
        await asyncio.wait(tasks, timeout=5)
