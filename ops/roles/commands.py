"""The role `commands`: dispatches commands, retries dead letters, ends sessions, erases accounts, admits to the bus.

It also answers NATS servers that ask who may connect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from adapters.jetstream import accounts
from adapters.jetstream.callout import Callout, Keys
from adapters.jetstream.doors import DoorReports, Use
from adapters.jetstream.key_uses import JetStreamKeyUses
from adapters.jetstream.nats_py import server_info
from adapters.jetstream.outcomes import JetStreamOutcomes
from adapters.jetstream.registry import JetStreamRegistry
from adapters.jetstream.sessions import Sessions
from adapters.jetstream.workers.commands import subscribe_commands
from adapters.jetstream.workers.dead_letters import JetStreamDeadLetters
from adapters.model_files import model_name
from domain.access.actor import BUS
from handlers.access.admit import Admit
from handlers.access.end_sessions import EndSessions
from handlers.access.erase_account import EraseAccount
from handlers.commands.preparation import Ports
from handlers.dispatch import Dispatch
from handlers.work.dead_letters import RetryDeadLetters
from ops.servers.embedded import EmbeddedNats
from ops.settings import InvalidSetting, Settings, with_login
from ops.wiring import Wiring

log = structlog.get_logger(__name__)


async def begin(wiring: Wiring) -> Coroutine[Any, Any, None] | None:
    models = [model_name(model) for model in wiring.settings.all_embedding_models]
    reranker = model_name(wiring.settings.rerank_model) if wiring.settings.rerank_model else ""
    registry = JetStreamRegistry(wiring.nc, wiring.keys)
    await registry.start()
    ports = Ports(
        wiring.repository,
        wiring.blobs,
        wiring.vault,
        wiring.keys,
        registry,
        models,
        reranker,
        wiring.settings.file_limits,
    )
    dispatch = Dispatch(ports, JetStreamOutcomes(wiring.nc, wiring.keys), wiring.quota, wiring.grants)
    await wiring.waiting.start()
    subscribe_commands(wiring.consumers, dispatch, wiring.repository)
    wiring.work("retry_dead_letters", RetryDeadLetters(JetStreamDeadLetters(wiring.nc)))
    wiring.work("end_sessions", EndSessions(Sessions(wiring.nc)))
    wiring.work("erase_account", EraseAccount(wiring.repository))
    server = EmbeddedNats(wiring.settings.home)
    ours = server.server_name == server_info(wiring.nc).get("server_name")
    admit = Admit(wiring.repository, server.admit if ours else _leave)
    wiring.work("admit", admit)
    wiring.work("admit_key", admit)
    if ours:
        return _answer(wiring, registry, server.last_url_of(accounts.CALLOUT.name), server.callout_keys())
    if wiring.settings.nats_callout_password:
        return _answer(wiring, registry, *_of_the_settings(wiring.settings))
    return None


async def _answer(wiring: Wiring, registry: JetStreamRegistry, url: str, keys: Keys) -> None:
    """Answer the servers on a connection of the user for this."""
    reports, uses = DoorReports(wiring.nc, BUS, _unknown), JetStreamKeyUses(wiring.nc)
    callout = Callout(await wiring.connect(url), registry, keys, reports, uses)
    async with asyncio.TaskGroup() as group:
        group.create_task(callout.run())
        group.create_task(reports.run())
        group.create_task(uses.keep_writing())


async def _unknown(use: Use) -> None:
    """This role has no tables with earlier reports: after its start, a use is reported again."""


def _of_the_settings(settings: Settings) -> tuple[str, Keys]:
    """The address with the login, and the keys. Raises: InvalidSetting."""
    if settings.nats_key is None or settings.nats_callout_password is None:
        raise InvalidSetting("HEADRACE_NATS_CALLOUT_PASSWORD needs HEADRACE_NATS_KEY as well.")
    password = settings.nats_callout_password.get_secret_value()
    url = with_login(settings.nats_url, accounts.CALLOUT.name, password)
    return url, Keys.of(settings.nats_key.get_secret_value().encode())


async def _leave(tenant: str, name: str, issue: str) -> None:
    """Leave the server's configuration to its operator."""
    advice = "reload NATS with the output of `headrace nats accounts --log`, unless the tenant is in it already"
    log.warning("not admitted", tenant=tenant, login=name, advice=advice)
