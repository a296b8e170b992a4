"""Counters of limits, in streams that add up: one message is one addition, and its acknowledgement has the sum."""

from __future__ import annotations

import asyncio

import nats.errors
from nats.aio.client import Client

from handlers.ports.counters import Counter
from handlers.ports.log import Unavailable

_Addition = tuple[int, asyncio.Future[int]]


class JetStreamCounters:
    """Additions to a counter that come while one is on its way are sent together, as one message."""

    def __init__(self, nc: Client, *, timeout_s: float = 5.0) -> None:
        self._js = nc.jetstream(timeout=timeout_s)
        self._additions: dict[Counter, list[_Addition]] = {}
        self._sending: set[asyncio.Task[None]] = set()

    async def add(self, counter: Counter, amount: int) -> int:
        sum_: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if counter in self._additions:
            self._additions[counter].append((amount, sum_))
        else:
            self._additions[counter] = [(amount, sum_)]
            task = asyncio.create_task(self._send(counter))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        return await sum_

    async def _send(self, counter: Counter) -> None:
        """Send what there is to add, until there is nothing more."""
        while additions := self._additions[counter]:
            self._additions[counter] = []
            try:
                after = await self._publish(counter, sum(amount for amount, _ in additions))
            except Exception as error:
                for _, sum_ in additions:
                    if not sum_.done():
                        sum_.set_exception(error)
            else:
                for amount, sum_ in reversed(additions):
                    if not sum_.done():
                        sum_.set_result(after)
                    after -= amount
        del self._additions[counter]

    async def _publish(self, counter: Counter, amount: int) -> int:
        """The counter after the addition. Raises: Unavailable."""
        subject = f"count.{counter.period}.{counter.tenant}.{counter.number}.{counter.name}"
        try:
            ack = await self._js.publish(subject, b"", headers={"Nats-Incr": str(amount)})
        except nats.errors.Error as error:
            raise Unavailable(f"A counter does not answer: {error!r}") from error
        if ack.val is None:
            raise Unavailable(f"{ack.stream} does not count.")
        return int(ack.val)
