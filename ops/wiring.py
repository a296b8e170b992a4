"""The composition root: adapters shared by all roles. A role adds its own in its file in `ops/roles`."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import ServiceUnavailableError

from adapters.jetstream import nats_py, streams
from adapters.jetstream.counters import JetStreamCounters
from adapters.jetstream.keys import JetStreamKeys
from adapters.jetstream.log import JetStreamLog
from adapters.jetstream.snapshots import JetStreamSnapshots
from adapters.jetstream.store import JetStreamEventStore
from adapters.jetstream.waiting import NatsWaiting
from adapters.jetstream.workers.consumers import Consumers
from adapters.jetstream.workers.works import subscribe_work
from adapters.sandbox.child import Sandbox
from adapters.sandbox.choice import Choice, choose
from domain.access.limits import parsed
from domain.log import Commit
from domain.models.model import Model
from domain.models.provider import Provider
from domain.models.route import ModelRoute
from handlers.access.quota import Quota
from handlers.files import Files
from handlers.models.grants import Grants, Price
from handlers.models.model_calls import ModelCalls
from handlers.ports.index import Index
from handlers.ports.log import Unavailable
from handlers.ports.models import Client as ModelClient
from handlers.ports.models import Models, RemoteEmbedder
from handlers.ports.outages import Outages
from handlers.repository import Repository
from ops.blob_choice import open_blobs
from ops.settings import Settings, without_secrets

if TYPE_CHECKING:
    from adapters.code.contained import ContainedCode
    from adapters.egress.client import Egress
    from adapters.jetstream.outages import NatsOutages
    from adapters.models.dify import DifyModels
    from adapters.models.embedding_api import EmbeddingApi
    from adapters.models.registry import ConnectedModel, OfProviders
    from adapters.models.server import Patience
    from adapters.plugins.dify import DifyPlugins
    from adapters.plugins.directory import LogPlugins
    from handlers.knowledge.embed import Embed
    from handlers.models.choose import Choose
    from handlers.models.embeddings import Embeddings

C = TypeVar("C", bound=ModelClient)

M = TypeVar("M", bound="ConnectedModel")

log = structlog.get_logger(__name__)

_PATIENT: dict[str, Any] = {
    "max_reconnect_attempts": -1,
    "reconnect_time_wait": 0.5,
    "connect_timeout": 5,
    "ping_interval": 5,
}
"""Reconnect without limit to an unreachable server; detect a silent one within 15 s."""

WITHIN_S = 10.0
"""Maximum wait of the command line for NATS, in seconds."""


class Wiring:
    """The adapters that roles share, open within the context; entering it creates missing streams."""

    nc: Client
    consumers: Consumers
    contained: Choice | None = None
    """The sandbox of the role's processes, if it has any."""

    coding: ContainedCode | None = None
    """The adapter that runs code of strangers, if the role runs any."""

    def __init__(self, settings: Settings, name: str, *, guest: bool = False, within_s: float | None = None) -> None:
        """For a guest, which may have no streams in its account, the connection alone is there, and nothing is made.

        NATS must answer within `within_s` seconds; None waits for it.
        """
        self._within_s = within_s
        self._prices: Price | None = None
        self._outages: NatsOutages | None = None
        self._choosing: list[Choose[Any]] = []
        self._plugins: LogPlugins | None = None
        self._opening = asyncio.Lock()
        self.settings = settings
        self.name = f"headrace {name}"
        self.guest = guest
        self.open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Raises: Unavailable, when NATS does not answer in time."""
        options = self._options(self.settings.nats_url)
        if self.settings.nats_credentials:
            options["user_credentials"] = str(self.settings.nats_credentials)
        try:
            async with asyncio.timeout(self._within_s):
                self.nc = await nats_py.connect(**options)
        except TimeoutError as error:
            where = without_secrets(self.settings.nats_url)
            raise Unavailable(f"NATS does not answer at {where} within {self._within_s:.0f} s.") from error
        self.open.push_async_callback(self.nc.close)
        if self.guest:
            await nats_py.find_streams(self.nc)
        else:
            await self._stand(options)
        return self

    def _options(self, url: str) -> dict[str, Any]:
        options = _PATIENT | {"servers": url.split(","), "name": self.name, "error_cb": _note}
        if self.settings.nats_ca:
            options["tls"] = ssl.create_default_context(cafile=self.settings.nats_ca)
        return options

    async def connect(self, url: str) -> Client:
        """Another connection, with the login in the address; wait until NATS takes it."""
        nc = await nats_py.connect(**self._options(url))
        self.open.push_async_callback(nc.close)
        return nc

    async def _stand(self, options: dict[str, Any]) -> None:
        await self._streams()
        self.consumers = Consumers(**options)
        self.open.push_async_callback(self.consumers.stop)
        self.vault = self.settings.vault()
        self.keys = JetStreamKeys(self.nc, self.vault)
        self.blobs = open_blobs(self.settings, self.nc)
        self.files = Files(self.blobs, self.keys)
        self.log = JetStreamLog(self.nc, self.keys, self.blobs)
        store = JetStreamEventStore(self.nc, self.keys, self.blobs)
        self.repository = Repository(store, JetStreamSnapshots(self.nc, self.keys))
        self.keys.on_erased = self.repository.forget
        self.waiting = NatsWaiting(self.nc)
        counters, defaults = JetStreamCounters(self.nc), parsed(self.settings.limits)
        self.quota = Quota(self.repository, self.blobs, counters, self.waiting, defaults)
        self.grants = Grants(self.repository, self._price)
        self.open.push_async_callback(self.grants.close)
        self.calls = ModelCalls(self.repository, self.quota, self.grants)

    def _price(
        self,
        provider: str,
        server: str,
        model: str,
        at: datetime,
        usage: Mapping[str, Any],
        entry: Mapping[str, Any] | None,
    ) -> float | None:
        """The cost of a call. Imported late: few roles price anything."""
        if self._prices is None:
            from ops.values import price

            self._prices = price(self.settings)
        return self._prices(provider, server, model, at, usage, entry)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.open.aclose()

    async def _streams(self) -> None:
        while True:
            try:
                await streams.set_up(
                    self.nc.jetstream(),
                    replicas=self.settings.replicas,
                    waiting=streams.Waiting(**self.settings.waiting),
                )
                return
            except (nats.errors.TimeoutError, ServiceUnavailableError) as error:
                advice = "JetStream has no leader yet, or the streams are missing and this user may not create them"
                log.warning("waiting", reason=repr(error), advice=f"{advice}: `headrace setup`")
                await asyncio.sleep(1)

    def work(self, name: str, handler: Callable[[Commit], Awaitable[None]]) -> None:
        """Have `handler` do the work of this name in the table of works."""
        subscribe_work(self.consumers, name, handler, repository=self.repository, keys=self.keys, blobs=self.blobs)

    async def sandbox(self) -> Sandbox:
        """The sandbox of the processes that handle files and texts. Raises: NoSandbox."""
        self.contained = await choose(self.settings.sandbox)
        return self.contained.sandbox

    async def code(self) -> ContainedCode:
        """Opens the adapter that runs code of strangers, once. Imported late: few roles run any.

        Raises: NoSandbox, InvalidSetting.
        """
        async with self._opening:
            if self.coding is None:
                from ops.code_choice import open_code

                self.contained = await choose(self.settings.sandbox)
                self.coding = await self.open.enter_async_context(open_code(self.settings, self.contained))
        return self.coding

    async def index(self) -> Index:
        """The search index, created when missing. Imported late: only roles that search load its driver."""
        from ops.index_choice import open_index, set_up_index

        await set_up_index(self.settings)
        return await self.open.enter_async_context(open_index(self.settings))

    async def registered(self, tenant: str, name: str) -> Provider | None:
        """A tenant's provider by its name, as it was registered last."""
        return await self.repository.get(Provider, tenant, name)

    async def outages(self) -> Outages:
        """The outages of providers, as all workers know them."""
        if self._outages is None:
            from adapters.jetstream.outages import NatsOutages

            self._outages = NatsOutages(self.nc)
            await self._outages.start()
        return self._outages

    async def choose(self, models: Models[C], **limits: Any) -> Choose[C]:
        """Chooses among the models, within these limits of tries; it hears of changes to routes, providers and facts of
        models."""
        from adapters.models.catalogue import LogCatalogue
        from handlers.models.choose import Choose
        from ops.values import prices

        catalogue = LogCatalogue(self.repository, prices(self.settings))
        choose = Choose(self.repository, models, await self.outages(), catalogue, JetStreamCounters(self.nc), **limits)
        if not self._choosing:
            for noun in (Provider, Model, ModelRoute):
                await self.nc.subscribe(f"evt.*.{noun.TOPIC}.*", cb=self._changed)
        self._choosing.append(choose)
        return choose

    async def _changed(self, message: Msg) -> None:
        for each in self._choosing:
            each.forget(message.subject.split(".")[1])

    async def providers(
        self, kinds: Mapping[str, Callable[..., M]], what: str, patience: Patience | None = None
    ) -> OfProviders[M]:
        """The models of providers, `what` they are in words, by these clients; closed with the wiring."""
        from adapters.models.registry import OfProviders
        from adapters.models.server import Patience
        from ops.egress import egress

        silence = self.settings.model_timeout_s
        patience = patience or Patience(first_token=silence, between_tokens=silence)
        outages = await self.outages()
        found = OfProviders(kinds, what, self.registered, self.vault.open, egress(self.settings), patience, outages)
        self.open.push_async_callback(found.close)
        return found

    async def plugins(self) -> LogPlugins:
        """The plugins that tenants have enabled. Imported late: few roles run any."""
        async with self._opening:
            if self._plugins is None:
                from ops.plugins import open_plugins

                self._plugins = await open_plugins(self)
        return self._plugins

    async def dify(self) -> DifyPlugins:
        """The plugins of Dify that tenants have enabled."""
        from adapters.plugins.dify import DifyPlugins

        plugins = await self.plugins()
        return DifyPlugins(plugins, plugins.hosts)

    def dify_models(
        self, egress: Egress, tenant: str, base_url: str, key: str, patience: Patience, outages: Outages | None
    ) -> DifyModels:
        """A client of the models of a plugin."""
        from adapters.models.dify import DifyModels

        return DifyModels(self.dify, tenant, base_url, key, patience)

    async def embeddings(self) -> Embeddings:
        """The embedding models, of the workers and of providers."""
        from adapters.embedding.models import NatsEmbeddingModels
        from adapters.models.kinds import EMBEDDERS
        from handlers.models.embeddings import Embeddings

        self.calls.plugins = await self.plugins()  # whose filters texts for providers pass
        models = NatsEmbeddingModels(self.nc, self.settings.all_embedding_models, await self.sandbox())
        kinds: dict[str, Callable[..., EmbeddingApi | DifyModels]] = {**EMBEDDERS, "dify": self.dify_models}
        remote: Models[RemoteEmbedder] = await self.providers(kinds, "embedding models")
        return Embeddings(self.calls, await self.open.enter_async_context(models), await self.choose(remote))

    async def embed(self) -> Embed:
        """The embedding use case, with its cache."""
        from adapters.embedding.cache import PostgresEmbeddingCache
        from handlers.knowledge.embed import Embed

        cache = await self.open.enter_async_context(
            PostgresEmbeddingCache(self.settings.postgres_url, most=self.settings.embedding_cache_mb * 2**20)
        )
        return Embed(cache)


async def _note(error: Exception) -> None:
    log.warning("nats", reason=repr(error))
