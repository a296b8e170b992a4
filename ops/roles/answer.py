"""The role `answer`: answers messages, names conversations, queries datasets, replays calls, checks providers.

It also runs agents and workflows, and lists the tools of toolsets.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from adapters.documents.extract import FileExtractor
from adapters.egress.fetch import GuardedFetch
from adapters.egress.http import GuardedHttp
from adapters.jetstream.live import NatsLive
from adapters.jetstream.stops import NatsStops
from adapters.model_files import model_name
from adapters.models import rerank_api
from adapters.models.chat_server import ChatServer
from adapters.models.dify import DifyModels
from adapters.models.kinds import FILTERS, KINDS, RERANKERS, SPEAKERS, TRANSCRIBERS
from adapters.models.listing import TenantListings
from adapters.models.registry import TenantModels, TenantRerankers
from adapters.models.rerank_api import RerankApi
from adapters.models.schemas import ContainedSchemas
from adapters.models.sentences import ContainedSentences
from adapters.models.server import Patience
from adapters.plugins.monitors import Monitors
from adapters.postgres.annotations import PostgresAnnotations
from adapters.postgres.documents import PostgresDocuments
from adapters.tools.builtin.code import RunCode as CodeTool
from adapters.tools.builtin.page import FetchPage
from adapters.tools.builtin.search import DatasetToolbox
from adapters.tools.builtin.search import SearchKnowledge as SearchTool
from adapters.tools.builtin.toolbox import BuiltinToolbox
from adapters.tools.mcp.processes import Processes
from adapters.tools.mcp.programs import read
from adapters.tools.mcp.toolbox import McpToolboxes
from adapters.tools.openapi.reading import ContainedDocuments
from adapters.tools.openapi.toolbox import OpenApiToolboxes
from adapters.tools.plugin.call_backs import Answering
from adapters.tools.plugin.strategies import DifyStrategies
from adapters.tools.plugin.toolbox import PluginToolboxes
from adapters.tools.registry import KindsOfToolboxes, Make
from adapters.tools.sql.connections import connections
from adapters.tools.sql.toolbox import SqlToolboxes
from domain.workflows.requests import (
    AgentRequest,
    CodeRequest,
    DocumentRequest,
    HttpRequest,
    ModelRequest,
    RetrievalRequest,
    SchemaRequest,
    TemplateRequest,
    ToolRequest,
)
from handlers.abilities import Abilities
from handlers.chat.annotations import MatchAnnotation
from handlers.chat.answer import Answer
from handlers.chat.files import MessageFiles
from handlers.chat.moderate import Moderate
from handlers.chat.name import NameConversation
from handlers.chat.speak import Speak
from handlers.chat.suggest import Suggest
from handlers.chat.transcribe import Transcribe
from handlers.graphs import Graphs
from handlers.models.check import Check
from handlers.models.replay import ReplayCall
from handlers.ports.filters import Filter
from handlers.ports.models import Models, Speaker, Transcriber
from handlers.retrieval.extract_filter import ExtractFilter
from handlers.retrieval.query_datasets import QueryDatasets
from handlers.retrieval.rerank import Rerank
from handlers.retrieval.retrieve import Retrieve
from handlers.tools.agent import Agent
from handlers.tools.app import AppToolbox
from handlers.tools.offer import Offer
from handlers.tools.refresh import Refresh
from handlers.tools.renew_secret import RenewSecret
from handlers.tools.resume import Resume
from handlers.tools.storage import Storage
from handlers.tools.tool_calls import ToolCalls
from handlers.tools.within import CallWithin
from handlers.user_secrets import opened
from handlers.workflows.agent import RunAgent
from handlers.workflows.chatflow import Chatflow
from handlers.workflows.code import CheckSchemas, FillTemplates, RunCode
from handlers.workflows.documents import ReadDocuments
from handlers.workflows.execution import Executor
from handlers.workflows.http import SendHttp
from handlers.workflows.model import CallModel
from handlers.workflows.retrieval import SearchKnowledge
from handlers.workflows.run import RunWorkflow
from handlers.workflows.tool import CallTool
from ops.egress import egress, file_egress, tool_egress
from ops.values import masking
from ops.wiring import Wiring


async def begin(wiring: Wiring) -> Awaitable[object]:
    silence = wiring.settings.model_timeout_s

    plugins = await wiring.plugins()
    registered = wiring.registered
    sentences = await wiring.open.enter_async_context(ContainedSentences(await wiring.sandbox()))
    unseal = wiring.vault.open
    patience = Patience(first_token=silence, between_tokens=silence)
    allowed = egress(wiring.settings)
    outages = await wiring.outages()
    chats: dict[str, Callable[..., ChatServer | DifyModels]] = {**KINDS, "dify": wiring.dify_models}
    models = TenantModels(registered, unseal, allowed, patience, sentences.answering, outages, chats)
    wiring.open.push_async_callback(models.close)
    choose = await wiring.choose(models)
    stops = NatsStops(wiring.nc)
    await stops.start()
    reranker = wiring.settings.rerank_model
    builtin = model_name(reranker) if reranker else ""
    reranking: dict[str, Callable[..., RerankApi | DifyModels]] = {**RERANKERS, "dify": wiring.dify_models}
    rerankers = TenantRerankers(wiring.nc, builtin, await wiring.providers(reranking, "rerankers", rerank_api.PATIENCE))
    choose_reranker = await wiring.choose(rerankers, tries=2, longest_pause_s=2.0)
    embeddings = await wiring.embeddings()
    retrieve = Retrieve(
        wiring.repository,
        embeddings,
        await wiring.index(),
        await wiring.open.enter_async_context(PostgresDocuments(wiring.settings.postgres_url)),
        Rerank(wiring.calls, choose_reranker, builtin),
        ExtractFilter(wiring.calls, choose),
    )
    extractor = await wiring.open.enter_async_context(FileExtractor(await wiring.sandbox()))
    fetch = GuardedFetch(file_egress(wiring.settings))
    annotations = await wiring.open.enter_async_context(PostgresAnnotations(wiring.settings.postgres_url))
    filters: Models[Filter] = await wiring.providers(FILTERS, "filters")
    choose_filter = await wiring.choose(filters, tries=2, longest_pause_s=2.0)
    live = NatsLive(wiring.nc)
    files = MessageFiles(
        wiring.files,
        fetch,
        extractor,
        embeddings.segmenter,
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
    documents = await wiring.open.enter_async_context(ContainedDocuments(await wiring.sandbox()))
    # An API of a tenant is no model server, so that it may not be on their ports of this machine without a setting.
    tools, elsewhere = tool_egress(wiring.settings), file_egress(wiring.settings)
    await wiring.waiting.start()
    servers = wiring.settings.mcp_servers
    processes = Processes(wiring.sandbox, read(servers) if servers else {})
    await wiring.open.enter_async_context(processes)
    of_user = partial(opened, wiring.repository, wiring.keys)
    dify = await wiring.dify()
    answering = Answering(
        Storage(wiring.repository, wiring.files), plugins.hosts.uploads if plugins.hosts.have_proxies else None
    )
    kinds: dict[str, Make] = {
        "openapi": OpenApiToolboxes(tools, elsewhere, unseal, wiring.blobs, documents, of_user),
        "sql": sql,
        "plugin": PluginToolboxes(dify, unseal, answering),
        "dataset": lambda tenant, toolset: DatasetToolbox(retrieve, toolset.description, toolset.settings),
        "mcp": McpToolboxes(
            tools, unseal, processes, RenewSecret(wiring.repository, wiring.vault, wiring.keys), of_user
        ),
        "app": lambda tenant, toolset: AppToolbox(wiring.repository, wiring.quota, tenant, toolset),
    }
    code = await wiring.code()
    builtins = BuiltinToolbox(FetchPage(fetch, extractor), SearchTool(retrieve), CodeTool(code))
    toolboxes = KindsOfToolboxes(builtins, kinds)

    offer = Offer(wiring.repository, wiring.blobs, toolboxes)
    tool_calls = ToolCalls(wiring.repository, schemas, wiring.files, plugins, CallWithin(wiring.calls, choose))
    abilities = Abilities(wiring.repository)
    agent = Agent(
        wiring.repository,
        wiring.calls,
        choose,
        offer,
        tool_calls,
        abilities,
        DifyStrategies(dify, answering),
    )
    executors: dict[type, Executor] = {
        AgentRequest: RunAgent(agent),
        CodeRequest: RunCode(code),
        DocumentRequest: ReadDocuments(extractor, fetch),
        HttpRequest: SendHttp(wiring.repository, wiring.files, GuardedHttp(tools), fetch),
        ModelRequest: CallModel(wiring.calls, choose, abilities, fetch),
        RetrievalRequest: SearchKnowledge(wiring.repository, retrieve),
        SchemaRequest: CheckSchemas(schemas),
        TemplateRequest: FillTemplates(code),
        ToolRequest: CallTool(offer, tool_calls),
    }
    graphs = Graphs(wiring.blobs)
    run = RunWorkflow(wiring.repository, graphs, wiring.files, live, stops, unseal, executors)
    chatflow = Chatflow(wiring.repository, graphs, wiring.files, live)
    answer = Answer(
        wiring.repository,
        wiring.calls,
        retrieve,
        choose,
        live,
        stops,
        sentences,
        Moderate(wiring.calls, choose, choose_filter),
        MatchAnnotation(wiring.repository, embeddings, annotations),
        schemas,
        files,
        agent,
        chatflow=chatflow,
    )
    transcribers: Models[Transcriber] = await wiring.providers(TRANSCRIBERS, "models of audio")
    speakers: Models[Speaker] = await wiring.providers(SPEAKERS, "models of audio")
    heard = wiring.repository, wiring.calls, wiring.files
    wiring.work("transcribe", Transcribe(*heard, await wiring.choose(transcribers), live))
    wiring.work("speak", Speak(*heard, await wiring.choose(speakers), live))
    wiring.work("answer", answer)
    wiring.work("run", run)
    wiring.work("end_message", chatflow.end)
    wiring.work("stop_run", chatflow.stop)
    wiring.work("resume", Resume(wiring.repository))
    wiring.work("refresh", Refresh(wiring.repository, wiring.blobs, toolboxes))
    wiring.work("name", NameConversation(wiring.repository, wiring.calls, choose))
    wiring.work("suggest", Suggest(wiring.repository, wiring.calls, choose, live))
    wiring.work("query_datasets", QueryDatasets(wiring.repository, retrieve))
    listings = TenantListings(models.clients)
    measure = replace(choose, catalogue=None)
    wiring.work("check", Check(wiring.repository, wiring.calls, measure, listings, wiring.files))
    wiring.work("replay", ReplayCall(wiring.repository, wiring.calls, choose, wiring.files))
    masked = masking(wiring.settings)
    return Monitors(wiring.settings.postgres_url, wiring.nc, wiring.repository, plugins, masked).run()
