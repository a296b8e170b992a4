"""A worker that a poisonous command kills: `python -m tests.adapters.jetstream.poisoned URL`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from adapters.jetstream import nats_py, streams
from adapters.jetstream.workers import consumer
from adapters.jetstream.workers.commands import subscribe_commands
from adapters.jetstream.workers.consumers import Consumers
from domain.log import Outcome
from handlers.dispatch import Delivery, Dispatch
from tests.handlers.desk import Desk

POISON = b"poison"
DEATHS = 5


class Mortal(Dispatch):
    async def __call__(self, delivery: Delivery) -> Outcome:
        if POISON in delivery.payload:
            os.kill(os.getpid(), signal.SIGKILL)
        return await super().__call__(delivery)


async def main(url: str) -> None:
    streams.ACK_WAIT_S, consumer.DEATHS, consumer.HEARTBEAT_S = 0.5, DEATHS, 0.1
    nc = await nats_py.connect(url)
    await streams.set_up(nc.jetstream())
    desk, consumers = Desk(nc, "acme"), Consumers(url)
    dispatch = Mortal(desk.ports, desk.outcomes)
    subscribe_commands(consumers, dispatch, desk.repository)
    await consumers.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
