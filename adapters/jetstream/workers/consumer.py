"""A durable consumer: tenants take turns, what fails is delivered again, what keeps failing is given up.

A delivery is a lease: heartbeats prolong it, and the messages of a dead worker go to another. A worker takes messages
ahead of their turns, so that those of one tenant do not hide those of another; what it has no room for, it passes on.
"""

from __future__ import annotations

import asyncio
import hashlib
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import nats.errors
import orjson
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError

from adapters.jetstream.nats_py import connection_of
from adapters.jetstream.streams import CONSUMERS, FAILURES
from adapters.jetstream.workers.consumers import Consumers
from adapters.jetstream.workers.overflow import Overflow
from adapters.tracing import handling
from domain.access.actor import CommandSubject
from domain.log import Position
from handlers.ports.log import Unavailable
from handlers.routes import is_private
from handlers.work.dead_letters import Failure
from handlers.work.turns import Turns
from handlers.work.work import TRIES

log = structlog.get_logger(__name__)

DEATHS = 10
"""Deaths of workers with a message in flight after which it is given up; that at the first delivery is not counted."""

SUSPECT = 2
"""Counted deaths after which a worker takes such a message alone, since the message may be what kills it."""

QUEUED, QUEUED_BYTES = 1024, 64 * 2**20
"""Maximum number and size of the messages that wait for their turn in a worker; the tenants that wait share it."""

PASSED_ON = 100_000
"""Maximum number of messages of which a worker knows that it has passed them on."""

LONGEST_S = 3600.0
"""Time limit for one message, in seconds. After it another worker goes on from the last recorded step."""

HEARTBEAT_S = 3.0
"""Interval between two heartbeats, in seconds."""

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
"""Delay before a message is delivered again, in seconds; it doubles each time."""

Handle = Callable[[Msg], Awaitable[None]]
Concerns = Callable[[bytes], bool]
"""By the headers of a message, as they were received, whether it must be handled."""

GiveUp = Callable[[Msg, Failure], Awaitable[None]]


def subscribe(
    consumers: Consumers,
    name: str,
    handle: Handle,
    *,
    slots: int,
    share: int,
    give_up: GiveUp,
    concerns: Concerns = lambda _: True,
    tries: int = TRIES,
    finishes: bool = False,
) -> None:
    """Handle every message of the consumer `name`, at most `slots` at a time and `share` of one tenant.

    A message is acknowledged when `handle` returns, or at once when it does not `concern` the consumer. One that
    failed `tries` times is acknowledged when `give_up` has recorded it; a server that is down does not count as a
    failure. With `finishes`, what is in flight at shutdown may finish.
    """
    turns = Turns(slots, share, QUEUED)
    consumers.add(_Lease(name, handle, concerns, give_up, tries, turns, consumers.alone), finishes=finishes)


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


