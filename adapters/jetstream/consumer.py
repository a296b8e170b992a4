"""Durable consumers on FastStream: what fails comes again, what keeps failing goes to the dead letters."""

from __future__ import annotations

import asyncio
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable

import structlog
from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.nats.message import NatsMessage
from nats.aio.msg import Msg

from adapters.jetstream.streams import ACK_WAIT_S, CONSUMERS, DEAD, consumer_config
from handlers.ports import Unavailable

log = structlog.get_logger(__name__)

TRIES = 5
"""How often a message may fail for a reason of its own; a server that is away is waited for without end."""

PULLS = 8
"""Requests for a message that stand open at a time; a request for several would wait until all of them are there."""

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
"""Before a message comes again: twice as long each time."""

Handle = Callable[[Msg], Awaitable[None]]
Bury = Callable[[Msg, Exception], Awaitable[None]]


def subscribe(broker: NatsBroker, name: str, handle: Handle, *, workers: int, bury: Bury | None = None) -> None:
    """Give every message of the consumer `name` to `handle`, at most `workers` at a time.

    A message is acknowledged when `handle` returns, and kept from others by heartbeats until then. `bury` is told of
    one that goes to the dead letters.
    """
    stream, subject = CONSUMERS[name]
    failures: Counter[int] = Counter()

    async def take(message: NatsMessage) -> None:
        raw = message.raw_message
        sequence = raw.metadata.sequence.stream
        heart = asyncio.get_running_loop().call_later(ACK_WAIT_S / 3, lambda: hearts.append(_beat(raw)))
        hearts: list[asyncio.Task[None]] = []
        try:
            await handle(raw)
        except Unavailable as error:
            log.warning("waiting", consumer=name, subject=raw.subject, reason=str(error))
            await raw.nak(delay=_delay(raw))
        except Exception as error:
            failures[sequence] += 1
            log.exception("failed", consumer=name, subject=raw.subject, tries=failures[sequence])
            if failures[sequence] < TRIES:
                await raw.nak(delay=_delay(raw))
            else:
                await broker.publish(raw.data, f"dead.{name}", headers=_reason(raw, error), stream=DEAD)
                if bury:
                    await bury(raw, error)
                failures.pop(sequence)
                await raw.ack()
        else:
            failures.pop(sequence, None)
            await raw.ack()
        finally:
            heart.cancel()
            for task in hearts:
                task.cancel()

    pulls = min(PULLS, workers)
    for _ in range(pulls):
        broker.subscriber(
            subject,
            stream=JStream(stream, declare=False),
            durable=name,
            config=consumer_config(name),
            pull_sub=PullSub(batch_size=1, timeout=5.0),
            max_workers=workers // pulls,
            ack_policy=AckPolicy.MANUAL,
            decoder=_undecoded,
        )(take)


async def _undecoded(message: NatsMessage) -> NatsMessage:
    """The handler wants the message as it came: what is in it may be broken, and that has its own answer."""
    return message


def _beat(message: Msg) -> asyncio.Task[None]:
    async def beat() -> None:
        while True:
            await message.in_progress()
            await asyncio.sleep(ACK_WAIT_S / 3)

    return asyncio.create_task(beat())


def _delay(message: Msg) -> float:
    return float(min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** min(message.metadata.num_delivered - 1, 10)))


def _reason(message: Msg, error: Exception) -> dict[str, str]:
    """The headers of a dead letter: those it had, and why it is one."""
    where = traceback.extract_tb(error.__traceback__)[-1:]
    return {
        **{name: value for name, value in (message.headers or {}).items() if not name.startswith("Nats-")},
        "Headrace-Id": (message.headers or {}).get("Nats-Msg-Id", ""),
        "Headrace-Subject": message.subject,
        "Headrace-Sequence": str(message.metadata.sequence.stream),
        "Headrace-Reason": f"{type(error).__name__}: {error}"[:1000].replace("\n", " ").replace("\r", " "),
        "Headrace-Where": "".join(f"{frame.name}:{frame.lineno}" for frame in where),
    }
