"""The models that a tenant can name: built-in chat models and rerankers, and all of its registered providers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

from nats.aio.client import Client as Bus

from adapters.egress.client import Egress
from adapters.embedding.rerank_service import NatsReranker
from adapters.models import extractive, server
from adapters.models.chat_server import ChatServer
from adapters.models.dify import DifyModels
from adapters.models.extractive import Answering, Extractive
from adapters.models.kinds import KINDS
from adapters.models.rerank_api import RerankApi
from adapters.models.server import Patience
from domain.builtin import BUILTIN
from domain.models.provider import Credential, Provider
from handlers.ports.models import Access, ChatModel, Client, ModelError, Reranker, Rest
from handlers.ports.outages import Outages

Registered = Callable[[str, str], Awaitable[Provider | None]]
"""Return a tenant's provider by its name, as it was registered last."""

Unseal = Callable[[str, str], str]
"""Return a tenant's key that was sealed. Raises: ValueError, Unavailable."""


NO_CREDENTIAL = Credential(name="", weight=1, sealed_key="", hint="")


class Connected(Protocol):
    def rest(self) -> Rest | None: ...

    async def close(self) -> None: ...


class ConnectedModel(Connected, Client, Protocol): ...


C = TypeVar("C", bound=Connected)

M = TypeVar("M", bound=ConnectedModel)


class Clients(Generic[C]):
    """One client, with its connections, for each tenant, kind, address and key, until closed."""

    def __init__(self, registered: Registered, unseal: Unseal, make: Callable[[str, str, str, str], C]) -> None:
        """`make` takes the tenant, the kind of the provider, the base URL and the key."""
        self._registered = registered
        self._unseal = unseal
        self._make = make
        self._clients: dict[tuple[str, str, str, str], C] = {}

    async def every(self, tenant: str, provider: str) -> tuple[str, Sequence[tuple[Credential, C]]]:
        """The kind of a provider, and its clients by their credentials; one with an empty name where there is none.

        Raises: ModelError `not_found`; `unreachable` for an invalid address.
        """
        found = await self._registered(tenant, provider)
        if found is None or found.deleted:
            raise ModelError("not_found", f"No provider {provider!r} is registered; send provider.register first.")
        server = tenant, found.kind, found.base_url
        credentials = found.credentials or [NO_CREDENTIAL]
        return found.kind, [(each, self._client(*server, each["sealed_key"])) for each in credentials]

    def _client(self, tenant: str, kind: str, base_url: str, sealed: str) -> C:
        """Raises: ModelError `unreachable`."""
        if (client := self._clients.get((tenant, kind, base_url, sealed))) is None:
            key = self._unseal(tenant, sealed) if sealed else ""
            client = self._clients[tenant, kind, base_url, sealed] = self._make(tenant, kind, base_url, key)
        return client

    async def close(self) -> None:
        clients = list(self._clients.values())
        self._clients.clear()
        await asyncio.gather(*(client.close() for client in clients))


class TenantModels:
    """Chat models by provider and name."""

    def __init__(
        self,
        registered: Registered,
        unseal: Unseal,
        egress: Egress,
        patience: Patience = server.PATIENCE,
        answering: Answering = extractive.answering_here,
        outages: Outages | None = None,
        kinds: Mapping[str, Callable[..., ChatServer | DifyModels]] = KINDS,
    ) -> None:
        def make(tenant: str, kind: str, base_url: str, key: str) -> ChatServer | DifyModels:
            if kind not in kinds:
                raise ModelError("unsupported", f"This worker has no providers of kind {kind}.")
            return kinds[kind](egress, tenant, base_url, key, patience, outages)

        self._answering = answering
        self.clients = Clients(registered, unseal, make)
        self.close = self.clients.close

    async def get(self, tenant: str, provider: str, model: str) -> Sequence[Access[ChatModel]]:
        """As the port; raises ModelError `unreachable` for an invalid address, too."""
        if provider != BUILTIN:
            _, clients = await self.clients.every(tenant, provider)
            return [Access(client, each["name"], each["weight"], client.rest) for each, client in clients]
        if model != extractive.NAME:
            raise ModelError("not_found", f"There is no built-in model {model!r}; there is {extractive.NAME!r}.")
        return [Access(Extractive(tenant, self._answering))]


class OfProviders(Generic[M]):
    """Models of registered providers, by the clients of a table such as `EMBEDDERS`."""

    def __init__(
        self,
        kinds: Mapping[str, Callable[..., M]],
        what: str,
        registered: Registered,
        unseal: Unseal,
        egress: Egress,
        patience: Patience = server.PATIENCE,
        outages: Outages | None = None,
    ) -> None:
        """`what` these models are, in words."""

        def make(tenant: str, kind: str, base_url: str, key: str) -> M:
            if kind not in kinds:
                sentence = f"Providers of kind {kind} have no {what}; these have: {', '.join(kinds)}."
                raise ModelError("unsupported", sentence)
            return kinds[kind](egress, tenant, base_url, key, patience, outages)

        self._clients = Clients(registered, unseal, make)
        self.close = self._clients.close

    async def get(self, tenant: str, provider: str, model: str) -> Sequence[Access[M]]:
        """As the port; raises ModelError `unreachable` for an invalid address, too."""
        _, clients = await self._clients.every(tenant, provider)
        return [Access(client, each["name"], each["weight"], client.rest) for each, client in clients]


class TenantRerankers:
    """Rerankers by provider; `model` is the built-in one, empty when there is none."""

    def __init__(self, nc: Bus, model: str, providers: OfProviders[RerankApi | DifyModels]) -> None:
        self._builtin = NatsReranker(nc, model) if model else None
        self._providers = providers

    async def get(self, tenant: str, provider: str, model: str) -> Sequence[Access[Reranker]]:
        """As the port; raises ModelError `unreachable` for an invalid address, too."""
        if provider != BUILTIN:
            return await self._providers.get(tenant, provider, model)
        if self._builtin is None:
            raise ModelError("not_found", "There is no built-in reranker; the settings of the workers name none.")
        if model != self._builtin.model:
            raise ModelError("not_found", f"The built-in reranker is {self._builtin.model!r}, not {model!r}.")
        return [Access(self._builtin)]
