"""Durable consumers on FastStream: what fails comes again, what keeps failing goes to the dead letters.

A delivery is a lease: it is prolonged by heartbeats, and what a dead worker had in hand goes to another.
"""

from __future__ import annotations

import asyncio
import hashlib
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from weakref import WeakKeyDictionary

import nats.errors
import structlog
from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.nats.message import NatsMessage
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError

from adapters.jetstream.streams import CONSUMERS, consumer_config
from adapters.jetstream.workers.drain import in_flight
from adapters.jetstream.workers.failures import Failures
from adapters.tracing import handling
from domain.log import Position
from handlers.ports.log import Unavailable
from handlers.work.dead_letters import Death

log = structlog.get_logger(__name__)

TRIES = 5
"""How often a message may fail for a reason of its own; a server that is away is waited for without end."""

DEATHS = 10
"""How often a worker may die with a message in hand."""

SUSPECT = 3
"""So many deaths may have had another cause; after them a worker takes such messages one at a time."""

LONGEST_S = 3600.0
"""Whoever takes longer over a message gives it back: another goes on from the last step that is on record."""

BEAT_S = 3.0
"""Between two heartbeats."""

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
"""Before a message comes again: twice as long each time."""

Handle = Callable[[Msg], Awaitable[None]]
Bury = Callable[[Msg, Death], Awaitable[None]]


def subscribe(broker: NatsBroker, name: str, handle: Handle, *, workers: int, bury: Bury) -> None:
    """Give every message of the consumer `name` to `handle`, at most `workers` at a time.

    A message is acknowledged when `handle` returns, or when `bury` has put on record that it never will. None is taken
    from the server before there is a worker for it, so that all that were taken are heartbeaten.
    """
    stream, subjects = CONSUMERS[name]
    lease = _Lease(name, stream, handle, bury, _turns.setdefault(broker, asyncio.Lock()))
    for _ in range(workers):
        broker.subscriber(
            subjects[0],
            stream=JStream(stream, declare=False),
            durable=name,
            config=consumer_config(name),
            pull_sub=PullSub(batch_size=1, timeout=5.0),
            ack_policy=AckPolicy.MANUAL,
            decoder=_undecoded,
        )(in_flight(broker).hold(name, lease.take, lease.hand_back))


async def done(nc: Client) -> dict[str, int]:
    """By consumer, the sequence of its stream up to which it has nothing to do any more. Raises: Unavailable."""
    js, found = nc.jetstream(), {}
    try:
        for name, (stream, _) in CONSUMERS.items():
            last = (await js.stream_info(stream)).state.last_seq
            with suppress(NotFoundError):  # nobody does its work
                info = await js.consumer_info(stream, name)
                idle = not info.num_pending and not info.num_ack_pending
                found[name] = last if idle else int(info.ack_floor.stream_seq if info.ack_floor else 0)
    except nats.errors.Error as error:
        raise Unavailable(f"NATS does not answer: {error!r}") from error
    return found


_turns: WeakKeyDictionary[NatsBroker, asyncio.Lock] = WeakKeyDictionary()
"""Who has it takes a message that may kill the process."""


