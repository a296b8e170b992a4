"""Commands of plugins: packages, settings and secrets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from domain.access.tenant import HOUSE
from domain.tools.plugin_use import PluginUse
from handlers.commands import plugin_package
from handlers.commands.plugins import settings_fault
from tests.handlers.desk import Desk
from tests.memory import Memory
from tests.packages import FILTER, digest, package

PACKAGE = package()


@pytest.fixture
async def desk(memory: Memory, tenant: str) -> Desk:
    desk = Desk(memory, tenant)
    await desk.blobs.put(HOUSE, PACKAGE)
    await desk.done("plugin.install", plugin="mask", package=digest(PACKAGE))
    return desk


async def use(desk: Desk) -> PluginUse:
    found = await desk.ports.repository.get(PluginUse, desk.tenant, "mask")
    assert found is not None
    return found


async def test_the_name_is_that_of_the_manifest(desk: Desk) -> None:
    outcome = await desk.send("plugin.install", plugin="other", package=digest(PACKAGE))
    assert (outcome.code, outcome.field) == ("invalid", "plugin")


async def test_the_package_is_a_blob_of_the_house(desk: Desk) -> None:
    data = package("other")
    await desk.blobs.put(desk.tenant, data)
    outcome = await desk.send("plugin.install", plugin="mask", package=digest(data))
    assert (outcome.code, outcome.field) == ("not_found", "package")


async def test_a_package_that_is_too_large_is_not_read(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin_package, "MOST_BYTES", 10)
    outcome = await desk.send("plugin.install", plugin="mask", package=digest(PACKAGE))
    assert (outcome.code, "at most 10" in str(outcome.message)) == ("invalid_package", True)


async def test_a_broken_package_is_refused_with_its_reason(desk: Desk) -> None:
    data = package(manifest={**FILTER, "kind": "music"})
    await desk.blobs.put(HOUSE, data)
    outcome = await desk.send("plugin.install", plugin="mask", package=digest(data))
    assert (outcome.code, outcome.field) == ("invalid_package", "package")
    assert "kind" in str(outcome.message)


@pytest.mark.parametrize("command", ["plugin.enable", "plugin.configure"])
async def test_only_what_is_installed_can_be_used(desk: Desk, command: str) -> None:
    fields: dict[str, Any] = {"settings": {}} if command == "plugin.configure" else {}
    assert (await desk.send(command, plugin="other", **fields)).code == "not_found"
    await desk.done("plugin.remove", plugin="mask")
    assert (await desk.send(command, plugin="mask", **fields)).code == "not_found"


async def test_secrets_are_sealed_and_stay_when_they_are_left_out(desk: Desk) -> None:
    await desk.done("plugin.configure", plugin="mask", settings={"mark": "x", "token": "t-1"})
    await desk.done("plugin.configure", plugin="mask", settings={"mark": "y"})
    found = await use(desk)
    assert found.settings == {"mark": "y"}
    assert json.loads(desk.vault.open(desk.tenant, found.secrets["token"])) == "t-1"
    assert "t-1" not in str(found.secrets)


async def test_settings_keep_to_the_schema(desk: Desk) -> None:
    outcome = await desk.send("plugin.configure", plugin="mask", settings={"mark": 1})
    assert (outcome.code, outcome.field) == ("invalid", "settings")
    assert outcome.message == "mark must meet the rule type of the plugin's schema."
    outcome = await desk.send("plugin.configure", plugin="mask", settings={"colour": 1})
    assert outcome.message == "The plugin has no setting colour."


async def test_a_plugin_with_required_settings_is_enabled_once_it_has_them(desk: Desk) -> None:
    needs = package(manifest={**FILTER, "settings": {**FILTER["settings"], "required": ["token"]}})  # type: ignore[dict-item]
    await desk.blobs.put(HOUSE, needs)
    await desk.done("plugin.install", plugin="mask", package=digest(needs))
    assert (await desk.send("plugin.enable", plugin="mask")).code == "not_configured"
    await desk.done("plugin.configure", plugin="mask", settings={"token": "t"})
    await desk.done("plugin.enable", plugin="mask")
    await desk.done("plugin.configure", plugin="mask", settings={})
    assert (await use(desk)).enabled


def test_a_plugin_without_a_schema_has_no_settings() -> None:
    assert settings_fault({}, {}, known=set()) is None
    assert settings_fault({}, {"a": 1}, known=set()) == "The plugin has no settings."
