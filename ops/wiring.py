"""The composition root: which adapter stands behind which port, and what each role runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

import nats
import structlog
from faststream.nats import NatsBroker
from nats.aio.client import Client

from adapters import pgvector
from adapters.chat_models import TenantModels
from adapters.embedding import NatsEmbedder, serve
from adapters.embedding_model import dimension, find_model
from adapters.files import FileExtractor
from adapters.jetstream import streams
from adapters.jetstream.blobs import JetStreamBlobs
from adapters.jetstream.commands import subscribe_commands
from adapters.jetstream.live import NatsLive
from adapters.jetstream.log import JetStreamLog
from adapters.jetstream.outcomes import JetStreamOutcomes
from adapters.jetstream.reactions import subscribe_reaction
from adapters.jetstream.snapshots import JetStreamSnapshots
from adapters.jetstream.stops import NatsStops
from adapters.jetstream.store import JetStreamEventStore
from adapters.openai_compatible import Patience
from adapters.pgvector import PgvectorIndex
from adapters.postgres import tables
from adapters.postgres.projector import Projector
from adapters.segmenter import TokenSegmenter
from adapters.sentence_transformers import Engine
from adapters.vault import AesVault
from domain.provider import Provider
from handlers.answer import Answer
from handlers.dispatch import Dispatch
from handlers.forget import Forget
from handlers.ingest import Ingest
from handlers.model_calls import ModelCalls
from handlers.repository import Repository
from handlers.retrieve import Retrieve
from ops.settings import Settings

log = structlog.get_logger(__name__)

DOCUMENTS_AT_ONCE = 8
ANSWERS_AT_ONCE = 64
"""By one worker; more workers, more at once."""

_PATIENT: dict[str, Any] = {"max_reconnect_attempts": -1, "reconnect_time_wait": 0.5, "connect_timeout": 5}
"""A server that is away is waited for without end."""


async def set_up(settings: Settings) -> None:
    """Make the streams, the tables and the index where they are missing."""
    async with House(settings, "set-up") as house:
        await streams.set_up(house.nc.jetstream(), replicas=settings.replicas)
    await tables.set_up(settings.postgres_url)
    await pgvector.set_up(settings.postgres_url, dimension(find_model(settings.embedding_model)))


class House:
    """The adapters that all roles share, open as long as the context is."""

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
        return await self.open.enter_async_context(PgvectorIndex(self.settings.postgres_url))

    async def embedder(self) -> NatsEmbedder:
        return await self.open.enter_async_context(NatsEmbedder(self.nc, self.settings.embedding_model))

    def segmenter(self) -> TokenSegmenter:
        return TokenSegmenter(self.settings.embedding_model)

    async def provider(self, tenant: str, name: str) -> tuple[str, str] | None:
        """The newest address and key of a registered provider."""
        provider = await self.repository.get(Provider, tenant, name)
        if provider is None or provider.deleted:
            return None
        return provider.base_url, self.vault.open(tenant, provider.sealed_key)


async def _note(error: Exception) -> None:
    log.warning("nats", reason=repr(error))


async def commands(house: House) -> None:
    """Dispatch commands."""
    dispatch = Dispatch(house.repository, JetStreamOutcomes(house.nc), house.blobs, house.vault)
    subscribe_commands(house.broker, dispatch)


async def project(house: House) -> Awaitable[None]:
    """Keep the tables."""
    return Projector(house.settings.postgres_url, JetStreamLog(house.nc), house.blobs).run()


async def ingest(house: House) -> None:
    """Bring documents into the index, and take deleted ones out."""
    index, embedder = await house.index(), await house.embedder()
    extractor = await house.open.enter_async_context(FileExtractor())
    react = Ingest(house.repository, house.calls, house.blobs, extractor, house.segmenter(), embedder, index)
    forget = Forget(index)
    subscribe_reaction(house.broker, "ingest", react, workers=DOCUMENTS_AT_ONCE)
    subscribe_reaction(house.broker, "forget_documents", forget, workers=DOCUMENTS_AT_ONCE)
    subscribe_reaction(house.broker, "forget_datasets", forget, workers=1)


async def answer(house: House) -> None:
    """Answer messages."""
    silence = house.settings.model_timeout_s
    models = TenantModels(house.provider, Patience(first_token=silence, between_tokens=silence))
    house.open.push_async_callback(models.close)
    stops = NatsStops(house.nc)
    await stops.start()
    index, embedder = await house.index(), await house.embedder()
    retrieve = Retrieve(house.repository, house.calls, house.segmenter(), embedder, index)
    react = Answer(house.repository, house.calls, retrieve, models, NatsLive(house.nc), stops)
    subscribe_reaction(house.broker, "answer", react, workers=ANSWERS_AT_ONCE)


async def embed(house: House) -> Awaitable[None]:
    """Run the embedding model."""
    settings = house.settings
    engine = Engine(settings.embedding_model, dtype=settings.embedding_dtype, device=settings.embedding_device)
    return serve(house.nc, engine)


ROLES: dict[str, Callable[[House], Awaitable[Awaitable[None] | None]]] = {
    "commands": commands,
    "project": project,
    "ingest": ingest,
    "answer": answer,
    "embed": embed,
}
"""What each role begins, and what it then waits for."""
