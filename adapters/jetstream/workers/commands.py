"""Takes commands off the bus: `cmd.<tenant>.<actor>.<noun>.<verb>`, a JSON body, the id in `Headrace-Id`."""

from __future__ import annotations

import re
from dataclasses import replace
from uuid import UUID

import nats.errors
import structlog
from nats.aio.msg import Msg

from adapters.jetstream.live import NatsLive
from adapters.jetstream.nats_py import connection_of
from adapters.jetstream.streams import ACTORS_AFTER, COMMANDS
from adapters.jetstream.workers.consumer import subscribe
from adapters.jetstream.workers.consumers import Consumers
from adapters.jetstream.workers.dead_letters import JetStreamDeadLetters
from domain.access.actor import ANON, BUS, CommandSubject, door
from domain.access.door import ORIGIN
from domain.access.tenant import TENANT_OR_HOUSE
from domain.aggregate import Rejection, uuid7
from domain.log import NOT_FINAL, Metadata, commit_id
from domain.work.dead_letter import dead_letter_id
from handlers.dispatch import Delivery, Dispatch
from handlers.ports.log import Unavailable
from handlers.repository import Repository
from handlers.routes import is_private
from handlers.work.dead_letters import Failure, GiveUp

SLOTS, SHARE = 150, 100
"""Maximum number of commands that a worker handles at a time, of all tenants and of one."""

NO_TENANT = "_"
"""Tenant of a command that names none that is valid; no subject of the log holds this name."""

_NO_ACTOR = (
    "Commands go to cmd.<tenant>.<actor>.<noun>.<verb>, where the actor is s_<name of the bus login>, a_<account>, "
    "k_<key> or anon, not {!r}. Send the command there, under another id in Headrace-Id."
)
_NO_MSG_ID = (
    "Must be left out: NATS drops a message with the Nats-Msg-Id of another, whichever tenant sent that. Send the "
    "command under another id, in Headrace-Id."
)

_PRINTABLE = re.compile(r"[^\x00-\x1f\x7f]{0,255}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.{0,255})?")


def subscribe_commands(consumers: Consumers, dispatch: Dispatch, repository: Repository) -> None:
    """Dispatch every command; one whose handling keeps failing is rejected as `internal_error`."""

    async def handle(message: Msg) -> None:
        delivery = read(message, await _is_old(message))
        with structlog.contextvars.bound_contextvars(
            tenant=delivery.metadata.tenant,
            correlation=delivery.metadata.correlation,
            command=delivery.metadata.id,
        ):
            await dispatch(delivery)

    async def gave_up(message: Msg, failure: Failure) -> None:
        delivery = read(message, await _is_old(message))
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


async def _is_old(message: Msg) -> bool:
    """Return whether an earlier version stored this command, under a subject without an actor.

    Raises: Unavailable.
    """
    if not CommandSubject.of(message.subject).is_old:
        return False
    try:
        config = (await connection_of(message).jetstream().stream_info(COMMANDS)).config
    except nats.errors.Error as error:
        raise Unavailable(f"NATS does not answer: {error!r}") from error
    until = (config.metadata or {}).get(ACTORS_AFTER)
    return until is None or message.metadata.sequence.stream <= int(until)


def read(message: Msg, old: bool = False) -> Delivery:
    """The command as it came; what its subject and headers break of the rules is its fault.

    An `old` one needs no actor, and may have its id in `Nats-Msg-Id`.
    Without an id it has one made of its place in the stream, the same however often it is delivered.
    """
    place = message.metadata
    tenant, actor, name = CommandSubject.of(message.subject.replace("\0", "�"))
    headers = message.headers or {}
    given = headers.get("Headrace-Id") or headers.get("Nats-Msg-Id", "")
    fault = None
    if not given:
        milliseconds = int(place.timestamp.timestamp() * 1000)
        id = uuid7(milliseconds, place.sequence.stream.to_bytes(10, "big"))
    elif _is_uuid(given):
        id = given.lower()
    else:
        id = commit_id(given, COMMANDS)
        sentence = f"Must be a UUID, not {given[:100]!r}; the outcome is kept as {id}."
        fault = Rejection("invalid", sentence, "Headrace-Id")
    if "Nats-Msg-Id" in headers and not old:
        fault = Rejection("invalid", _NO_MSG_ID, "Nats-Msg-Id")
    if not actor and not old:
        fault = Rejection("invalid", _NO_ACTOR.format(name.partition(".")[0][:100]), "subject")
    actor = actor or ANON
    if not TENANT_OR_HOUSE.fullmatch(tenant):
        fault = Rejection("invalid", f"{tenant[:100]!r} is not a tenant (a-z, 0-9, _ and -).", "subject")
        tenant = NO_TENANT
    correlation = headers.get("Headrace-Correlation", "")
    if not _PRINTABLE.fullmatch(correlation):
        fault = Rejection("invalid", "Must be at most 255 printable characters.", "Headrace-Correlation")
        correlation = ""
    trace = headers.get("traceparent", "")
    by = door(actor, headers.get("Headrace-Door"))
    origin = headers.get("Headrace-Origin", "") if by != BUS else ""
    metadata = Metadata(
        id,
        tenant,
        correlation or id,
        actor=actor,
        traceparent=trace if _TRACEPARENT.fullmatch(trace) else None,
        door=by,
        origin=origin if ORIGIN.fullmatch(origin) else None,
    )
    return Delivery(name, message.data, metadata, place.timestamp, fault)


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False
