"""Delivers the commits of the log to the handlers of works, at least once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

import orjson
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from adapters.jetstream.bulk import Stored
from adapters.jetstream.codec import NO_CIPHERS, decode, metadata
from adapters.jetstream.direct import DirectReader, sequence
from adapters.jetstream.keys import JetStreamKeys, people
from adapters.jetstream.large_values import fetch
from adapters.jetstream.live import NatsLive
from adapters.jetstream.nats_py import connection_of
from adapters.jetstream.workers.consumer import Concerns, subscribe
from adapters.jetstream.workers.consumers import Consumers
from adapters.jetstream.workers.dead_letters import JetStreamDeadLetters
from domain.aggregate import Event
from domain.log import EVENTS, Commit, Metadata, Position, Quarantined
from domain.work.dead_letter import DeadLetter, dead_letter_id
from handlers.ports.log import Blobs
from handlers.repository import Repository
from handlers.work.dead_letters import Failure, GiveUp, reopen
from handlers.work.work import WORKS, Work

log = structlog.get_logger(__name__)


def subscribe_work(
    consumers: Consumers,
    name: str,
    handler: Callable[[Commit], Awaitable[None]],
    *,
    repository: Repository,
    blobs: Blobs,
    keys: JetStreamKeys | None = None,
) -> None:
    """Have `handler` do the work of this name in the table of works, which its commits begin.

    When a dead letter of this consumer is retried, its commit is handled again.
    """
    work = WORKS[name]

    async def handle(message: Msg) -> None:
        arrived = _Arrived.by(message)
        commit = await arrived.commit(keys, blobs)
        if commit is None:
            return
        with structlog.contextvars.bound_contextvars(
            tenant=commit.metadata.tenant,
            correlation=commit.metadata.correlation,
            causation=commit.metadata.id,
        ):
            original = await _retried(connection_of(message), name, arrived)
            again = original and await original.commit(keys, blobs)
            if again and not await reopen(repository, name, again, commit.metadata) and work.is_begun_by(again):
                await handler(again)
            if work.is_begun_by(commit):
                repository.follow(commit)
                await handler(commit)

    async def gave_up(message: Msg, failure: Failure) -> None:
        nc, arrived = connection_of(message), _Arrived.by(message)
        arrived = await _retried(nc, name, arrived) or arrived
        metadata, failure = arrived.metadata(), replace(failure, subject=arrived.subject)
        letter = dead_letter_id(name, metadata.tenant, metadata.id)
        await JetStreamDeadLetters(nc).keep(letter, metadata.id, arrived.headers, arrived.data, failure)
        commit = None
        with suppress(Exception):  # no work waits for a commit that cannot be read
            commit = await arrived.commit(keys, blobs)
        await GiveUp(repository, NatsLive(nc))(metadata, failure, commit)

    subscribe(
        consumers,
        name,
        handle,
        concerns=_begins(work),
        slots=work.slots,
        share=work.share,
        give_up=gave_up,
        tries=work.tries,
        finishes=work.watched,
    )


def _begins(work: Work) -> Concerns:
    """Return whether a message may begin this work, by its headers: one that does not need not wait for its turn."""
    kinds: list[type[Event]] = [*work.begins, DeadLetter.Retried]
    names = {kind.TOPIC.rpartition(".")[0] for kind in kinds}

    def begins(headers: bytes) -> bool:
        _, stated, rest = headers.partition(b"\r\nHeadrace-Types: ")
        types = rest.partition(b"\r\n")[0].decode(errors="replace").split(",")
        return not stated or any(type.rpartition(".")[0] in names for type in types)

    return begins


@dataclass(frozen=True, slots=True)
class _Arrived:
    """A message of EVENTS, which may be unreadable."""

    subject: str
    headers: dict[str, str]
    data: bytes
    sequence: int
    at: datetime

    @classmethod
    def by(cls, message: Msg) -> _Arrived:
        place = message.metadata
        headers = dict(message.headers or {})
        return cls(message.subject, headers, message.data, place.sequence.stream, place.timestamp)

    @classmethod
    def stored(cls, message: Msg) -> _Arrived:
        headers = dict(message.headers or {})
        at = datetime.fromisoformat(headers["Nats-Time-Stamp"])
        return cls(headers["Nats-Subject"], headers, message.data, sequence(message), at)

    async def commit(self, keys: JetStreamKeys | None, blobs: Blobs) -> Commit | None:
        """Its content, or None when it is in quarantine. Raises: Unavailable."""
        position = Position(EVENTS, self.sequence)
        messages = [Stored(self.subject, "", self.headers, self.data)]
        if keys:
            await keys.load(people(messages))
        large = await fetch(blobs, messages)
        found = decode(self.subject, self.data, self.headers, position, self.at, keys or NO_CIPHERS, large)
        match found:
            case Commit():
                return found
            case Quarantined():
                log.warning("skipped", reason=found.reason, **position._asdict())
        return None

    def metadata(self) -> Metadata:
        found = metadata(self.headers, self.subject.split(".")[1])
        return found if found.id else replace(found, id=f"{EVENTS}:{self.sequence}")


async def _retried(nc: Client, consumer: str, arrived: _Arrived) -> _Arrived | None:
    """The message of this consumer whose dead letter is retried, if that is what arrived. Raises: Unavailable."""
    if DeadLetter.Retried.TOPIC not in arrived.headers.get("Headrace-Types", ""):
        return None
    for event in orjson.loads(arrived.data):
        if event["type"] == DeadLetter.Retried.TOPIC and event["state"]["consumer"] == consumer:
            found = await DirectReader(nc, timeout_s=5.0).at(EVENTS, event["state"]["sequence"])
            return _Arrived.stored(found) if found else None
    return None
