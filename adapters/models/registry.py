"""The chat models and rerankers that a tenant can name: built-in ones, and those of its registered providers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from nats.aio.client import Client

from adapters.egress.client import Egress
from adapters.embedding.rerank_service import NatsReranker
from adapters.models import extractive, rerank_api, server
from adapters.models.chat_server import ChatServer
from adapters.models.extractive import Answering, Extractive
from adapters.models.kinds import KINDS
from adapters.models.rerank_api import RerankApi
from adapters.models.server import Patience
from domain.chat.app import ModelSettings
from domain.models.provider import BUILTIN, Credential, Provider, choose
from handlers.ports.models import ChatModel, ModelError, Reranker
from handlers.ports.outages import Outages

Registered = Callable[[str, str], Awaitable[Provider | None]]
"""Return a tenant's provider by its name, as it was registered last."""

Unseal = Callable[[str, str], str]
"""Return a tenant's key that was sealed. Raises: ValueError, Unavailable."""


class Connected(Protocol):
    def cut_off(self) -> ModelError | None: ...

    def rests_until(self) -> float:
        """Time of the loop until which its key should not be used, since the server has refused it; 0 for none."""
        ...

    async def close(self) -> None: ...


C = TypeVar("C", bound=Connected)


class Clients(Generic[C]):
    """One client, with its connections, for each tenant, kind, address and key, until closed."""

    def __init__(self, registered: Registered, unseal: Unseal, make: Callable[[str, str, str, str], C]) -> None:
        """`make` takes the tenant, the kind of the provider, the base URL and the key."""
        self._registered = registered
        self._unseal = unseal
        self._make = make
        self._clients: dict[tuple[str, str, str, str], C] = {}

    async def get(self, tenant: str, provider: str) -> C:
        """The client of a provider, with one of its credentials.

        Raises: ModelError `not_found`; `unreachable` for an invalid address; `provider_unavailable` while it is cut
        off.
        """
        found = await self._found(tenant, provider)
        resting = {
            sealed: client.rests_until()
            for each in found.credentials
            if (client := self._clients.get((tenant, found.kind, found.base_url, sealed := each["sealed_key"])))
        }
        credential = choose(found.credentials, resting, asyncio.get_running_loop().time(), random.random())
        client = self._client(tenant, found, credential)
        if error := client.cut_off():
            raise ModelError(error.code, f"Provider {provider!r}: {error.reason}")
        return client

    async def each(self, tenant: str, provider: str) -> tuple[str, dict[str, C]]:
        """The kind of a provider, and its client with each credential, by name; without any, by the empty name.

        Raises: ModelError `not_found`; `unreachable` for an invalid address.
        """
        found = await self._found(tenant, provider)
        named: dict[str, Credential | None] = {each["name"]: each for each in found.credentials}
        return found.kind, {
            name: self._client(tenant, found, credential) for name, credential in (named or {"": None}).items()
        }

    async def _found(self, tenant: str, provider: str) -> Provider:
        """Raises: ModelError `not_found`."""
        found = await self._registered(tenant, provider)
        if found is None or found.deleted:
            raise ModelError("not_found", f"No provider {provider!r} is registered; send provider.register first.")
        return found

    def _client(self, tenant: str, provider: Provider, credential: Credential | None) -> C:
        sealed = credential["sealed_key"] if credential else ""
        server = tenant, provider.kind, provider.base_url
        if (client := self._clients.get((*server, sealed))) is None:
            key = self._unseal(tenant, sealed) if sealed else ""
            client = self._clients[*server, sealed] = self._make(*server, key)
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
    ) -> None:
        def make(tenant: str, kind: str, base_url: str, key: str) -> ChatServer:
            return KINDS[kind](egress, tenant, base_url, key, patience, outages)

        self._answering = answering
        self.clients = Clients(registered, unseal, make)
        self.close = self.clients.close

    async def get(self, tenant: str, model: ModelSettings) -> ChatModel:
        """As the port; raises ModelError `unreachable` for an invalid address, too, and `provider_unavailable`."""
        if model["provider"] != BUILTIN:
            return await self.clients.get(tenant, model["provider"])
        if model["name"] != extractive.NAME:
            raise ModelError(
                "not_found", f"There is no built-in model {model['name']!r}; there is {extractive.NAME!r}."
            )
        return Extractive(tenant, self._answering)


class TenantRerankers:
    """Rerankers by provider; `model` is the built-in one, empty when there is none."""

    def __init__(
        self,
        nc: Client,
        model: str,
        registered: Registered,
        unseal: Unseal,
        egress: Egress,
        patience: Patience = rerank_api.PATIENCE,
        outages: Outages | None = None,
    ) -> None:
        self._builtin = NatsReranker(nc, model) if model else None

        def make(tenant: str, kind: str, base_url: str, key: str) -> RerankApi:
            return RerankApi(egress, tenant, base_url, key, patience, outages)

        self._clients = Clients(registered, unseal, make)
        self.close = self._clients.close

    async def get(self, tenant: str, provider: str, model: str | None) -> tuple[Reranker, str]:
        """As the port; raises ModelError `unreachable` for an invalid address, too, and `provider_unavailable`."""
        if provider != BUILTIN:
            return await self._clients.get(tenant, provider), model or ""
        if self._builtin is None:
            raise ModelError("not_found", "There is no built-in reranker; the settings of the workers name none.")
        if model not in (None, self._builtin.model):
            raise ModelError("not_found", f"The built-in reranker is {self._builtin.model!r}, not {model!r}.")
        return self._builtin, self._builtin.model
