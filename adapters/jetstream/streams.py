"""The streams and buckets; only this file makes them."""

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
    PersistMode,
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
"""The work queue of commands, on `cmd.<tenant>.<actor>.<noun>.<verb>`."""

ACTORS_AFTER = "headrace_actors_after"
"""Metadata of COMMANDS: the last sequence that was stored before subjects of commands named an actor."""

DEAD = "DEAD"
"""Messages that could not be handled, on `dead.<consumer>.<letter>`, as they came, with the reason in the headers."""

BLOBS = "blobs"
SNAPSHOTS = "snapshots"
FAILURES = "failures"
KEYS = "keys"
EXPORTS = "exports"
OUTAGES = "outages"
SESSIONS = "sessions"
KEY_USES = "key_uses"

DUPLICATE_WINDOW_S = 0.1
"""Time in which COMMANDS drops a second message with the same `Nats-Msg-Id`, in seconds: the shortest that NATS takes.

It does not distinguish tenants, so that a command with this header is rejected: no sender relies on it.
"""

ACK_WAIT_S = 10.0
"""Time without acknowledgement or heartbeat after which a message goes to another worker, in seconds."""

FAILURES_KEPT_S = 7 * 24 * 3600.0
"""Time for which the failures of a message are remembered, in seconds."""

OUTAGES_KEPT_S = 24 * 3600.0
"""Time for which the outage of a provider is remembered that is not called any more, in seconds."""


COUNTS_KEPT_S = {"minute": 600.0, "day": 2 * 86_400.0}
"""Time for which the counters of limits are kept after their last change, in seconds, by period."""


def counts(period: str) -> str:
    """The stream of the counters of a period."""
    return f"COUNTS_{period.upper()}"


SESSION_S = 7 * 24 * 3600.0
"""Lifetime of a login to the viewer, in seconds."""

LARGEST = 2 * MAX_PAYLOAD
"""Maximum size of a message in COMMANDS, in bytes: a command slightly above its own limit gets an outcome, a larger one
is refused at once, since a worker holds many in memory."""


class Waiting(NamedTuple):
    """Limits of pending commands, in all and per subject: one command of one actor. More are refused."""

    commands: int = 100_000
    bytes: int = 2**30
    per_subject: int = 2000


_stored = partial(StreamConfig, retention=RetentionPolicy.LIMITS, storage=StorageType.FILE, allow_direct=True)
_kept_for_ever = partial(_stored, deny_delete=True, deny_purge=True)

STREAMS = [
    _kept_for_ever(name=EVENTS, description="The system of record: one message is one commit", subjects=["evt.>"]),
    _kept_for_ever(name=OUTCOMES, description="What became of every command, by its id, for ever", subjects=["out.>"]),
    _stored(
        name=COMMANDS,
        description="Commands that wait for their outcome",
        subjects=["cmd.>"],
        retention=RetentionPolicy.WORK_QUEUE,
        duplicate_window=DUPLICATE_WINDOW_S,
        discard=DiscardPolicy.NEW,
    ),
    _stored(name=DEAD, description="Messages that could not be handled, with the reason", subjects=["dead.>"]),
    *(
        _stored(
            name=counts(period),
            description=f"Counters of limits, in a {period}",
            subjects=[f"count.{period}.>"],
            allow_msg_counter=True,
            persist_mode=PersistMode.ASYNC,
            max_msgs_per_subject=1,
            max_age=kept_s,
        )
        for period, kept_s in COUNTS_KEPT_S.items()
    ),
]

KEY_STREAM = _stored(
    name=f"KV_{KEYS}",
    description="Keys that words of people are sealed with; a key that is erased is overwritten",
    subjects=[f"$KV.{KEYS}.>"],
    discard=DiscardPolicy.NEW,
    deny_purge=True,
    max_msgs_per_subject=8,
)
"""A key-value bucket, except that a key is deleted by itself once the mark of its erasure follows it."""

TRIES = 3
"""Maximum attempts to make a missing stream."""

NOT_LAST = frozenset((10071, 10164))
"""JetStream's error codes when the last sequence is another than the expected one: of one replica, and of several."""

NO_PEERS = 10005
"""JetStream's error code when it knows too few servers for the replicas, such as when a cluster starts."""

NO_STORAGE = 10047
"""JetStream's error code when it cannot reserve the maximum size of a stream."""

LETTERS = f"evt.*.{DeadLetter.TOPIC}.*"

