"""The streams and buckets: made here, by the set-up, and nowhere else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    KeyValueConfig,
    ObjectStoreConfig,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import BadRequestError, NotFoundError

from domain.log import EVENTS, OUTCOMES

COMMANDS = "COMMANDS"
"""The work queue of commands, on `cmd.<tenant>.<noun>.<verb>`."""

DEAD = "DEAD"
"""What could not be handled, on `dead.<consumer>`: the message as it came, with the reason in its headers."""

BLOBS = "blobs"
SNAPSHOTS = "snapshots"

DUPLICATE_WINDOW_S = 300.0
"""For so long COMMANDS itself drops a command that is sent again."""

ACK_WAIT_S = 30.0
"""A message that was neither acknowledged nor heartbeaten for so long is given to another worker."""

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

CONSUMERS = {
    "commands": (COMMANDS, "cmd.>"),
    "ingest": (EVENTS, "evt.*.document.*"),
    "forget_documents": (EVENTS, "evt.*.document.*"),
    "forget_datasets": (EVENTS, "evt.*.dataset.*"),
    "answer": (EVENTS, "evt.*.conversation.*"),
}
"""The durable consumers: name, stream and what it takes from it."""


def consumer_config(name: str) -> ConsumerConfig:
    """The durable consumer of this name: nothing is given up, a failed message comes again."""
    _, subject = CONSUMERS[name]
    return ConsumerConfig(
        durable_name=name,
        filter_subject=subject,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT_S,
        max_deliver=-1,
        max_ack_pending=1000,
    )


async def set_up(js: JetStreamContext, *, replicas: int = 1) -> None:
    """Make what is missing; what is there is left as it is. Safe to call from several processes at once."""
    for stream in STREAMS:
        await _make(js.stream_info, [str(stream.name)], partial(js.add_stream, stream, num_replicas=replicas))
    for name, (stream_name, _) in CONSUMERS.items():
        await _make(js.consumer_info, [stream_name, name], partial(js.add_consumer, stream_name, consumer_config(name)))
    blobs = ObjectStoreConfig(bucket=BLOBS, replicas=replicas)
    await _make(js.stream_info, [f"OBJ_{BLOBS}"], partial(js.create_object_store, BLOBS, blobs))
    snapshots = KeyValueConfig(bucket=SNAPSHOTS, history=1, replicas=replicas, direct=True)
    await _make(js.stream_info, [f"KV_{SNAPSHOTS}"], partial(js.create_key_value, snapshots))


async def _make(
    look: Callable[..., Awaitable[object]], names: list[str], make: Callable[[], Awaitable[object]]
) -> None:
    try:
        await look(*names)
    except NotFoundError:
        with suppress(BadRequestError):  # another process made it between the look and now
            await make()
