"""The role `answer`: answers messages, queries datasets, replays model calls."""

from __future__ import annotations

from adapters.jetstream.live import NatsLive
from adapters.jetstream.outages import NatsOutages
from adapters.jetstream.stops import NatsStops
from adapters.model_files import model_name
from adapters.models.filter_api import TenantFilters
from adapters.models.registry import TenantModels, TenantRerankers
from adapters.models.schemas import ContainedSchemas
from adapters.models.sentences import ContainedSentences
from adapters.models.server import Patience
from adapters.postgres.annotations import PostgresAnnotations
from adapters.postgres.documents import PostgresDocuments
from domain.models.provider import Provider
from handlers.chat.annotations import MatchAnnotation
from handlers.chat.answer import Answer
from handlers.chat.moderate import Moderate
from handlers.chat.suggest import Suggest
from handlers.models.replay import ReplayCall
from handlers.retrieval.extract_filter import ExtractFilter
from handlers.retrieval.query_datasets import QueryDatasets
from handlers.retrieval.rerank import Rerank
from handlers.retrieval.retrieve import Retrieve
from ops.egress import egress
from ops.wiring import Wiring


async def begin(wiring: Wiring) -> None:
    silence = wiring.settings.model_timeout_s

    async def registered(tenant: str, name: str) -> tuple[str, str] | None:
        provider = await wiring.repository.get(Provider, tenant, name)
        if provider is None or provider.deleted:
            return None
        return provider.base_url, wiring.vault.open(tenant, provider.sealed_key)

    sentences = await wiring.open.enter_async_context(ContainedSentences(await wiring.sandbox()))
    patience = Patience(first_token=silence, between_tokens=silence)
    allowed = egress(wiring.settings)
    outages = NatsOutages(wiring.nc)
    await outages.start()
    models = TenantModels(registered, allowed, patience, sentences.answering, outages)
    wiring.open.push_async_callback(models.close)
    stops = NatsStops(wiring.nc)
    await stops.start()
    reranker = wiring.settings.rerank_model
    builtin = model_name(reranker) if reranker else ""
    rerankers = TenantRerankers(wiring.nc, builtin, registered, allowed, outages=outages)
    wiring.open.push_async_callback(rerankers.close)
    embedding_models = await wiring.embedding_models()
    retrieve = Retrieve(
        wiring.repository,
        wiring.calls,
        embedding_models,
        await wiring.index(),
        await wiring.open.enter_async_context(PostgresDocuments(wiring.settings.postgres_url)),
        Rerank(wiring.calls, rerankers),
        ExtractFilter(wiring.calls, models),
    )
    annotations = await wiring.open.enter_async_context(PostgresAnnotations(wiring.settings.postgres_url))
    filters = TenantFilters(registered, allowed)
    wiring.open.push_async_callback(filters.close)
    answer = Answer(
        wiring.repository,
        wiring.calls,
        retrieve,
        models,
        NatsLive(wiring.nc),
        stops,
        sentences,
        Moderate(wiring.calls, models, filters),
        MatchAnnotation(wiring.repository, wiring.calls, embedding_models, annotations),
        await wiring.open.enter_async_context(ContainedSchemas(await wiring.sandbox())),
    )
    wiring.work("answer", answer)
    wiring.work("suggest", Suggest(wiring.repository, wiring.calls, models, NatsLive(wiring.nc)))
    wiring.work("query_datasets", QueryDatasets(wiring.repository, retrieve))
    wiring.work("replay", ReplayCall(wiring.repository, wiring.calls, models, wiring.files))
