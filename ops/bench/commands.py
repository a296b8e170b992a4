"""Throughput and latency of commands, compared with bare acknowledged publishes of the same bytes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Self

import orjson
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from rich.progress import Progress

from adapters.jetstream import accounts, nats_py
from adapters.jetstream.macs import Macs
from adapters.jetstream.outcomes import JetStreamOutcomes
from adapters.jetstream.streams import COMMANDS, STREAMS
from domain.access.actor import ANON, service
from domain.aggregate import new_id
from domain.log import EVENTS, Position
from ops.bench.measure import Aim, Measure, in_turns, percentile
from ops.bench.stack import Sizes, Stack
from ops.servers.embedded import EmbeddedNats

AT_ONCE = 100
BARE = "BENCH"
"""The stream of bare publishes."""

WARM = 200
PATIENCE_S = 120.0

PAYLOAD = orjson.dumps({"name": "Handbook assistant", "description": "Answers questions about the plant."})


class Outcomes:
    """Resolves the futures of commands when their outcomes arrive."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._waiting: dict[str, asyncio.Future[None]] = {}

    @classmethod
    async def ready(cls, stack: Stack) -> Self:
        """Outcomes, with a further stream for bare publishes."""
        await add_bare_stream(stack)
        outcomes = cls(stack)
        await stack.client.connection.subscribe(f"out.{stack.settings.tenant}.*", cb=outcomes._resolve)
        return outcomes

    async def _resolve(self, message: Msg) -> None:
        future = self._waiting.pop(message.subject.rpartition(".")[2], None)
        if future is None:
            return
        if b'"status":"accepted"' in message.data:
            future.set_result(None)
        else:
            future.set_exception(RuntimeError(f"rejected: {message.data.decode()}"))

    async def command(self) -> asyncio.Future[None]:
        """Publish a command. Return a future that its outcome resolves."""
        future, _ = await self.stored(self._stack.client.stream, ANON)
        return future

    async def stored(self, stream: JetStreamContext, actor: str) -> tuple[asyncio.Future[None], float]:
        """Publish a command of an actor. Return a future that its outcome resolves, and the milliseconds it took."""
        id = new_id()
        future = self._waiting[id] = asyncio.get_running_loop().create_future()
        subject = f"cmd.{self._stack.settings.tenant}.{actor}.app.create"
        began = time.perf_counter()
        await stream.publish(subject, PAYLOAD, timeout=30, headers={"Headrace-Id": id})
        return future, 1000 * (time.perf_counter() - began)


async def measure(stack: Stack, sizes: Sizes, bars: Progress) -> list[Measure]:
    outcomes = await Outcomes.ready(stack)
    bar = bars.add_task("commands", total=2 * (sizes.rounds * sizes.commands + sizes.singles))

    async def commands_per_second(number: int) -> float:
        futures: list[asyncio.Future[None]] = []

        async def one() -> None:
            futures.append(await outcomes.command())

        began = time.perf_counter()
        await at_once(one, sizes.commands)
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*futures)
        bars.advance(bar, sizes.commands)
        return sizes.commands / (time.perf_counter() - began)

    async def bare(number: int) -> float:
        bars.advance(bar, sizes.commands)
        return await publishes_per_second(stack, sizes.commands)

    await warm(outcomes, min(WARM, sizes.commands))
    throughput = await in_turns(sizes.rounds, commands_per_second, bare)
    latencies, acks = await one_by_one(stack, outcomes, sizes.singles, lambda: bars.advance(bar, 2))
    p50 = percentile(latencies, 50)
    imported, direct = await over_import(stack, outcomes, sizes.singles)
    look_up, codes = await look_ups(stack, sizes.singles), authentication(stack, sizes.singles)
    boundary = max(0.0, imported - direct) + look_up + codes
    return [
        Measure("commands", throughput[0], "commands/s", throughput[1], Aim(at_least=1000, ratio=0.10)),
        Measure("commands.p50", p50, "ms", percentile(acks, 50)),
        Measure("commands.p95", percentile(latencies, 95), "ms", percentile(acks, 95)),
        Measure("commands.import", imported, "ms", direct),
        Measure("commands.lookup", look_up, "ms", p50),
        Measure("commands.codes", codes, "ms", p50),
        Measure("commands.boundary", boundary, "ms", p50, Aim(ratio_at_most=0.15)),
    ]


