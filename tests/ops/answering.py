"""A worker that gives every command the outcome which the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import nats
import orjson
from nats.aio.client import Client as Connection
from nats.aio.msg import Msg


class Worker:
    """Takes commands off the queue and answers each as the test says, once."""

    def __init__(self, connection: Connection, says: dict[str, Any]) -> None:
        self.connection = connection
        self.stream = connection.jetstream()
        self.says = says
        self.seen: list[tuple[str, dict[str, Any]]] = []

    async def take(self, message: Msg) -> None:
        id = (message.headers or {})["Headrace-Id"]
        self.seen.append((message.subject, orjson.loads(message.data)))
        outcome = {"command": id, "status": "accepted", "sequence": 0, "ids": {}, "message": None, **self.says}
        tenant = message.subject.split(".")[1]
        await self.stream.publish(
            f"out.{tenant}.{id}", orjson.dumps(outcome), headers={"Nats-Msg-Id": f"{tenant} {id}"}
        )
        await message.ack()


@asynccontextmanager
async def worker(url: str, **says: Any) -> AsyncIterator[Worker]:
    connection = await nats.connect(url)
    running = Worker(connection, says)
    await running.stream.purge_stream("COMMANDS")  # what an earlier test left unanswered
    subscription = await running.stream.pull_subscribe_bind("commands", "COMMANDS")

    async def work() -> None:
        while True:
            try:
                for message in await subscription.fetch(10, timeout=0.5):
                    await running.take(message)
            except nats.errors.TimeoutError:
                continue

    task = asyncio.create_task(work())
    try:
        yield running
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await connection.close()
