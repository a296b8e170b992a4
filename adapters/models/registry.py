"""The models that a tenant can name: built-in chat models and rerankers, and all of its registered providers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
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
from domain.models.provider import BUILTIN, Credential, Provider, choose
from handlers.ports.models import Access, ModelError, Reranker, Rest
from handlers.ports.outages import Outages

Registered = Callable[[str, str], Awaitable[Provider | None]]
"""Return a tenant's provider by its name, as it was registered last."""

Unseal = Callable[[str, str], str]
"""Return a tenant's key that was sealed. Raises: ValueError, Unavailable."""


NO_CREDENTIAL = Credential(name="", weight=1, sealed_key="", hint="")


class Connected(Protocol):
    def rest(self) -> Rest | None: ...

    def rests_until(self) -> float:
        """Time of the loop until which its key should not be used, since the server has refused it; 0 for none."""
        ...

    async def close(self) -> None: ...


C = TypeVar("C", bound=Connected)

T = TypeVar("T")


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
        _, every = await self.every(tenant, provider)
        clients = {each["sealed_key"]: client for each, client in every}
        resting = {sealed: client.rests_until() for sealed, client in clients.items()}
        credential = choose([each for each, _ in every], resting, asyncio.get_running_loop().time(), random.random())
        assert credential is not None
        client = clients[credential["sealed_key"]]
        if rest := client.rest():
            raise ModelError(rest.error.code, f"Provider {provider!r}: {rest.error.reason}")
        return client

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
    ) -> None:
        def make(tenant: str, kind: str, base_url: str, key: str) -> ChatServer:
            return KINDS[kind](egress, tenant, base_url, key, patience, outages)

        self._answering = answering
        self.clients = Clients(registered, unseal, make)
        self.close = self.clients.close

    async def get(self, tenant: str, provider: str, model: str) -> Sequence[Access]:
        """As the port; raises ModelError `unreachable` for an invalid address, too."""
        if provider != BUILTIN:
            _, clients = await self.clients.every(tenant, provider)
            return [Access(client, each["name"], each["weight"], client.rest) for each, client in clients]
        if model != extractive.NAME:
            raise ModelError("not_found", f"There is no built-in model {model!r}; there is {extractive.NAME!r}.")
        return [Access(Extractive(tenant, self._answering))]


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


class OfKinds(Clients[C]):
    """Clients of providers whose kind is in a table, such as `TRANSCRIBERS`."""

    def __init__(
        self,
        kinds: Mapping[str, Callable[..., C]],
        registered: Registered,
        unseal: Unseal,
        egress: Egress,
        patience: Patience = server.PATIENCE,
        outages: Outages | None = None,
    ) -> None:
        def make(tenant: str, kind: str, base_url: str, key: str) -> C:
            return _of_kind(kinds, kind)(egress, tenant, base_url, key, patience, outages)

        super().__init__(registered, unseal, make)


def _of_kind(clients: Mapping[str, Callable[..., T]], kind: str) -> Callable[..., T]:
    """Raises: ModelError `unsupported`."""
    if kind not in clients:
        raise ModelError(
            "unsupported", f"Providers of kind {kind} have no models of audio; there are: {', '.join(clients)}."
        )
    return clients[kind]