async def publish(stack: Stack) -> None:
    """A bare acknowledged publish."""
    await stack.client.stream.publish("bench.raw", PAYLOAD, timeout=30)


async def warm(outcomes: Outcomes, times: int) -> None:
    for _ in range(times):
        await asyncio.wait_for(await outcomes.command(), PATIENCE_S)


async def one_by_one(
    stack: Stack, outcomes: Outcomes, times: int, advance: Callable[[], None]
) -> tuple[list[float], list[float]]:
    """Latencies in milliseconds of single commands, and of bare publishes alternating with them."""

    async def one_command() -> None:
        await warm(outcomes, 1)

    latencies: list[float] = []
    acks: list[float] = []
    for _ in range(times):
        latencies.append(await _milliseconds(one_command))
        acks.append(await _milliseconds(lambda: publish(stack)))
        advance()
    return latencies, acks


async def over_import(stack: Stack, outcomes: Outcomes, times: int) -> tuple[float, float]:
    """Median milliseconds until a command is stored: sent by a tenant's service, over the import of its account, and
    by a user of the account of the streams."""
    server, tenant = EmbeddedNats(stack.settings.home), stack.settings.tenant
    senders = {
        ANON: (stack.client.connection, list[float]()),
        service(tenant): (await nats_py.connect(server.last_url_of(accounts.login(tenant))), list[float]()),
    }
    for _ in range(times):
        for actor, (nc, found) in senders.items():
            future, took = await outcomes.stored(nc.jetstream(), actor)
            found.append(took)
            await asyncio.wait_for(future, PATIENCE_S)
    await senders[service(tenant)][0].close()
    direct, imported = (percentile(found, 50) for _, found in senders.values())
    return imported, direct


async def look_ups(stack: Stack, times: int) -> float:
    """Median milliseconds of looking for the outcome of a new command."""
    outcomes = JetStreamOutcomes(stack.client.connection)

    async def one() -> None:
        await outcomes.get(stack.settings.tenant, new_id())

    return percentile([await _milliseconds(one) for _ in range(times)], 50)


def authentication(stack: Stack, times: int) -> float:
    """Mean milliseconds of signing a commit and its outcome, and of checking each when it is read."""
    macs, position = Macs(stack.client.connection, stack.settings.vault()), Position(EVENTS, 1)
    headers = {"Nats-Msg-Id": new_id(), "Headrace-Correlation": new_id(), "Headrace-Types": "app.created.v1"}
    began = time.perf_counter()
    for _ in range(2 * times):
        macs.check(position, "evt.default.app.x", macs.sign(EVENTS, "evt.default.app.x", headers, PAYLOAD), PAYLOAD)
    return 1000 * (time.perf_counter() - began) / times


async def add_bare_stream(stack: Stack) -> None:
    """Add a stream for bare publishes: configured as that of the commands, without a consumer."""
    config = next(stream for stream in STREAMS if stream.name == COMMANDS)
    await stack.client.stream.add_stream(config, name=BARE, subjects=["bench.>"])


async def publishes_per_second(stack: Stack, count: int) -> float:
    """Bare acknowledged publishes per second, 100 at once."""
    began = time.perf_counter()
    await at_once(lambda: publish(stack), count)
    return count / (time.perf_counter() - began)


async def at_once(action: Callable[[], Awaitable[object]], times: int, tasks: int = AT_ONCE) -> None:
    """Run the action `times` times, as many of them concurrently as there are `tasks`."""
    left = iter(range(times))

    async def repeat() -> None:
        for _ in left:
            await action()

    await asyncio.gather(*(repeat() for _ in range(min(tasks, times))))


async def _milliseconds(action: Callable[[], Awaitable[None]]) -> float:
    began = time.perf_counter()
    await action()
    return 1000 * (time.perf_counter() - began)
