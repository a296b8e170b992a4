"""Commands with plugins of Dify: what they name must be declared by an installed package."""

from __future__ import annotations

import json
from typing import Any

import pytest

from domain.access.tenant import HOUSE
from domain.models.provider import Provider
from domain.tools.toolset import Toolset
from tests.adapters.plugins import dify_lab, dify_models
from tests.dify_packages import unpacked
from tests.handlers.desk import Desk
from tests.memory import Memory
from tests.packages import digest

KEY = json.dumps({"api_key": "key-of-the-lab"})


@pytest.fixture
async def desk(memory: Memory, tenant: str) -> Desk:
    desk = Desk(memory, tenant)
    for module, name in ((dify_lab, "lab"), (dify_models, "models")):
        data = unpacked(module.MANIFEST, module.FILES, wheels=False)
        await desk.blobs.put(HOUSE, data)
        await desk.done("plugin.install", plugin=name, package=digest(data))
    return desk


async def register(desk: Desk, secret: str | None = None, **plugin: Any) -> Any:
    fields = {"name": "tides", "kind": "plugin", "plugin": {"name": "lab", "provider": "guarded", **plugin}}
    return await desk.send("toolset.register", **fields, secret=secret)


async def test_a_toolset_of_a_plugin_keeps_its_credentials_sealed(desk: Desk) -> None:
    assert (await register(desk, KEY)).code is None
    toolset = await desk.ports.repository.get(Toolset, desk.tenant, "tides")
    assert toolset
    assert toolset.secret
    assert toolset.secret["hint"] == ""
    assert "key-of-the-lab" not in json.dumps([toolset.settings, toolset.secret])
    assert toolset.refreshing
    await register(desk)
    again = await desk.ports.repository.get(Toolset, desk.tenant, "tides")
    assert again
    assert again.secret == toolset.secret
    await register(desk, provider="lab")  # other tools: the credentials are not theirs
    other = await desk.ports.repository.get(Toolset, desk.tenant, "tides")
    assert other
    assert other.secret is None


async def test_what_a_toolset_names_must_be_declared(desk: Desk) -> None:
    for field, code, refused in (
        ("plugin.name", "not_found", register(desk, name="other")),
        ("plugin.provider", "not_found", register(desk, provider="other")),
        ("plugin.provider", "not_found", register(desk, provider="")),
        ("plugin.parameters", "invalid", register(desk, parameters={"guarded": {"other": 1}})),
        ("secret", "invalid", register(desk, "text")),
        ("secret", "invalid", register(desk, '{"other": 1}')),
    ):
        outcome = await refused
        assert (outcome.code, outcome.field) == (code, field)


async def test_a_provider_of_a_plugin_is_named_by_its_address(desk: Desk) -> None:
    key = json.dumps({"api_key": "key-of-the-lab", "endpoint_url": "https://host/v1"})
    await desk.done("provider.register", name="lab", kind="dify", base_url="plugin://models/lab", key=key, check=False)
    provider = await desk.ports.repository.get(Provider, desk.tenant, "lab")
    assert provider
    assert (provider.kind, provider.base_url) == ("dify", "plugin://models/lab")
    assert provider.credentials[0]["hint"] == ""
    for kind, address, secret, field in (
        ("dify", "plugin://other/lab", "", "base_url"),
        ("dify", "plugin://models/other", "", "base_url"),
        ("dify", "plugin://models/lab", "text", "key"),
        ("dify", "plugin://models/lab", "{}", "key"),
    ):
        outcome = await desk.send("provider.register", name="two", kind=kind, base_url=address, key=secret)
        assert outcome.field == field
    for kind, address in (("dify", "https://host/v1"), ("openai", "plugin://models/lab")):
        outcome = await desk.send("provider.register", name="two", kind=kind, base_url=address)
        assert outcome.code == "invalid"
