"""Plugins of Dify in a whole Headrace: an agent calls a tool of a package by a chat model of another one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from domain.access.tenant import HOUSE
from ops.plugin_folder import install_all
from ops.servers.embedded import EmbeddedNats, EmbeddedPostgres
from ops.settings import Settings
from tests.adapters.plugins import dify_lab, dify_models
from tests.conftest import fresh_database
from tests.dify_packages import has_python, unpacked
from tests.journeys.stack import Stack, install
from tests.packages import package

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not has_python(), reason="there is no Python 3.12 on this machine"),
]

CREDENTIALS = json.dumps({"api_key": "key-of-the-lab", "endpoint_url": "https://host.example/v1"})


@pytest.fixture(scope="module")
async def stack(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    home: Path = tmp_path_factory.mktemp("dify")
    async with EmbeddedNats(home) as nats, fresh_database(postgres) as url:
        settings = Settings.load(home=home, nats_url=nats.url, postgres_url=url)
        async with Stack.running(settings, ("commands", "answer", "project")) as stack:
            for module, name in ((dify_lab, "lab"), (dify_models, "models")):
                await install(stack, name, unpacked(module.MANIFEST, module.FILES))
                await stack.send("plugin.enable", plugin=name)
            yield stack


async def toolset(stack: Stack, name: str, done: str, **fields: Any) -> dict[str, Any]:
    await stack.send("toolset.register", name=name, kind="plugin", **fields)
    query = "SELECT * FROM headrace.toolsets WHERE tenant_id = %(tenant)s AND id = %(name)s"
    [row] = await stack.until(query, lambda rows: bool(rows and rows[0][done]), name=name, tenant=stack.client.tenant)
    return row


async def test_an_agent_calls_a_tool_of_a_package_by_a_model_of_another(stack: Stack) -> None:
    await toolset(stack, "lab", "digest", plugin={"name": "lab", "provider": "lab"})
    await stack.send("provider.register", name="dify", kind="dify", base_url="plugin://models/lab", key=CREDENTIALS)
    await stack.send("provider.check", provider="dify")
    [listed] = await stack.until(
        "SELECT * FROM headrace.provider_models WHERE provider_id = 'dify' AND model = 'small'"
    )
    assert listed["context_window"] == 8192
    app = await stack.make("app.create", name="tides", mode="agent-chat")
    agent = {"tools": [{"toolset": "lab", "tools": ["echo"], "approve": "never"}], "strategy": "tools"}
    model = {"provider": "dify", "name": "made-up-agent", "max_tokens": 200}
    await stack.send("app.configure", app=app, model=model, features={"agent": agent})
    frames = await stack.ask(app, "When is high tide?")
    assert frames[-1]["type"] == "answered", frames
    assert frames[-1]["answer"] == "It is 18:05."
    [call] = await stack.until(
        "SELECT * FROM headrace.tool_calls WHERE toolset = 'lab'", lambda rows: bool(rows and rows[0]["result"])
    )
    assert (call["tool"], call["result"]) == ("echo", "50:81")


async def test_wrong_credentials_are_the_reason_of_a_failed_list(stack: Stack) -> None:
    secret = json.dumps({"api_key": "a-wrong-key"})
    row = await toolset(stack, "wrong", "error", plugin={"name": "lab", "provider": "guarded"}, secret=secret)
    assert "not valid" in str(row)
    assert "a-wrong-key" not in str(row)


async def test_the_operators_folder_is_installed_by_commands(stack: Stack, tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "mask.zip").write_bytes(package("from headrace_plugin import *\nserve(globals())\n"))
    settings = stack.settings.model_copy(update={"plugin_folder": str(folder)})
    said: list[str] = []
    await install_all(settings, stack.client, said.append)
    await install_all(settings, stack.client, said.append)
    assert said == ["plugin     mask.zip: mask 1.0.0 installed"]
    [row] = await stack.until("SELECT * FROM headrace.plugins WHERE id = 'mask'")
    assert (row["version"], row["status"], row["tenant_id"]) == ("1.0.0", "installed", HOUSE)
