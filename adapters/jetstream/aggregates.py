"""All aggregates of a kind, read from the log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TypeVar

import nats.errors
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from domain.aggregate import Aggregate
from domain.log import EVENTS
from handlers.ports.log import Unavailable
from handlers.repository import Repository

A = TypeVar("A", bound=Aggregate)


async def every(nc: Client, repository: Repository, kind: type[A]) -> AsyncIterator[tuple[str, A]]:
    """Yield each aggregate of this kind with its tenant, deleted ones as well. Raises: Unavailable."""
    for tenant, id in await ids(nc, kind):
        if found := await repository.get(kind, tenant, id):
            yield tenant, found


async def ids(nc: Client, kind: type[Aggregate]) -> list[tuple[str, str]]:
    """Return tenant and id of each aggregate of this kind, deleted ones as well. Raises: Unavailable."""
    try:
        info = await nc.jetstream().stream_info(EVENTS, subjects_filter=f"evt.*.{kind.TOPIC}.*")
    except NotFoundError:
        return []
    except nats.errors.Error as error:
        raise Unavailable(f"Stream {EVENTS} cannot be read: {error!r}") from error
    subjects = (subject.split(".") for subject in sorted(info.state.subjects or {}))
    return [(tenant, id) for _, tenant, _, id in subjects]
