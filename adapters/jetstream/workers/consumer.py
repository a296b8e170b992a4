"""Durable consumers on FastStream: a message that fails is delivered again, one that keeps failing is given up.

A delivery is a lease: heartbeats prolong it, and the messages of a dead worker go to another.
"""

from __future__ import annotations

import asyncio
import hashlib
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

import nats.errors
import orjson
import structlog
from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.nats.message import NatsMessage
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError

from adapters.jetstream.nats_py import connection_of
from adapters.jetstream.streams import CONSUMERS, FAILURES, consumer_config
from adapters.jetstream.workers.drain import in_flight
from adapters.tracing import handling
from domain.log import Position
from handlers.ports.log import Unavailable
from handlers.work.dead_letters import Failure
from handlers.work.work import TRIES

log = structlog.get_logger(__name__)

DEATHS = 10
"""Deaths of workers with a message in flight after which it is given up."""

SUSPECT = 3
"""Deaths after which a worker takes such a message alone, since the message may be what kills it."""

LONGEST_S = 3600.0
"""Time limit for one message, in seconds. After it another worker goes on from the last recorded step."""

HEARTBEAT_S = 3.0
"""Interval between two heartbeats, in seconds."""

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
"""Delay before a message is delivered again, in seconds; it doubles each time."""

Handle = Callable[[Msg], Awaitable[None]]
GiveUp = Callable[[Msg, Failure], Awaitable[None]]


def subscribe(
    broker: NatsBroker,
    name: str,
    handle: Handle,
    *,
    at_once: int,
    give_up: GiveUp,
    tries: int = TRIES,
    finishes: bool = False,
) -> None:
    """Handle every message of the consumer `name`, at most `at_once` at a time.

    A message is acknowledged when `handle` returns. One that failed `tries` times is acknowledged when `give_up` has
    recorded it; a server that is down does not count as a failure. A message is only taken from the server when there
    is a handler free, so that every one is heartbeaten. With `finishes`, what is in flight at shutdown may finish.
    """
    stream, subjects = CONSUMERS[name]
    lease = _Lease(name, stream, handle, give_up, tries, _turns.setdefault(broker, asyncio.Lock()))
    for _ in range(at_once):
        broker.subscriber(
            subjects[0],
            stream=JStream(stream, declare=False),
            durable=name,
            config=consumer_config(name),
            pull_sub=PullSub(batch_size=1, timeout=5.0),
            ack_policy=AckPolicy.MANUAL,
            decoder=_undecoded,
        )(in_flight(broker).hold(lease.take, lease.hand_back, finishes=finishes))


async def done(nc: Client) -> dict[str, int]:
    """The sequence up to which each consumer has acknowledged its stream. Raises: Unavailable."""
    js, found = nc.jetstream(), {}
    try:
        for name, (stream, _) in CONSUMERS.items():
            last = (await js.stream_info(stream)).state.last_seq
            with suppress(NotFoundError):
                info = await js.consumer_info(stream, name)
                idle = not info.num_pending and not info.num_ack_pending
                found[name] = last if idle else int(info.ack_floor.stream_seq if info.ack_floor else 0)
    except nats.errors.Error as error:
        raise Unavailable(f"NATS does not answer: {error!r}") from error
    return found


_turns: WeakKeyDictionary[NatsBroker, asyncio.Lock] = WeakKeyDictionary()
"""Held by the one handler of a process that takes a suspect message."""


