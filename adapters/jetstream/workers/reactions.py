"""Gives the commits of the log to those who react to them, at least once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

import orjson
import structlog
from faststream.nats import NatsBroker
from nats.aio.client import Client
from nats.aio.msg import Msg

from adapters.jetstream.codec import NO_CIPHERS, UnknownEvent, decode_commit, metadata
from adapters.jetstream.direct import DirectReader, sequence
from adapters.jetstream.keys import JetStreamKeys
from adapters.jetstream.workers.consumer import subscribe
from adapters.jetstream.workers.dead_letters import JetStreamDeadLetters
from domain.log import EVENTS, Commit, Metadata, Position
from domain.work.dead_letter import DeadLetter, dead_letter_id
from handlers.repository import Repository
from handlers.work.dead_letters import Bury, Death
from handlers.work.revive import reopen

log = structlog.get_logger(__name__)


def subscribe_reaction(
    broker: NatsBroker,
    name: str,
    react: Callable[[Commit], Awaitable[None]],
    *,
    workers: int,
    repository: Repository,
    keys: JetStreamKeys | None = None,
) -> None:
    """Give every commit of the consumer `name` to `react`, at most `workers` at a time.

    A commit that died comes again when its letter is retried.
    """
    buried = Bury(repository)

    async def handle(message: Msg) -> None:
        arrived = _Arrived.by(message)
        commit = await arrived.commit(keys)
        if commit is None:
            return
        with structlog.contextvars.bound_contextvars(
            tenant=commit.metadata.tenant,
            correlation=commit.metadata.correlation,
            causation=commit.metadata.id,
        ):
            original = await _died(message._client, name, arrived)
            again = original and await original.commit(keys)
            if again and not await reopen(repository, name, again, commit.metadata):
                await react(again)
            if commit.subject.noun != DeadLetter.TOPIC or name == "revive":  # no letter is about another letter
                await react(commit)

    async def bury(message: Msg, death: Death) -> None:
        arrived = _Arrived.by(message)
        arrived = await _died(message._client, name, arrived) or arrived
        told, subject = arrived.metadata(), arrived.subject
        letter = dead_letter_id(name, told.tenant, told.id)
        await JetStreamDeadLetters(message._client).keep(
            letter, told.id, arrived.headers, arrived.data, replace(death, subject=subject)
        )
        commit = None
        with suppress(Exception):  # what cannot be read has nobody who waits for it
            commit = await arrived.commit(keys)
        await buried(told, replace(death, subject=subject), commit)

    subscribe(broker, name, handle, workers=workers, bury=bury)


@dataclass(frozen=True, slots=True)
class _Arrived:
    """A message of EVENTS, which may not be readable."""

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

    async def commit(self, keys: JetStreamKeys | None) -> Commit | None:
        """What it says, or None when a newer version wrote it. Raises: Unavailable."""
        position = Position(EVENTS, self.sequence)
        if keys and (person := self.headers.get("Headrace-Person")):
            await keys.load([(self.subject.split(".")[1], person)])
        try:
            return decode_commit(self.subject, self.data, self.headers, position, self.at, keys or NO_CIPHERS)
        except UnknownEvent as unknown:
            log.warning("skipped an unknown event", type=str(unknown), **position._asdict())
            return None

    def metadata(self) -> Metadata:
        found = metadata(self.headers, self.subject.split(".")[1])
        return found if found.id else replace(found, id=f"{EVENTS}:{self.sequence}")


async def _died(nc: Client, consumer: str, arrived: _Arrived) -> _Arrived | None:
    """The message whose letter of this consumer is to be retried, if that is what arrived. Raises: Unavailable."""
    if DeadLetter.Retried.TOPIC not in arrived.headers.get("Headrace-Types", ""):
        return None
    for event in orjson.loads(arrived.data):
        if event["type"] == DeadLetter.Retried.TOPIC and event["state"]["consumer"] == consumer:
            found = await DirectReader(nc, timeout_s=5.0).at(EVENTS, event["state"]["sequence"])
            return _Arrived.stored(found) if found else None
    return None
