"""The chat models that a tenant can name: the built-in one, and those of its registered providers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from adapters.models import extractive
from adapters.models.extractive import Extractive
from adapters.models.openai_compatible import OpenAICompatible
from adapters.models.server import PATIENCE, Patience
from domain.chat.app import ModelSettings
from domain.models.provider import BUILTIN
from handlers.ports.models import ChatModel, ModelError

Registered = Callable[[str, str], Awaitable[tuple[str, str] | None]]
"""The newest base URL and key of a tenant's provider by its name; None when it is not registered, or was removed."""


class TenantModels:
    """Keeps one client, with its connections, for each tenant, address and key, until it is closed."""

    def __init__(self, registered: Registered, patience: Patience = PATIENCE) -> None:
        self._registered = registered
        self._patience = patience
        self._clients: dict[tuple[str, str, str], OpenAICompatible] = {}

    async def get(self, tenant: str, model: ModelSettings) -> ChatModel:
        """As the port says; also `unreachable` for an address that is none."""
        provider, name = model["provider"], model["name"]
        if provider == BUILTIN:
            if name != extractive.NAME:
                raise ModelError("not_found", f"There is no built-in model {name!r}; there is {extractive.NAME!r}.")
            return Extractive()
        found = await self._registered(tenant, provider)
        if found is None:
            raise ModelError("not_found", f"No provider {provider!r} is registered; send provider.register first.")
        base_url, key = found
        if (client := self._clients.get((tenant, base_url, key))) is None:
            client = self._clients[tenant, base_url, key] = OpenAICompatible(base_url, key, self._patience)
        return client

    async def close(self) -> None:
        clients = list(self._clients.values())
        self._clients.clear()
        await asyncio.gather(*(client.close() for client in clients))
