"""The plugins of a worker: their hosts, and environments that are built as soon as a package is installed."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import AsyncExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import structlog
from nats.aio.client import Client
from uv import find_uv_bin

from adapters.jetstream.aggregates import every
from adapters.plugins.directory import LogPlugins, RecordSuspension
from adapters.plugins.environments import Environments, NotBuilt, Packages
from adapters.plugins.hosts import Containment, Hosts
from adapters.sandbox.child import Sandbox
from domain.access.tenant import HOUSE
from domain.tools.plugin import Plugin
from handlers.ports.log import Unavailable
from handlers.ports.people import Vault
from handlers.repository import Repository
from ops.egress import egress
from ops.settings import Settings

log = structlog.get_logger(__name__)

AGAIN_S = 30.0
"""Pause before packages that could not be built are tried again, in seconds."""


class Wired(Protocol):
    """The adapters that plugins need."""

    nc: Client
    settings: Settings
    repository: Repository
    open: AsyncExitStack

    @property
    def blobs(self) -> Packages: ...

    @property
    def vault(self) -> Vault: ...

    async def sandbox(self) -> Sandbox: ...


async def open_plugins(wiring: Wired) -> LogPlugins:
    """The plugins that tenants have enabled; their processes end with the wiring."""
    settings, sandbox = wiring.settings, await wiring.sandbox()
    environments = Environments(settings.home, wiring.blobs, sandbox, uv(), settings.plugin_python)
    wiring.open.push_async_callback(environments.close)
    containment = Containment(
        sandbox,
        egress(settings),
        namespaces=sandbox.kind == "bubblewrap",
        unconfined=settings.plugin_network == "unconfined",
    )
    suspend = RecordSuspension(wiring.repository)
    hosts = Hosts(environments, containment, wiring.vault.open, suspend, version("headrace"))
    wiring.open.push_async_callback(hosts.close)
    plugins = LogPlugins(wiring.nc, wiring.repository, hosts)
    await plugins.start()
    installed = asyncio.Event()
    installed.set()
    plugins.on_change(lambda tenant: installed.set() if tenant == HOUSE else None)
    building = asyncio.create_task(_build(wiring, environments, installed))

    async def stop() -> None:
        building.cancel()
        await asyncio.wait((building,))

    wiring.open.push_async_callback(stop)
    return plugins


class OneBlob:
    """A package that is not stored anywhere yet."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.digest = hashlib.sha256(data).hexdigest()

    async def get(self, tenant: str, digest: str) -> bytes:
        return self.data


def uv() -> Path | None:
    """The program uv; None where it is not installed."""
    try:
        return Path(find_uv_bin())
    except FileNotFoundError:
        return None


async def _build(wiring: Wired, environments: Environments, installed: asyncio.Event) -> None:
    """Build the environment of each installed package, so that no call waits for it."""
    while True:
        await installed.wait()
        installed.clear()
        try:
            async for _, plugin in every(wiring.nc, wiring.repository, Plugin):
                if not plugin.deleted:
                    await _ready(environments, plugin)
        except Unavailable as error:
            log.warning("plugins.waiting", reason=str(error))
            await asyncio.sleep(AGAIN_S)
            installed.set()


async def _ready(environments: Environments, plugin: Plugin) -> None:
    try:
        await environments.get(plugin.digest)
    except NotBuilt as error:
        log.error("plugin.not_built", plugin=plugin.id, version=plugin.package_version, reason=str(error))
