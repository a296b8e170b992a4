"""The composition root: what every role stands on. What a role adds is in its file in `ops/roles`."""

from __future__ import annotations

from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import nats
import structlog
from faststream.nats import NatsBroker
from nats.aio.client import Client

from adapters.embedding_model import dimension, find_model
from adapters.jetstream import streams
from adapters.jetstream.blobs import JetStreamBlobs
from adapters.jetstream.snapshots import JetStreamSnapshots
from adapters.jetstream.store import JetStreamEventStore
from adapters.vault import AesVault
from handlers.model_calls import ModelCalls
from handlers.repository import Repository
from ops.settings import Settings

if TYPE_CHECKING:
    from adapters.pgvector import PgvectorIndex

log = structlog.get_logger(__name__)

_PATIENT: dict[str, Any] = {"max_reconnect_attempts": -1, "reconnect_time_wait": 0.5, "connect_timeout": 5}
"""A server that is away is waited for without end."""


class House:
    """The adapters that roles share, open as long as the context is; entering makes the streams that are missing."""

    nc: Client
    broker: NatsBroker

    def __init__(self, settings: Settings, name: str) -> None:
        self.settings = settings
        self.name = f"headrace {name}"
        self.open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        options = _PATIENT | {"servers": self.settings.nats_url.split(","), "name": self.name, "error_cb": _note}
        if self.settings.nats_credentials:
            options["user_credentials"] = str(self.settings.nats_credentials)
        self.nc = await nats.connect(**options)
        self.open.push_async_callback(self.nc.close)
        await streams.set_up(self.nc.jetstream(), replicas=self.settings.replicas)
        self.broker = NatsBroker(**options, apply_types=False, logger=None, graceful_timeout=10)
        self.open.push_async_callback(self.broker.stop)
        self.repository = Repository(JetStreamEventStore(self.nc), JetStreamSnapshots(self.nc))
        self.calls = ModelCalls(self.repository)
        self.blobs = JetStreamBlobs(self.nc)
        self.vault = AesVault(self.settings.secret())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.open.aclose()

    async def index(self) -> PgvectorIndex:
        """The index, made where it is missing; only those who search load its driver."""
        from adapters import pgvector

        await pgvector.set_up(self.settings.postgres_url, dimension(find_model(self.settings.embedding_model)))
        return await self.open.enter_async_context(pgvector.PgvectorIndex(self.settings.postgres_url))


async def _note(error: Exception) -> None:
    log.warning("nats", reason=repr(error))
