"""Time to the first token of a tenant's answer, alone and while messages of other tenants wait for slow providers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from rich.progress import Progress

from adapters.jetstream.client import Client
from domain.aggregate import new_id
from ops.bench.answer import PAUSE_S, WARM, Answers
from ops.bench.measure import Aim, Measure, percentile
from ops.bench.rebuild import caught_up
from ops.bench.stack import Sizes, Stack

BACKLOGS = (64, 1000)
"""Messages of one other tenant that wait, before the largest number."""

EACH = 10
"""Messages of each of many tenants."""

AT_ONCE = 50
"""Commands that are sent at a time."""

DRIP_S = 5.0
"""Time between two tokens of the slow provider, in seconds: it holds its slots, and is not cut off."""

PATIENCE_S = 600.0

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
TOKEN = b'data: {"id": "slow", "choices": [{"index": 0, "delta": {"content": "slow "}}]}\n\n'


async def measure(stack: Stack, sizes: Sizes, bars: Progress) -> list[Measure]:
    app = await stack.make("app.create", {"name": "Alone"})
    await stack.make("app.configure", {"app": app})
    answers = Answers(stack.client)
    await answers.subscribe()
    for _ in range(WARM):
        await answers.milliseconds(app, "Well?")
    tenants = max(1, sizes.waiting // 100)
    backlogs = [number for number in BACKLOGS if number < sizes.waiting] + [sizes.waiting]
    bar = bars.add_task("fairness: waiting messages", total=sizes.waiting + tenants * EACH)
    alone = await _median(answers, app, sizes)
    found = [Measure("fairness.alone", alone, "ms")]
    async with _slow_provider() as address:
        sent = 0
        busy = await Busy.tenant(stack, "busy", address)
        await busy.allow(2 * sizes.waiting)
        for waiting in backlogs:
            await busy.send(waiting - sent)
            bars.advance(bar, waiting - sent)
            sent = waiting
            await caught_up(stack)
            found.append(_compared(f"fairness.{waiting}", await _median(answers, app, sizes), alone))
        many = await _many(stack, tenants, address)
        for first in range(0, tenants, AT_ONCE):
            await asyncio.gather(*(each.send(EACH) for each in many[first : first + AT_ONCE]))
            bars.advance(bar, EACH * len(many[first : first + AT_ONCE]))
        await caught_up(stack)
        found.append(_compared(f"fairness.{tenants}x{EACH}", await _median(answers, app, sizes), alone))
    return found


def _compared(name: str, figure: float, alone: float) -> Measure:
    return Measure(name, figure, "ms", alone, Aim(ratio_at_most=1.3))


async def _median(answers: Answers, app: str, sizes: Sizes) -> float:
    times = []
    for _ in range(min(50, sizes.questions)):
        await asyncio.sleep(PAUSE_S)
        times.append(await answers.milliseconds(app, "Well?"))
    return percentile(times, 50)


class Busy:
    """A tenant whose messages wait for a slow provider."""

    def __init__(self, client: Client, app: str) -> None:
        self._client = client
        self._app = app

    @classmethod
    async def tenant(cls, stack: Stack, name: str, address: str) -> Busy:
        client = Client(stack.client.connection, name)
        app = new_id()
        settings = {"provider": "slow", "name": "any"}
        for command, payload, id in (
            ("provider.register", {"name": "slow", "base_url": address, "key": "", "check": False}, new_id()),
            ("app.create", {"name": "Busy"}, app),
            ("app.configure", {"app": app, "model": settings}, new_id()),
        ):
            outcome = await client.send(command, payload, id, wait=PATIENCE_S)
            if outcome["status"] != "accepted":
                raise RuntimeError(f"{command} was rejected: {outcome['message']}")
        return cls(client, app)

    async def allow(self, waiting: int) -> None:
        """Raise the limit of the tenant's waiting messages, which the default may not reach."""
        limit = {"quantity": "messages", "period": "waiting", "most": waiting}
        outcome = await self._client.send("limits.impose", limit, wait=PATIENCE_S)
        if outcome["status"] != "accepted":
            raise RuntimeError(f"limits.impose was rejected: {outcome['message']}")

    async def send(self, count: int) -> None:
        """Send messages, and wait until they are accepted."""
        left = iter(range(count))

        async def one_after_another() -> None:
            for _ in left:
                outcome = await self._client.send("message.send", {"app": self._app, "query": "Well?"}, wait=PATIENCE_S)
                if outcome["status"] != "accepted":
                    raise RuntimeError(f"message.send was rejected: {outcome['message']}")

        await asyncio.gather(*(one_after_another() for _ in range(min(AT_ONCE, count))))


async def _many(stack: Stack, count: int, address: str) -> Sequence[Busy]:
    found: list[Busy] = []
    for first in range(0, count, AT_ONCE):
        names = [f"busy{number}" for number in range(first, min(first + AT_ONCE, count))]
        found += await asyncio.gather(*(Busy.tenant(stack, name, address) for name in names))
    return found


@asynccontextmanager
async def _slow_provider() -> AsyncIterator[str]:
    """The address of a server that sends a token now and then, and never ends its answer."""

    over, dripping = asyncio.Event(), set[asyncio.Task[None] | None]()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dripping.add(asyncio.current_task())
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(HEAD)
            while not over.is_set():
                writer.write(TOKEN)
                await writer.drain()
                with suppress(TimeoutError):
                    async with asyncio.timeout(DRIP_S):
                        await over.wait()
        writer.close()
        dripping.discard(asyncio.current_task())

    server = await asyncio.start_server(drip, "127.0.0.1", 0, backlog=1000)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()
        over.set()
        while dripping:
            await asyncio.sleep(0.01)
