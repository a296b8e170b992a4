"""The plugins that tenants have enabled, as the log has them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError

from adapters.plugins.hosts import Hosts
from domain.access.tenant import HOUSE
from domain.aggregate import new_id
from domain.log import EVENTS, Metadata
from domain.tools.plugin import Hook, Plugin
from domain.tools.plugin_use import PluginUse
from handlers.ports.log import Unavailable
from handlers.ports.plugins import EnabledPlugin, Reply
from handlers.repository import Repository

log = structlog.get_logger(__name__)

HELD_S, SOON_S = 30.0, 1.0
"""Time for which the plugins of a tenant stay in memory, and after notice of a change, which may pass before the commit
is stored, in seconds."""

ACTOR = "anonymous"


class _Held(NamedTuple):
    until: float
    plugins: tuple[EnabledPlugin, ...]


class LogPlugins:
    """The port Plugins; `hosts` runs their processes."""

    def __init__(self, nc: Client, repository: Repository, hosts: Hosts) -> None:
        self._nc = nc
        self._repository = repository
        self.hosts = hosts
        self._held: dict[str, _Held] = {}
        self._loading: dict[str, asyncio.Task[tuple[EnabledPlugin, ...]]] = {}
        self._noticed_at = 0.0
        self._listeners: list[Callable[[str], None]] = []
        self._refreshing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen for changes."""
        for noun in (Plugin, PluginUse):
            await self._nc.subscribe(f"evt.*.{noun.TOPIC}.*", cb=self._notice)

    def on_change(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with the tenant of each change, the house for packages, once it is loaded."""
        self._listeners.append(listener)

    def known(self, tenant: str) -> Sequence[EnabledPlugin] | None:
        """As the port. What is old is used while it is loaded again."""
        held = self._held.get(tenant)
        if held is None:
            return None
        if held.until < time.monotonic():
            self._load(tenant)
        return held.plugins

    async def enabled(self, tenant: str) -> Sequence[EnabledPlugin]:
        """As the port."""
        known = self.known(tenant)
        return known if known is not None else await asyncio.shield(self._load(tenant))

    async def ask(self, plugin: EnabledPlugin, hook: Hook, call: Mapping[str, Any]) -> Reply:
        """As the port."""
        return await self.hosts.ask(plugin, hook, call)

    def _load(self, tenant: str) -> asyncio.Task[tuple[EnabledPlugin, ...]]:
        loading = self._loading.get(tenant)
        if loading is None or loading.done():
            loading = self._loading[tenant] = asyncio.create_task(self._loaded(tenant))
            loading.add_done_callback(lambda task: task.cancelled() or task.exception())
        return loading

    async def _loaded(self, tenant: str) -> tuple[EnabledPlugin, ...]:
        """Raises: Unavailable."""
        began = time.monotonic()
        names = await self._names(tenant)
        uses = await self._repository.all(PluginUse, tenant, names) if names else {}
        wanted = [name for name, use in uses.items() if use.enabled]
        installed = await self._repository.all(Plugin, HOUSE, wanted) if wanted else {}
        found = [enabled(tenant, plugin, uses[name]) for name, plugin in installed.items() if not plugin.deleted]
        found.sort(key=lambda each: (each.manifest["order"], each.name))
        await self.hosts.keep(tenant, {each.name for each in found})
        fresh = began > self._noticed_at + SOON_S
        self._held[tenant] = _Held(began + (HELD_S if fresh else SOON_S), tuple(found))
        return tuple(found)

    async def _names(self, tenant: str) -> list[str]:
        """The plugins that the tenant has ever used. Raises: Unavailable."""
        try:
            info = await self._nc.jetstream().stream_info(EVENTS, subjects_filter=f"evt.{tenant}.{PluginUse.TOPIC}.*")
        except NotFoundError:
            return []
        except nats.errors.Error as error:
            raise Unavailable(f"Stream {EVENTS} cannot be read: {error!r}") from error
        return sorted(subject.rpartition(".")[2] for subject in info.state.subjects or {})

    async def _notice(self, message: Msg) -> None:
        _, tenant, _, _ = message.subject.split(".")
        self._noticed_at = time.monotonic()
        refreshing = asyncio.create_task(self._refresh(tenant))
        self._refreshing.add(refreshing)
        refreshing.add_done_callback(self._refreshing.discard)

    async def _refresh(self, tenant: str) -> None:
        """Load what a change is about, at once and again when its commit is stored, and call the listeners."""
        for pause in (0.0, SOON_S):
            await asyncio.sleep(pause)
            for each in [tenant] if tenant != HOUSE else list(self._held):
                if each in self._held:
                    with suppress(Unavailable):
                        await self._load(each)
            for listener in self._listeners:
                listener(tenant)


def enabled(tenant: str, plugin: Plugin, use: PluginUse) -> EnabledPlugin:
    """An installed plugin as a tenant uses it."""
    return EnabledPlugin(
        tenant=tenant,
        name=plugin.id,
        version=plugin.package_version,
        digest=plugin.digest,
        manifest=plugin.manifest,
        settings=use.settings,
        secrets=use.secrets,
        content=plugin.content if use.content else "none",
        suspended=use.suspended is not None,
        starts=use.starts,
    )


class RecordSuspension:
    """Records that a plugin is suspended, or works again."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    async def __call__(self, plugin: EnabledPlugin, reason: str | None) -> None:
        """Raises: Unavailable."""
        at, id = datetime.now(UTC), new_id()

        def decide(use: PluginUse | None) -> PluginUse:
            if use is None:
                raise KeyError(plugin.name)
            if reason is None:
                use.resume(at, digest=plugin.digest)
            else:
                use.suspend(at, digest=plugin.digest, reason=reason[:1000])
            return use

        await self._repository.change(PluginUse, plugin.name, Metadata(id, plugin.tenant, id, actor=ACTOR), decide)