class _Lease:
    def __init__(
        self,
        name: str,
        handle: Handle,
        concerns: Concerns,
        give_up: GiveUp,
        tries: int,
        turns: Turns,
        alone: asyncio.Lock,
    ) -> None:
        self.name = name
        self.stream, _ = CONSUMERS[name]
        self._handle = handle
        self.concerns = concerns
        self._give_up = give_up
        self._tries = tries
        self._turns = turns
        self._alone_lock = alone
        self._counts = Counts(name)
        self._overflow = Overflow()
        self._passed_on = Counter[int]()
        self._taken: dict[int, bool] = {}
        """By its sequence, whether a message's turn is counted as begun."""

    async def take(self, message: Msg, begun: Callable[[], None]) -> None:
        sequence = message.metadata.sequence.stream
        if sequence in self._taken:  # the server was away for too long to hear the heartbeats
            return
        tenant, cost = _tenant(message), 1 + len(message.data) * QUEUED // QUEUED_BYTES
        if not self._turns.has_room(tenant, cost):
            await self._pass_on(message, tenant)
            return
        self._taken[sequence] = False
        try:
            async with _heartbeats(message), self._turns.turn(tenant, cost):
                begun()
                self._overflow.begun(tenant)
                await self._work(message)
        except asyncio.CancelledError:
            await self.hand_back(message)
            raise
        finally:
            del self._taken[sequence]

    async def hand_back(self, message: Msg) -> None:
        """Return the message to the server for another worker."""
        with suppress(Unavailable):
            await self._ended(message)
        with suppress(nats.errors.Error):
            await message.nak()

    async def _pass_on(self, message: Msg, tenant: str) -> None:
        """Have the message delivered again, to any worker. Nothing is written, and its turn has not begun."""
        if len(self._passed_on) >= PASSED_ON:
            self._passed_on.clear()
        self._passed_on[message.metadata.sequence.stream] += 1
        await message.nak(delay=self._overflow.delay(tenant))

    async def _work(self, message: Msg) -> None:
        try:
            past = await self._past(message)
            if past is None:
                await self._within_limit(message)
            elif past.begun < SUSPECT:
                await self._begin(message, past)
                await self._within_limit(message)
            elif past.begun < DEATHS:
                async with self._alone_lock:
                    await self._begin(message, past)
                    await self._within_limit(message)
            else:
                reason = f"{past.begun} workers died while they handled it."
                await self._end(message, self._failure(message, reason, past))
                return
        except Unavailable as error:
            log.warning("waiting", consumer=self.name, subject=message.subject, reason=str(error))
            await self._give_back(message)
        except Exception as error:
            await self._fail(message, error)
        else:
            await message.ack()

    async def _past(self, message: Msg) -> Past | None:
        """The counts of the message, or None when no worker has begun it: its earlier deliveries were passed on here.

        Raises: Unavailable.
        """
        place = message.metadata
        if place.num_delivered - 1 == self._passed_on.pop(place.sequence.stream, 0):
            return None
        return await self._counts.of(message)

    async def _begin(self, message: Msg, past: Past) -> None:
        """Count the turn as begun: until `_ended`, it looks as if the worker had died. Raises: Unavailable."""
        await self._counts.put(message, replace(past, begun=past.begun + 1))
        self._taken[message.metadata.sequence.stream] = True

    async def _ended(self, message: Msg, *, failures: int = 0) -> None:
        """Count that the worker has not died with the message, and its failures. Raises: Unavailable."""
        sequence = message.metadata.sequence.stream
        counted = self._taken.get(sequence, False)
        if counted or failures:
            past = await self._counts.of(message)
            await self._counts.put(message, Past(past.failures + failures, past.begun - counted))
            self._taken[sequence] = False

    async def _within_limit(self, message: Msg) -> None:
        limit = asyncio.timeout(LONGEST_S)
        try:
            async with limit:
                with handling(self.name, self.stream, message.subject, message.headers or {}):
                    await self._handle(message)
        except TimeoutError as error:
            if limit.expired():
                raise Unavailable(f"It took longer than {LONGEST_S:g} s.") from error
            raise

    async def _fail(self, message: Msg, error: Exception) -> None:
        past = await self._counts.of(message)
        about = {"consumer": self.name, "subject": message.subject, "tries": past.failures + 1}
        if _may_hold_words(message):  # so may the error
            log.error("failed", **about, error=type(error).__name__, stack=_lines(error))
        else:
            log.exception("failed", **about)
        if past.failures + 1 < self._tries:
            await self._give_back(message, failures=1)
        else:
            counted = self._taken[message.metadata.sequence.stream]
            past = Past(past.failures + 1, past.begun - counted)
            reason = f"{type(error).__name__}: {error}"
            await self._end(message, self._failure(message, reason, past, error))

    async def _end(self, message: Msg, failure: Failure) -> None:
        try:
            await self._give_up(message, failure)
        except Exception as error:
            log.warning("not given up yet", consumer=self.name, subject=message.subject, reason=repr(error))
            await self._give_back(message)
        else:
            reason = failure.reason.partition(":")[0] if _may_hold_words(message) else failure.reason
            log.error("given up", consumer=self.name, subject=message.subject, reason=reason)
            await message.ack()

    async def _give_back(self, message: Msg, *, failures: int = 0) -> None:
        with suppress(Unavailable):
            await self._ended(message, failures=failures)
        await message.nak(delay=_delay(message))

    def _failure(self, message: Msg, reason: str, past: Past, error: Exception | None = None) -> Failure:
        lines = _lines(error) if error else []
        return Failure(
            consumer=self.name,
            position=Position(self.stream, message.metadata.sequence.stream),
            subject=message.subject,
            reason=reason[:1000].encode(errors="replace").decode(),
            where=lines[-1] if lines else "",
            stack=hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] if lines else "",
            failures=past.failures,
            deaths=past.begun,
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
    """Counts for a message: its failures, and the turns that a worker has begun after the first delivery and neither
    ended nor given back."""

    failures: int = 0
    begun: int = 0


class Counts:
    """Counts for the messages of one consumer, in a key-value bucket that outlives workers.

    A message that is handled at its first delivery has none, and passing on a message costs none.
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
        counts = orjson.loads(found.data or b"{}")
        return Past(counts.get("failures", 0), counts.get("begun", 0))

    async def put(self, message: Msg, past: Past) -> None:
        """Raises: Unavailable."""
        try:
            await connection_of(message).jetstream().publish(self._key(message), orjson.dumps(asdict(past)))
        except nats.errors.Error as error:
            raise Unavailable(f"The failures cannot be written: {error!r}") from error

    def _key(self, message: Msg) -> str:
        return f"$KV.{FAILURES}.{self._consumer}.{message.metadata.sequence.stream}"


def _lines(error: Exception) -> list[str]:
    """The stack of an error, as `file:function:line`, the last call last."""
    frames = traceback.extract_tb(error.__traceback__)
    return [f"{Path(frame.filename).name}:{frame.name}:{frame.lineno}" for frame in frames]


def _may_hold_words(message: Msg) -> bool:
    """True if the message may hold words of a person: such a command, or a commit that names one."""
    if message.subject.startswith("cmd."):
        return is_private(CommandSubject.of(message.subject).name)
    return "Headrace-Person" in (message.headers or {})


def _tenant(message: Msg) -> str:
    """The second token of the subject."""
    return message.subject.split(".", 2)[1]


def _delay(message: Msg) -> float:
    return float(min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** min(message.metadata.num_delivered - 1, 10)))
