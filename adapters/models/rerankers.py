"""The rerankers that a tenant can name: the built-in one, where workers run one, and those of its providers."""

from __future__ import annotations

import asyncio

from nats.aio.client import Client

from adapters.embedding.rerank_service import NatsReranker
from adapters.models.registry import Registered
from adapters.models.rerank_api import PATIENCE, RerankApi
from adapters.models.server import Patience
from domain.models.provider import BUILTIN
from handlers.ports.models import ModelError, Reranker


class TenantRerankers:
    """Keeps one client, with its connections, for each tenant, address and key, until it is closed."""

    def __init__(self, nc: Client, model: str, registered: Registered, patience: Patience = PATIENCE) -> None:
        """`model` is the built-in one; empty when there is none."""
        self._builtin = NatsReranker(nc, model) if model else None
        self._registered = registered
        self._patience = patience
        self._clients: dict[tuple[str, str, str], RerankApi] = {}

    async def get(self, tenant: str, provider: str, model: str | None) -> tuple[Reranker, str]:
        """As the port says; also `unreachable` for an address that is none."""
        if provider == BUILTIN:
            return self._local(model)
        found = await self._registered(tenant, provider)
        if found is None:
            raise ModelError("not_found", f"No provider {provider!r} is registered; send provider.register first.")
        base_url, key = found
        if (client := self._clients.get((tenant, base_url, key))) is None:
            client = self._clients[tenant, base_url, key] = RerankApi(base_url, key, self._patience)
        return client, model or ""

    def _local(self, model: str | None) -> tuple[Reranker, str]:
        if self._builtin is None:
            raise ModelError("not_found", "There is no built-in reranker; set HEADRACE_RERANK_MODEL of all workers.")
        if model not in (None, self._builtin.model):
            raise ModelError("not_found", f"The built-in reranker is {self._builtin.model!r}, not {model!r}.")
        return self._builtin, self._builtin.model

    async def close(self) -> None:
        clients = list(self._clients.values())
        self._clients.clear()
        await asyncio.gather(*(client.close() for client in clients))
