from __future__ import annotations

import pytest

from adapters.models.chat_server import ChatServer
from adapters.models.extractive import Extractive
from adapters.models.registry import TenantModels
from domain.chat.app import ModelSettings
from handlers.ports.models import ChatMessage, ChatRequest, ModelError
from tests.chat_servers import LOOPBACK, Exchange, faulty_server


def model(provider: str, name: str = "tiny") -> ModelSettings:
    return ModelSettings(provider=provider, name=name, max_tokens=8, context_window=64, parameters={})


class Registry(dict[tuple[str, str], tuple[str, str]]):
    async def __call__(self, tenant: str, name: str) -> tuple[str, str] | None:
        return self.get((tenant, name))


async def test_the_built_in_model_needs_no_provider() -> None:
    models = TenantModels(Registry(), LOOPBACK)
    assert isinstance(await models.get("default", model("builtin", "extractive")), Extractive)
    with pytest.raises(ModelError) as caught:
        await models.get("default", model("builtin", "gpt"))
    assert caught.value.code == "not_found"


async def test_a_provider_is_its_tenants_own() -> None:
    registry = Registry({("acme", "local"): ("http://127.0.0.1:9/v1", "k")})
    models = TenantModels(registry, LOOPBACK)
    assert isinstance(await models.get("acme", model("local")), ChatServer)
    for tenant, name in (("other", "local"), ("acme", "remote")):
        with pytest.raises(ModelError) as caught:
            await models.get(tenant, model(name))
        assert caught.value.code == "not_found"
    await models.close()


async def test_a_removed_provider_is_gone_and_a_changed_one_gets_a_new_client() -> None:
    seen: list[str] = []

    async def notes(exchange: Exchange) -> None:
        seen.append(exchange.headers["authorization"])
        await exchange.finish()

    asked = ChatRequest("tiny", [ChatMessage("user", "Well?")], 8)
    async with faulty_server(notes) as server:
        registry = Registry({("acme", "local"): (server.url, "old-key")})
        models = TenantModels(registry, LOOPBACK)
        first = await models.get("acme", model("local"))
        assert await models.get("acme", model("local", "other")) is first
        assert "Fine." in [delta.text async for delta in first.stream(asked)]
        registry["acme", "local"] = (server.url, "new-key")
        second = await models.get("acme", model("local"))
        assert "Fine." in [delta.text async for delta in second.stream(asked)]
        registry["umbrella", "local"] = (server.url, "new-key")
        assert await models.get("umbrella", model("local")) is not second
        registry.clear()
        with pytest.raises(ModelError):
            await models.get("acme", model("local"))
        await models.close()
    assert seen == ["Bearer old-key", "Bearer new-key"]
