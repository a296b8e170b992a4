"""The role `commands`: dispatches commands, retries dead letters, ends sessions, erases accounts, admits to the bus."""

from __future__ import annotations

import structlog

from adapters.jetstream.nats_py import server_info
from adapters.jetstream.outcomes import JetStreamOutcomes
from adapters.jetstream.registry import JetStreamRegistry
from adapters.jetstream.sessions import Sessions
from adapters.jetstream.workers.commands import subscribe_commands
from adapters.jetstream.workers.dead_letters import JetStreamDeadLetters
from adapters.model_files import model_name
from handlers.access.admit import Admit
from handlers.access.end_sessions import EndSessions
from handlers.access.erase_account import EraseAccount
from handlers.commands.preparation import Ports
from handlers.dispatch import Dispatch
from handlers.work.dead_letters import RetryDeadLetters
from ops.servers.embedded import EmbeddedNats
from ops.wiring import Wiring

log = structlog.get_logger(__name__)


async def begin(wiring: Wiring) -> None:
    models = [model_name(model) for model in wiring.settings.all_embedding_models]
    reranker = model_name(wiring.settings.rerank_model) if wiring.settings.rerank_model else ""
    registry = JetStreamRegistry(wiring.nc, wiring.keys)
    await registry.start()
    ports = Ports(wiring.repository, wiring.blobs, wiring.vault, wiring.keys, registry, models, reranker)
    dispatch = Dispatch(ports, JetStreamOutcomes(wiring.nc, wiring.keys), wiring.quota)
    await wiring.waiting.start()
    subscribe_commands(wiring.consumers, dispatch, wiring.repository)
    wiring.work("retry_dead_letters", RetryDeadLetters(JetStreamDeadLetters(wiring.nc)))
    wiring.work("end_sessions", EndSessions(Sessions(wiring.nc)))
    wiring.work("erase_account", EraseAccount(wiring.repository, wiring.keys))
    server = EmbeddedNats(wiring.settings.home)
    ours = server.server_name == server_info(wiring.nc).get("server_name")
    wiring.work("admit", Admit(wiring.repository, server.admit if ours else _leave))


async def _leave(tenant: str, name: str, issue: str) -> None:
    """Leave the server's configuration to its operator."""
    advice = "reload NATS with the output of `headrace nats accounts --log`"
    log.warning("not admitted", tenant=tenant, login=name, advice=advice)
