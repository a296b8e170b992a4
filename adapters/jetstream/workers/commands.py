"""Takes commands off the bus: `cmd.<tenant>.<noun>.<verb>`, a JSON body, the id in `Nats-Msg-Id`."""

from __future__ import annotations

import math
import re
import time
from dataclasses import replace
from datetime import datetime
from uuid import UUID

import structlog
from nats.aio.msg import Msg

from adapters.jetstream.codec import metadata
from adapters.jetstream.direct import alone
from adapters.jetstream.live import NatsLive
from adapters.jetstream.nats_py import connection_of
from adapters.jetstream.streams import COMMANDS, DUPLICATE_WINDOW_S
from adapters.jetstream.workers.consumer import subscribe
from adapters.jetstream.workers.consumers import Consumers
from adapters.jetstream.workers.dead_letters import JetStreamDeadLetters
from domain.aggregate import Rejection, uuid7
from domain.log import NOT_FINAL, Metadata, commit_id
from domain.work.dead_letter import dead_letter_id
from handlers.dispatch import TENANT, Delivery, Dispatch
from handlers.repository import Repository
from handlers.routes import is_private
from handlers.work.dead_letters import Failure, GiveUp

SLOTS, SHARE = 150, 100
"""Maximum number of commands that a worker handles at a time, of all tenants and of one."""

NO_TENANT = "_"
"""Tenant of a command that names none that is valid; no subject of the log holds this name."""

_PRINTABLE = re.compile(r"[^\x00-\x1f\x7f]{0,255}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.{0,255})?")


def subscribe_commands(consumers: Consumers, dispatch: Dispatch, repository: Repository) -> None:
    """Dispatch every command; one whose handling keeps failing is rejected as `internal_error`."""
    server = _Server()

    async def handle(message: Msg) -> None:
        delivery = read(message, server.up_since(message))
        with structlog.contextvars.bound_contextvars(
            tenant=delivery.metadata.tenant,
            correlation=delivery.metadata.correlation,
            command=delivery.metadata.id,
        ):
            await dispatch(delivery)

    async def gave_up(message: Msg, failure: Failure) -> None:
        delivery = read(message)
        metadata = delivery.metadata
        if is_private(delivery.name):  # secrets and words must not get into the log
            failure = replace(failure, reason=failure.reason.partition(":")[0])
        letter = dead_letter_id(failure.consumer, metadata.tenant, metadata.id)
        headers = message.headers or {}
        nc = connection_of(message)
        await JetStreamDeadLetters(nc).keep(letter, metadata.id, headers, message.data, failure)
        await GiveUp(repository, NatsLive(nc))(metadata, failure)
        sentence = f"The command could not be handled; it is kept as dead letter {letter}."
        fault = Rejection(NOT_FINAL, sentence)
        await dispatch(Delivery(delivery.name, b"", metadata, delivery.at, fault))

    subscribe(consumers, "commands", handle, slots=SLOTS, share=SHARE, give_up=gave_up, finishes=True)


class _Server:
    """The server as this process knows it: one that was restarted has forgotten the ids of what was acknowledged."""

    def __init__(self) -> None:
        self._reconnects = -1
        self._since = math.inf

    def up_since(self, message: Msg) -> float:
        """Unix seconds of the first message that came over the connection as it is; never, where another server than
        the one that is connected may have been restarted."""
        if not alone(connection_of(message)):
            return math.inf
        reconnects = connection_of(message).stats["reconnects"]
        if reconnects != self._reconnects:
            self._reconnects, self._since = reconnects, time.time()
        return self._since


def read(message: Msg, up_since: float = math.inf) -> Delivery:
    """The command as it came; what its subject and headers break of the rules is its fault.

    Without an id it has one made of its place in the stream, the same however often it is delivered. One that comes
    again from the dead letters has its id in `Headrace-Id`.
    """
    place = message.metadata
    _, tenant, name = (*message.subject.replace("\0", "�").split(".", 2), "")[:3]
    headers = message.headers or {}
    again = headers.get("Headrace-Id", "")
    given = again or headers.get("Nats-Msg-Id", "")
    fault = None
    if not given:
        milliseconds = int(place.timestamp.timestamp() * 1000)
        id = uuid7(milliseconds, place.sequence.stream.to_bytes(10, "big"))
    elif _is_uuid(given):
        id = given.lower()
    else:
        id = commit_id(given, COMMANDS)
        fault = Rejection(
            "invalid", f"Must be a UUID, not {given[:100]!r}; the outcome is kept as {id}.", "Nats-Msg-Id"
        )
    if not TENANT.fullmatch(tenant):
        fault = Rejection("invalid", f"{tenant[:100]!r} is not a tenant (a-z, 0-9, _ and -).", "subject")
        tenant = NO_TENANT
    for header in ("Headrace-Correlation", "Headrace-Actor"):
        if not _PRINTABLE.fullmatch(headers.get(header, "")):
            fault = Rejection("invalid", "Must be at most 255 printable characters.", header)
            headers = {**headers, header: ""}
    found = metadata(headers, tenant)
    trace = found.traceparent if _TRACEPARENT.fullmatch(found.traceparent or "") else None
    return Delivery(
        name,
        message.data,
        Metadata(id, tenant, headers.get("Headrace-Correlation") or id, None, found.actor, trace),
        place.timestamp,
        fault,
        fresh=not again and place.num_delivered == 1 and _is_young(id, place.timestamp, up_since),
    )


def _is_young(id: str, at: datetime, up_since: float) -> bool:
    """An id made less than half a window of the stream's deduplication ago, and since the server is up: had it come
    before, it would not be here.

    A publisher whose clock is half a window fast is caught by the ids of the aggregate's commits.
    """
    uuid = UUID(id)
    made, came = (uuid.int >> 80) / 1000, at.timestamp()
    return uuid.version == 7 and max(up_since, came - DUPLICATE_WINDOW_S / 2) < made < came + 1


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False
