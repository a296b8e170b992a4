"""The streams and buckets: made here, by the set-up, and nowhere else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import nats.errors
import structlog
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DiscardPolicy,
    KeyValueConfig,
    ObjectStoreConfig,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import APIError, BadRequestError, NotFoundError, ServiceUnavailableError

from domain.log import EVENTS, OUTCOMES
from domain.work.dead_letter import DeadLetter
from handlers.commands.fields import MAX_PAYLOAD
from handlers.work.work import WORKS

log = structlog.get_logger(__name__)

COMMANDS = "COMMANDS"
"""The work queue of commands, on `cmd.<tenant>.<noun>.<verb>`."""

DEAD = "DEAD"
"""What could not be handled, on `dead.<consumer>.<letter>`: the message as it came, with the reason in its headers."""

BLOBS = "blobs"
SNAPSHOTS = "snapshots"
FAILURES = "failures"
KEYS = "keys"
EXPORTS = "exports"

DUPLICATE_WINDOW_S = 300.0
"""For so long COMMANDS itself drops a command that is sent again."""

ACK_WAIT_S = 10.0
"""A message that was neither acknowledged nor heartbeaten for so long is given to another worker."""

FAILURES_KEPT_S = 7 * 24 * 3600.0
"""For so long it is known how often a message has failed."""


LARGEST = 2 * MAX_PAYLOAD
"""Bytes of a message that COMMANDS takes: what is a little too large has an outcome that says so, what is larger is
refused at once, since a worker has many in memory."""


class Waiting(NamedTuple):
    """What may wait in COMMANDS; more is refused."""

    commands: int = 100_000
    bytes: int = 2**30


STREAMS = [
    StreamConfig(
        name=EVENTS,
        description="The system of record: one message is one commit",
        subjects=["evt.>"],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        allow_direct=True,
        deny_delete=True,
        deny_purge=True,
    ),
    StreamConfig(
        name=OUTCOMES,
        description="What became of every command, by its id, for ever",
        subjects=["out.>"],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        allow_direct=True,
        deny_delete=True,
        deny_purge=True,
    ),
    StreamConfig(
        name=COMMANDS,
        description="Commands that wait for their outcome",
        subjects=["cmd.>"],
        retention=RetentionPolicy.WORK_QUEUE,
        storage=StorageType.FILE,
        allow_direct=True,
        duplicate_window=DUPLICATE_WINDOW_S,
        discard=DiscardPolicy.NEW,
    ),
    StreamConfig(
        name=DEAD,
        description="Messages that could not be handled, with the reason",
        subjects=["dead.>"],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        allow_direct=True,
    ),
]

KEY_STREAM = StreamConfig(
    name=f"KV_{KEYS}",
    description="Keys that words of people are sealed with; a key that is erased is overwritten",
    subjects=[f"$KV.{KEYS}.>"],
    retention=RetentionPolicy.LIMITS,
    storage=StorageType.FILE,
    allow_direct=True,
    discard=DiscardPolicy.NEW,
    deny_purge=True,
    max_msgs_per_subject=8,
)
"""A key-value bucket but for this: a key is deleted by itself, once the mark that it was erased stands above it."""

TRIES = 3
"""How often something that is missing is asked for."""

NO_PEERS = 10005
"""JetStream's error code when it knows of too few servers to place the replicas on, as when a cluster starts."""

LETTERS = f"evt.*.{DeadLetter.TOPIC}.*"

CONSUMERS = {
    "commands": (COMMANDS, ["cmd.>"]),
    **{
        name: (EVENTS, sorted({f"evt.*.{work.noun.TOPIC}.*", LETTERS}, key=LETTERS.__eq__))
        for name, work in WORKS.items()
    },
}
"""The durable consumers: name, stream and what each takes from it. Each hears of its dead letters that are retried."""


def consumer_config(name: str) -> ConsumerConfig:
    """The durable consumer of this name: nothing is given up, a failed message comes again."""
    _, subjects = CONSUMERS[name]
    return ConsumerConfig(
        durable_name=name,
        filter_subjects=subjects,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT_S,
        max_deliver=-1,
        max_ack_pending=1000,
    )


async def set_up(js: JetStreamContext, *, replicas: int = 1, waiting: Waiting | None = None) -> None:
    """Make what is missing; streams that are there are left as they are but for what may wait in COMMANDS, consumers
    become this version's.

    Safe to call from several processes at once. Raises: ServiceUnavailableError while too few servers of the cluster
    know each other to hold the replicas.
    """
    for stream in STREAMS:
        await _make(js.stream_info, [str(stream.name)], partial(js.add_stream, stream, num_replicas=replicas))
    await _limit(js, waiting or Waiting())
    for name, (stream_name, _) in CONSUMERS.items():
        await js.add_consumer(stream_name, consumer_config(name))
    blobs = ObjectStoreConfig(bucket=BLOBS, replicas=replicas)
    await _make(js.stream_info, [f"OBJ_{BLOBS}"], partial(js.create_object_store, BLOBS, blobs))
    snapshots = KeyValueConfig(bucket=SNAPSHOTS, history=1, replicas=replicas, direct=True)
    await _make(js.stream_info, [f"KV_{SNAPSHOTS}"], partial(js.create_key_value, snapshots))
    failures = KeyValueConfig(bucket=FAILURES, history=1, ttl=FAILURES_KEPT_S, replicas=replicas, direct=True)
    await _make(js.stream_info, [f"KV_{FAILURES}"], partial(js.create_key_value, failures))
    await _make(js.stream_info, [f"KV_{KEYS}"], partial(js.add_stream, KEY_STREAM, num_replicas=replicas))
    exports = KeyValueConfig(bucket=EXPORTS, history=1, replicas=replicas)
    await _make(js.stream_info, [f"KV_{EXPORTS}"], partial(js.create_key_value, exports))


async def _limit(js: JetStreamContext, waiting: Waiting) -> None:
    """Let no more wait in COMMANDS than may; a user who may not change streams leaves that to `headrace setup`."""
    found = (await js.stream_info(COMMANDS)).config
    wanted = found.evolve(
        max_msgs=waiting.commands, max_bytes=waiting.bytes, max_msg_size=LARGEST, discard=DiscardPolicy.NEW
    )
    if wanted == found:
        return
    try:
        await js.update_stream(wanted)
    except (nats.errors.TimeoutError, APIError) as error:  # JetStream sets aside as many bytes as a stream may have
        log.warning("limits not set", stream=COMMANDS, reason=repr(error), **waiting._asdict())


async def _make(
    look: Callable[..., Awaitable[object]], names: list[str], make: Callable[[], Awaitable[object]]
) -> None:
    for attempt in range(1, TRIES + 1):
        with suppress(NotFoundError):
            await look(*names)
            return
        try:
            await make()
            return
        except (BadRequestError, nats.errors.TimeoutError) as error:
            if isinstance(error, BadRequestError) and error.err_code == NO_PEERS:
                raise ServiceUnavailableError(code=503, err_code=NO_PEERS, description=error.description) from error
            # Another process has made it since the look, or a cluster that changed its leader lost the request.
            if attempt == TRIES:
                raise
