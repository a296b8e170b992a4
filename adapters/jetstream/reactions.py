"""Gives the commits of the log to those who react to them, at least once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
from faststream.nats import NatsBroker
from nats.aio.msg import Msg

from adapters.jetstream.codec import UnknownEvent, decode_commit
from adapters.jetstream.consumer import subscribe
from domain.log import EVENTS, Commit, Position

log = structlog.get_logger(__name__)


def subscribe_reaction(
    broker: NatsBroker, name: str, react: Callable[[Commit], Awaitable[None]], *, workers: int
) -> None:
    """Give every commit of the consumer `name` to `react`, at most `workers` at a time."""

    async def handle(message: Msg) -> None:
        place = message.metadata
        position = Position(EVENTS, place.sequence.stream)
        try:
            commit = decode_commit(message.subject, message.data, message.headers or {}, position, place.timestamp)
        except UnknownEvent as unknown:
            log.warning("skipped an unknown event", type=str(unknown), **position._asdict())
            return
        with structlog.contextvars.bound_contextvars(
            tenant=commit.metadata.tenant,
            correlation=commit.metadata.correlation,
            causation=commit.metadata.id,
        ):
            await react(commit)

    subscribe(broker, name, handle, workers=workers)
