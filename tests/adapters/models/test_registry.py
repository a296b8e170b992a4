from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from adapters.models.chat_server import ChatServer
from adapters.models.extractive import Extractive
from adapters.models.kinds import SPEAKERS, TRANSCRIBERS
from adapters.models.registry import OfProviders, TenantModels
from domain.models.provider import Provider
from handlers.ports.models import ChatMessage, ChatModel, ChatRequest, ModelError
from tests.chat_servers import LOOPBACK, Exchange, faulty_server, in_clear, provider


async def client(models: TenantModels, tenant: str, provider: str, name: str = "tiny") -> ChatModel:
    """The client of a provider with one credential, or none."""
    [access] = await models.get(tenant, provider, name)
    return access.client


class Registry(dict[tuple[str, str], Provider]):
    async def __call__(self, tenant: str, name: str) -> Provider | None:
        return self.get((tenant, name))


async def test_the_built_in_model_needs_no_provider() -> None:
    models = TenantModels(Registry(), in_clear, LOOPBACK)
    assert isinstance(await client(models, "default", "builtin", "extractive"), Extractive)
    with pytest.raises(ModelError) as caught:
        await client(models, "default", "builtin", "gpt")
    assert caught.value.code == "not_found"


async def test_a_provider_is_its_tenants_own() -> None:
    registry = Registry({("acme", "local"): provider("http://127.0.0.1:9/v1", "k")})
    models = TenantModels(registry, in_clear, LOOPBACK)
    assert isinstance(await client(models, "acme", "local"), ChatServer)
    for tenant, name in (("other", "local"), ("acme", "remote")):
        with pytest.raises(ModelError) as caught:
            await client(models, tenant, name)
        assert caught.value.code == "not_found"
    await models.close()


async def test_a_removed_provider_is_gone_and_a_changed_one_gets_a_new_client() -> None:
    seen: list[str] = []

    async def notes(exchange: Exchange) -> None:
        seen.append(exchange.headers["authorization"])
        await exchange.finish()

    asked = ChatRequest("tiny", [ChatMessage("user", "Well?")], 8)
    async with faulty_server(notes) as server:
        registry = Registry({("acme", "local"): provider(server.url, "old-key")})
        models = TenantModels(registry, in_clear, LOOPBACK)
        first = await client(models, "acme", "local")
        assert await client(models, "acme", "local", "other") is first
        assert "Fine." in [delta.text async for delta in first.stream(asked)]
        registry["acme", "local"] = provider(server.url, "new-key")
        second = await client(models, "acme", "local")
        assert "Fine." in [delta.text async for delta in second.stream(asked)]
        registry["umbrella", "local"] = provider(server.url, "new-key")
        assert await client(models, "umbrella", "local") is not second
        registry.clear()
        with pytest.raises(ModelError):
            await client(models, "acme", "local")
        await models.close()
    assert seen == ["Bearer old-key", "Bearer new-key"]


async def test_a_removed_provider_has_no_client() -> None:
    registry = Registry({("acme", "local"): provider("http://127.0.0.1:9/v1", "k")})
    registry["acme", "local"].remove(datetime.now(UTC))
    with pytest.raises(ModelError) as caught:
        await client(TenantModels(registry, in_clear, LOOPBACK), "acme", "local")
    assert caught.value.code == "not_found"


async def test_each_key_of_a_provider_is_a_way_to_its_models() -> None:
    registry = Registry({("acme", "local"): provider("http://127.0.0.1:9/v1", "one", "two")})
    models = TenantModels(registry, in_clear, LOOPBACK)
    found = await models.get("acme", "local", "tiny")
    names = [(each["name"], each["weight"]) for each in registry["acme", "local"].credentials]
    assert [(access.credential, access.weight) for access in found] == names
    assert len({id(access.client) for access in found}) == 2
    again = await models.get("acme", "local", "large")
    assert [access.client for access in again] == [access.client for access in found]
    await models.close()


async def test_models_of_audio_are_those_of_openai_s_addresses() -> None:
    registry = Registry(
        {
            ("acme", "studio"): provider("http://127.0.0.1:9/v1", "k"),
            ("acme", "claude"): provider("http://127.0.0.1:9/v1", "k", kind="anthropic"),
        }
    )
    for kinds in (TRANSCRIBERS, SPEAKERS):
        models: OfProviders[Any] = OfProviders(kinds, "models of audio", registry, in_clear, LOOPBACK)
        [access] = await models.get("acme", "studio", "tiny")
        assert access.client.server == "127.0.0.1:9"
        for tenant, name, code in (
            ("acme", "claude", "unsupported"),
            ("other", "studio", "not_found"),
            ("acme", "builtin", "not_found"),
        ):
            with pytest.raises(ModelError) as caught:
                await models.get(tenant, name, "tiny")
            assert caught.value.code == code
        await models.close()
