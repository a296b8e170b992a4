"""The role `answer`: answers messages, names conversations, queries datasets, replays calls, checks providers.

It also runs agents, and lists the tools of toolsets.
"""

from __future__ import annotations

from dataclasses import replace

from nats.aio.msg import Msg

from adapters.documents.extract import FileExtractor
from adapters.egress.fetch import GuardedFetch
from adapters.jetstream.counters import JetStreamCounters
from adapters.jetstream.live import NatsLive
from adapters.jetstream.outages import NatsOutages
from adapters.jetstream.stops import NatsStops
from adapters.model_files import model_name
from adapters.models.catalogue import LogCatalogue
from adapters.models.filter_api import TenantFilters
from adapters.models.kinds import SPEAKERS, TRANSCRIBERS
from adapters.models.listing import TenantListings
from adapters.models.registry import OfKinds, TenantModels, TenantRerankers
from adapters.models.schemas import ContainedSchemas
from adapters.models.sentences import ContainedSentences
from adapters.models.server import Patience
from adapters.postgres.annotations import PostgresAnnotations
from adapters.postgres.documents import PostgresDocuments
from adapters.tools.builtin.page import FetchPage
from adapters.tools.builtin.search import DatasetToolbox, SearchKnowledge
from adapters.tools.builtin.toolbox import BuiltinToolbox
from adapters.tools.registry import KindsOfToolboxes, Make
from adapters.tools.sql.connections import connections
from adapters.tools.sql.toolbox import SqlToolboxes
from domain.models.model import Model
from domain.models.provider import Provider
from domain.models.route import ModelRoute
from handlers.abilities import Abilities
from handlers.chat.annotations import MatchAnnotation
from handlers.chat.answer import Answer
from handlers.chat.files import MessageFiles
from handlers.chat.moderate import Moderate
from handlers.chat.name import NameConversation
from handlers.chat.speak import Speak
from handlers.chat.suggest import Suggest
from handlers.chat.transcribe import Transcribe
from handlers.models.check import Check
from handlers.models.choose import Choose
from handlers.models.replay import ReplayCall
from handlers.retrieval.extract_filter import ExtractFilter
from handlers.retrieval.query_datasets import QueryDatasets
from handlers.retrieval.rerank import Rerank
from handlers.retrieval.retrieve import Retrieve
from handlers.tools.agent import Agent
from handlers.tools.offer import Offer
from handlers.tools.refresh import Refresh
from handlers.tools.resume import Resume
from handlers.tools.tool_calls import ToolCalls
from ops.egress import egress, file_egress
from ops.values import prices
from ops.wiring import Wiring


async def begin(wiring: Wiring) -> None:
    silence = wiring.settings.model_timeout_s

    async def registered(tenant: str, name: str) -> Provider | None:
        return await wiring.repository.get(Provider, tenant, name)

    sentences = await wiring.open.enter_async_context(ContainedSentences(await wiring.sandbox()))
    unseal = wiring.vault.open
    patience = Patience(first_token=silence, between_tokens=silence)
    allowed = egress(wiring.settings)
    outages = NatsOutages(wiring.nc)
    await outages.start()
    models = TenantModels(registered, unseal, allowed, patience, sentences.answering, outages)
    wiring.open.push_async_callback(models.close)
    catalogue = LogCatalogue(wiring.repository, prices(wiring.settings))
    choose = Choose(wiring.repository, models, outages, catalogue, JetStreamCounters(wiring.nc))

    async def changed(message: Msg) -> None:
        choose.forget(message.subject.split(".")[1])

    for noun in (Provider, Model, ModelRoute):
        await wiring.nc.subscribe(f"evt.*.{noun.TOPIC}.*", cb=changed)
    stops = NatsStops(wiring.nc)
    await stops.start()
    reranker = wiring.settings.rerank_model
    builtin = model_name(reranker) if reranker else ""
    rerankers = TenantRerankers(wiring.nc, builtin, registered, unseal, allowed, outages=outages)
    wiring.open.push_async_callback(rerankers.close)
    embedding_models = await wiring.embedding_models()
    retrieve = Retrieve(
        wiring.repository,
        wiring.calls,
        embedding_models,
        await wiring.index(),
        await wiring.open.enter_async_context(PostgresDocuments(wiring.settings.postgres_url)),
        Rerank(wiring.calls, rerankers),
        ExtractFilter(wiring.calls, choose),
    )
    extractor = await wiring.open.enter_async_context(FileExtractor(await wiring.sandbox()))
    fetch = GuardedFetch(file_egress(wiring.settings))
    annotations = await wiring.open.enter_async_context(PostgresAnnotations(wiring.settings.postgres_url))
    filters = TenantFilters(registered, unseal, allowed)
    wiring.open.push_async_callback(filters.close)
    live = NatsLive(wiring.nc)
    files = MessageFiles(
        wiring.files,
        fetch,
        extractor,
        embedding_models,
        sentences,
        Abilities(wiring.repository),
        wiring.settings.file_limits,
    )
    schemas = await wiring.open.enter_async_context(ContainedSchemas(await wiring.sandbox()))
    sql = await wiring.open.enter_async_context(
        SqlToolboxes(
            await wiring.sandbox(), wiring.blobs, connections(wiring.settings.tool_databases.get_secret_value())
        )
    )
    kinds: dict[str, Make] = {
        "sql": sql,
        "dataset": lambda tenant, toolset: DatasetToolbox(retrieve, toolset.description, toolset.settings),
    }
    toolboxes = KindsOfToolboxes(BuiltinToolbox(FetchPage(fetch, extractor), SearchKnowledge(retrieve)), kinds)
    agent = Agent(
        wiring.repository,
        wiring.calls,
        choose,
        Offer(wiring.repository, wiring.blobs, toolboxes),
        ToolCalls(wiring.repository, schemas, wiring.files),
        Abilities(wiring.repository),
    )
    answer = Answer(
        wiring.repository,
        wiring.calls,
        retrieve,
        choose,
        live,
        stops,
        sentences,
        Moderate(wiring.calls, choose, filters),
        MatchAnnotation(wiring.repository, wiring.calls, embedding_models, annotations),
        schemas,
        files,
        agent,
    )
    transcribers = OfKinds(TRANSCRIBERS, registered, unseal, allowed, patience, outages)
    speakers = OfKinds(SPEAKERS, registered, unseal, allowed, patience, outages)
    for clients in (transcribers, speakers):
        wiring.open.push_async_callback(clients.close)
    heard = wiring.repository, wiring.calls, wiring.files
    wiring.work("transcribe", Transcribe(*heard, transcribers, live))
    wiring.work("speak", Speak(*heard, speakers, live))
    wiring.work("answer", answer)
    wiring.work("resume", Resume(wiring.repository))
    wiring.work("refresh", Refresh(wiring.repository, wiring.blobs, toolboxes))
    wiring.work("name", NameConversation(wiring.repository, wiring.calls, choose))
    wiring.work("suggest", Suggest(wiring.repository, wiring.calls, choose, live))
    wiring.work("query_datasets", QueryDatasets(wiring.repository, retrieve))
    listings = TenantListings(models.clients)
    measure = replace(choose, catalogue=None)
    wiring.work("check", Check(wiring.repository, wiring.calls, measure, listings, wiring.files))
    wiring.work("replay", ReplayCall(wiring.repository, wiring.calls, choose, wiring.files))
