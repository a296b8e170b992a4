"""The chat models and rerankers that a tenant can name: built-in ones, and those of its registered providers."""

from __future__ import annotations

import asyncio
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
from domain.models.provider import BUILTIN
from handlers.ports.models import ChatModel, ModelError, Reranker
from handlers.ports.outages import Outages

Registered = Callable[[str, str], Awaitable[tuple[str, str] | None]]
"""Return the newest base URL and key of a tenant's provider by its name, None when it is not registered any more."""


class Connected(Protocol):
    def cut_off(self) -> ModelError | None: ...

    async def close(self) -> None: ...


C = TypeVar("C", bound=Connected)


class Clients(Generic[C]):
    """One client, with its connections, for each tenant, address and key, until closed."""

    def __init__(self, registered: Registered, make: Callable[[str, str, str], C]) -> None:
        """`make` takes the tenant, the base URL and the key."""
        self._registered = registered
        self._make = make
        self._clients: dict[tuple[str, str, str], C] = {}

    async def get(self, tenant: str, provider: str) -> C:
        """The client of a provider.

        Raises: ModelError `not_found`; `unreachable` for an invalid address; `provider_unavailable` while it is cut
        off.
        """
        found = await self._registered(tenant, provider)
        if found is None:
            raise ModelError("not_found", f"No provider {provider!r} is registered; send provider.register first.")
        if (client := self._clients.get((tenant, *found))) is None:
            client = self._clients[tenant, *found] = self._make(tenant, *found)
        if error := client.cut_off():
            raise ModelError(error.code, f"Provider {provider!r}: {error.reason}")
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
        egress: Egress,
        patience: Patience = server.PATIENCE,
        answering: Answering = extractive.answering_here,
        outages: Outages | None = None,
    ) -> None:
        def make(tenant: str, base_url: str, key: str) -> ChatServer:
            return KINDS["openai"](egress, tenant, base_url, key, patience, outages)

        self._answering = answering
        self._clients = Clients(registered, make)
        self.close = self._clients.close

    async def get(self, tenant: str, model: ModelSettings) -> ChatModel:
        """As the port; raises ModelError `unreachable` for an invalid address, too, and `provider_unavailable`."""
        if model["provider"] != BUILTIN:
            return await self._clients.get(tenant, model["provider"])
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
        egress: Egress,
        patience: Patience = rerank_api.PATIENCE,
        outages: Outages | None = None,
    ) -> None:
        self._builtin = NatsReranker(nc, model) if model else None

        def make(tenant: str, base_url: str, key: str) -> RerankApi:
            return RerankApi(egress, tenant, base_url, key, patience, outages)

        self._clients = Clients(registered, make)
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