CONSUMERS = {
    "commands": (COMMANDS, ["cmd.>"]),
    **{
        name: (EVENTS, sorted({f"evt.*.{work.noun.TOPIC}.*", LETTERS}, key=LETTERS.__eq__))
        for name, work in WORKS.items()
    },
}
"""The durable consumers: stream and filter subjects by name. Each also gets its own dead letters that are retried."""


def consumer_config(name: str) -> ConsumerConfig:
    """The durable consumer of this name: a failed message is redelivered without limit."""
    _, subjects = CONSUMERS[name]
    return ConsumerConfig(
        durable_name=name,
        filter_subjects=subjects,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT_S,
        max_deliver=-1,
        max_ack_pending=-1,  # messages that wait for the turn of their tenant do not hide those of others
    )


async def set_up(js: JetStreamContext, *, replicas: int = 1, waiting: Waiting | None = None) -> None:
    """Make missing streams and buckets. Existing streams are left alone, except for the limits of COMMANDS; consumers
    are updated to this version.

    Processes may call this concurrently. Raises: ServiceUnavailableError while too few servers of the cluster know
    each other to hold the replicas.
    """
    for stream in STREAMS:
        mode = stream.persist_mode if replicas == 1 else None  # replicas keep a message before they acknowledge it
        make = partial(js.add_stream, stream, num_replicas=replicas, persist_mode=mode)
        await _make(js, str(stream.name), make)
    await _limit(js, waiting or Waiting())
    for name, (stream_name, _) in CONSUMERS.items():
        await js.add_consumer(stream_name, consumer_config(name))
    blobs = ObjectStoreConfig(bucket=BLOBS, replicas=replicas)
    await _make(js, f"OBJ_{BLOBS}", partial(js.create_object_store, BLOBS, blobs))
    await _make(js, f"KV_{KEYS}", partial(js.add_stream, KEY_STREAM, num_replicas=replicas))
    for bucket in (
        KeyValueConfig(bucket=SNAPSHOTS, history=1, direct=True),
        KeyValueConfig(bucket=FAILURES, history=1, ttl=FAILURES_KEPT_S, direct=True),
        KeyValueConfig(bucket=EXPORTS, history=1),
        KeyValueConfig(bucket=OUTAGES, history=1, ttl=OUTAGES_KEPT_S, direct=True),
        KeyValueConfig(bucket=SESSIONS, history=1, ttl=SESSION_S),
        KeyValueConfig(bucket=KEY_USES, history=1, direct=True),
    ):
        await _make(js, f"KV_{bucket.bucket}", partial(js.create_key_value, bucket, replicas=replicas))


async def _limit(js: JetStreamContext, waiting: Waiting) -> None:
    """Set the limits of COMMANDS; without the right to change streams, leave that to an administrator.

    JetStream reserves the maximum size of a stream. A disk without room for it limits the stream itself.
    """
    info = await js.stream_info(COMMANDS)
    found = info.config
    for size in (waiting.bytes, -1):
        wanted = found.evolve(
            max_msgs=waiting.commands,
            max_bytes=size,
            max_msgs_per_subject=waiting.per_subject,
            max_msg_size=LARGEST,
            discard=DiscardPolicy.NEW,
            discard_new_per_subject=True,
            duplicate_window=DUPLICATE_WINDOW_S,
            metadata={ACTORS_AFTER: str(info.state.last_seq), **(found.metadata or {})},
        )
        if wanted == found:
            return
        try:
            await js.update_stream(wanted)
            return
        except (nats.errors.TimeoutError, APIError) as error:
            if getattr(error, "err_code", None) != NO_STORAGE or size == -1:
                log.warning("limits not set", stream=COMMANDS, reason=repr(error), **waiting._asdict())
                return


async def _make(js: JetStreamContext, name: str, make: Callable[[], Awaitable[object]]) -> None:
    for attempt in range(1, TRIES + 1):
        with suppress(NotFoundError):
            await js.stream_info(name)
            return
        try:
            await make()
            return
        except (BadRequestError, nats.errors.TimeoutError) as error:
            if isinstance(error, BadRequestError) and error.err_code == NO_PEERS:
                raise ServiceUnavailableError(code=503, err_code=NO_PEERS, description=error.description) from error
            # Another process has made it since the check, or a cluster lost the request when its leader changed.
            if attempt == TRIES:
                raise