class _Lease:
    def __init__(self, name: str, stream: str, handle: Handle, bury: Bury, turn: asyncio.Lock) -> None:
        self._name = name
        self._stream = stream
        self._handle = handle
        self._bury = bury
        self._turn = turn
        self._failures = Failures(name)
        self._in_hand: set[int] = set()

    async def take(self, delivery: NatsMessage) -> None:
        message = delivery.raw_message
        sequence = message.metadata.sequence.stream
        if sequence in self._in_hand:  # the server was away for too long to hear the heartbeats
            await self._failures.add(message, returned=1)
            return
        self._in_hand.add(sequence)
        try:
            async with _heartbeats(message):
                await self._work(message)
        finally:
            self._in_hand.discard(sequence)

    async def hand_back(self, delivery: NatsMessage) -> None:
        """Another worker may have it now: this one leaves."""
        message = delivery.raw_message
        with suppress(Unavailable):
            await self._failures.add(message, returned=1)
        with suppress(nats.errors.Error):
            await message.nak()

    async def _work(self, message: Msg) -> None:
        try:
            past = await self._failures.of(message)
            if message.metadata.num_delivered - 1 - past.returned < SUSPECT:
                await self._within_limit(message)
            elif SUSPECT + past.alone < DEATHS:
                await self._alone(message)
            else:
                reason = f"Its worker died {SUSPECT + past.alone} times with it in hand."
                await self._end(message, self._death(message, reason, past.failures, SUSPECT + past.alone))
                return
        except Unavailable as error:
            log.warning("waiting", consumer=self._name, subject=message.subject, reason=str(error))
            await self._give_back(message)
        except Exception as error:
            await self._fail(message, error)
        else:
            await message.ack()

    async def _alone(self, message: Msg) -> None:
        async with self._turn:
            await self._failures.add(message, alone=1)
            try:
                await self._within_limit(message)
            finally:
                await self._failures.add(message, alone=-1)

    async def _within_limit(self, message: Msg) -> None:
        limit = asyncio.timeout(LONGEST_S)
        try:
            async with limit:
                with handling(self._name, self._stream, message.headers or {}):
                    await self._handle(message)
        except TimeoutError as error:
            if limit.expired():
                raise Unavailable(f"It took longer than {LONGEST_S:g} s.") from error
            raise

    async def _fail(self, message: Msg, error: Exception) -> None:
        past = await self._failures.of(message)
        log.exception("failed", consumer=self._name, subject=message.subject, tries=past.failures + 1)
        if past.failures + 1 < TRIES:
            await self._give_back(message, failures=1)
        else:
            reason = f"{type(error).__name__}: {error}"
            deaths = message.metadata.num_delivered - 1 - past.returned
            await self._end(message, self._death(message, reason, past.failures + 1, deaths, error))

    async def _end(self, message: Msg, death: Death) -> None:
        try:
            await self._bury(message, death)
        except Exception as error:
            log.warning("not buried yet", consumer=self._name, subject=message.subject, reason=repr(error))
            await self._give_back(message)
        else:
            log.error("buried", consumer=self._name, subject=message.subject, reason=death.reason)
            await message.ack()

    async def _give_back(self, message: Msg, *, failures: int = 0) -> None:
        with suppress(Unavailable):
            await self._failures.add(message, returned=1, failures=failures)
        await message.nak(delay=_delay(message))

    def _death(self, message: Msg, reason: str, failures: int, deaths: int, error: Exception | None = None) -> Death:
        frames = traceback.extract_tb(error.__traceback__) if error else []
        lines = [f"{Path(frame.filename).name}:{frame.name}:{frame.lineno}" for frame in frames]
        return Death(
            consumer=self._name,
            position=Position(self._stream, message.metadata.sequence.stream),
            subject=message.subject,
            reason=reason[:1000].encode(errors="replace").decode(),
            where=lines[-1] if lines else "",
            stack=hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] if lines else "",
            failures=failures,
            deaths=max(0, deaths),
        )


@asynccontextmanager
async def _heartbeats(message: Msg) -> AsyncIterator[None]:
    """The message stays ours; what is done before the first beat is due costs no task."""
    tasks: list[asyncio.Task[None]] = []
    first = asyncio.get_running_loop().call_later(BEAT_S, lambda: tasks.append(asyncio.create_task(_beat(message))))
    try:
        yield
    finally:
        first.cancel()
        for task in tasks:
            task.cancel()


async def _beat(message: Msg) -> None:
    while True:
        with suppress(nats.errors.Error):
            await message.in_progress()
        await asyncio.sleep(BEAT_S)


async def _undecoded(message: NatsMessage) -> NatsMessage:
    """The handler wants the message as it came: what is in it may be broken, and that has its own answer."""
    return message


def _delay(message: Msg) -> float:
    return float(min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** min(message.metadata.num_delivered - 1, 10)))