class _Lease:
    def __init__(self, name: str, stream: str, handle: Handle, give_up: GiveUp, tries: int, turn: asyncio.Lock) -> None:
        self._name = name
        self._stream = stream
        self._handle = handle
        self._give_up = give_up
        self._tries = tries
        self._turn = turn
        self._counts = Counts(name)
        self._handling: set[int] = set()

    async def take(self, delivery: NatsMessage) -> None:
        message = delivery.raw_message
        sequence = message.metadata.sequence.stream
        if sequence in self._handling:  # the server was away for too long to hear the heartbeats
            await self._counts.add(message, returned=1)
            return
        self._handling.add(sequence)
        try:
            async with _heartbeats(message):
                await self._work(message)
        finally:
            self._handling.discard(sequence)

    async def hand_back(self, delivery: NatsMessage) -> None:
        """Return the message to the server for another worker."""
        message = delivery.raw_message
        with suppress(Unavailable):
            await self._counts.add(message, returned=1)
        with suppress(nats.errors.Error):
            await message.nak()

    async def _work(self, message: Msg) -> None:
        try:
            past = await self._counts.of(message)
            if message.metadata.num_delivered - 1 - past.returned < SUSPECT:
                await self._within_limit(message)
            elif SUSPECT + past.alone < DEATHS:
                await self._alone(message)
            else:
                reason = f"{SUSPECT + past.alone} workers died while they handled it."
                await self._end(message, self._failure(message, reason, past.failures, SUSPECT + past.alone))
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
            await self._counts.add(message, alone=1)
            try:
                await self._within_limit(message)
            finally:
                await self._counts.add(message, alone=-1)

    async def _within_limit(self, message: Msg) -> None:
        limit = asyncio.timeout(LONGEST_S)
        try:
            async with limit:
                with handling(self._name, self._stream, message.subject, message.headers or {}):
                    await self._handle(message)
        except TimeoutError as error:
            if limit.expired():
                raise Unavailable(f"It took longer than {LONGEST_S:g} s.") from error
            raise

    async def _fail(self, message: Msg, error: Exception) -> None:
        past = await self._counts.of(message)
        log.exception("failed", consumer=self._name, subject=message.subject, tries=past.failures + 1)
        if past.failures + 1 < self._tries:
            await self._give_back(message, failures=1)
        else:
            reason = f"{type(error).__name__}: {error}"
            deaths = message.metadata.num_delivered - 1 - past.returned
            await self._end(message, self._failure(message, reason, past.failures + 1, deaths, error))

    async def _end(self, message: Msg, failure: Failure) -> None:
        try:
            await self._give_up(message, failure)
        except Exception as error:
            log.warning("not given up yet", consumer=self._name, subject=message.subject, reason=repr(error))
            await self._give_back(message)
        else:
            log.error("given up", consumer=self._name, subject=message.subject, reason=failure.reason)
            await message.ack()

    async def _give_back(self, message: Msg, *, failures: int = 0) -> None:
        with suppress(Unavailable):
            await self._counts.add(message, returned=1, failures=failures)
        await message.nak(delay=_delay(message))

    def _failure(
        self, message: Msg, reason: str, failures: int, deaths: int, error: Exception | None = None
    ) -> Failure:
        frames = traceback.extract_tb(error.__traceback__) if error else []
        lines = [f"{Path(frame.filename).name}:{frame.name}:{frame.lineno}" for frame in frames]
        return Failure(
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
    first = asyncio.get_running_loop().call_later(
        HEARTBEAT_S, lambda: tasks.append(asyncio.create_task(_beat(message)))
    )
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
        await asyncio.sleep(HEARTBEAT_S)


@dataclass(frozen=True, slots=True)
class Past:
    """Counts for a message: how often it was returned to the server, how often it failed, and how many workers took it
    alone and have not returned it."""

    returned: int = 0
    failures: int = 0
    alone: int = 0


class Counts:
    """Counts for the messages of one consumer, in a key-value bucket that outlives workers.

    A message that is handled at its first delivery has none.
    """

    def __init__(self, consumer: str) -> None:
        self._consumer = consumer

    async def of(self, message: Msg) -> Past:
        """Raises: Unavailable."""
        if message.metadata.num_delivered == 1:
            return Past()
        try:
            found = await connection_of(message).jetstream().get_last_msg(f"KV_{FAILURES}", self._key(message))
        except NotFoundError:
            return Past()
        except nats.errors.Error as error:
            raise Unavailable(f"The failures cannot be read: {error!r}") from error
        return Past(**orjson.loads(found.data or b"{}"))

    async def add(self, message: Msg, *, returned: int = 0, failures: int = 0, alone: int = 0) -> Past:
        """Add to the counts and return them. Raises: Unavailable."""
        past = await self.of(message)
        past = Past(past.returned + returned, past.failures + failures, max(0, past.alone + alone))
        try:
            await connection_of(message).jetstream().publish(self._key(message), orjson.dumps(asdict(past)))
        except nats.errors.Error as error:
            raise Unavailable(f"The failures cannot be written: {error!r}") from error
        return past

    def _key(self, message: Msg) -> str:
        return f"$KV.{FAILURES}.{self._consumer}.{message.metadata.sequence.stream}"


async def _undecoded(message: NatsMessage) -> NatsMessage:
    """The handler wants the message as it came: what is in it may be broken, and that has its own answer."""
    return message


def _delay(message: Msg) -> float:
    return float(min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** min(message.metadata.num_delivered - 1, 10)))
