"""Answers messages, queries datasets, and makes recorded model calls again."""

from __future__ import annotations

from adapters.jetstream.live import NatsLive
from adapters.jetstream.stops import NatsStops
from adapters.jetstream.workers.reactions import subscribe_reaction
from adapters.model_files import model_name
from adapters.models.registry import TenantModels
from adapters.models.rerankers import TenantRerankers
from adapters.models.server import Patience
from adapters.postgres.documents import PostgresDocuments
from domain.models.provider import Provider
from handlers.chat.answer import Answer
from handlers.models.replay import ReplayCall
from handlers.retrieval.extract_filter import ExtractFilter
from handlers.retrieval.query_datasets import QueryDatasets
from handlers.retrieval.rerank import Rerank
from handlers.retrieval.retrieve import Retrieve
from ops.wiring import House

ANSWERS_AT_ONCE = 64
QUERIES_AT_ONCE = 8
REPLAYS_AT_ONCE = 8
"""By one worker; more workers, more at once."""


async def begin(house: House) -> None:
    silence = house.settings.model_timeout_s

    async def registered(tenant: str, name: str) -> tuple[str, str] | None:
        provider = await house.repository.get(Provider, tenant, name)
        if provider is None or provider.deleted:
            return None
        return provider.base_url, house.vault.open(tenant, provider.sealed_key)

    models = TenantModels(registered, Patience(first_token=silence, between_tokens=silence))
    house.open.push_async_callback(models.close)
    stops = NatsStops(house.nc)
    await stops.start()
    reranker = house.settings.rerank_model
    rerankers = TenantRerankers(house.nc, model_name(reranker) if reranker else "", registered)
    house.open.push_async_callback(rerankers.close)
    retrieve = Retrieve(
        house.repository,
        house.calls,
        await house.embedding_models(),
        await house.index(),
        await house.open.enter_async_context(PostgresDocuments(house.settings.postgres_url)),
        Rerank(house.calls, rerankers),
        ExtractFilter(house.calls, models),
    )
    answer = Answer(house.repository, house.calls, retrieve, models, NatsLive(house.nc), stops)
    subscribe_reaction(
        house.broker, "answer", answer, workers=ANSWERS_AT_ONCE, repository=house.repository, keys=house.keys
    )
    subscribe_reaction(
        house.broker,
        "query_datasets",
        QueryDatasets(house.repository, retrieve),
        workers=QUERIES_AT_ONCE,
        repository=house.repository,
        keys=house.keys,
    )
    replay = ReplayCall(house.repository, house.calls, models)
    subscribe_reaction(
        house.broker, "replay", replay, workers=REPLAYS_AT_ONCE, repository=house.repository, keys=house.keys
    )
