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
from tests.adapters.plugins import dify_agents, dify_lab, dify_models
from tests.chat_servers import faulty_server
from tests.conftest import fresh_database
from tests.dify_packages import has_python, unpacked
from tests.journeys.stack import PATIENCE_S, Stack, install
from tests.packages import package
from tests.scripted_agent import Call, Scripts, scripted

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


async def test_a_strategy_calls_a_tool_by_a_model_each_of_a_package_and_waits_for_a_person(stack: Stack) -> None:
    await install(stack, "team", unpacked(dify_agents.MANIFEST, dify_agents.FILES))
    await stack.send("plugin.enable", plugin="team")
    await toolset(stack, "lab", "digest", plugin={"name": "lab", "provider": "lab"})
    await stack.send("provider.register", name="dify", kind="dify", base_url="plugin://models/lab", key=CREDENTIALS)
    plugin = {"name": "team", "strategy": "calling"}
    agent = {"strategy": "plugin", "plugin": plugin, "tools": [{"toolset": "lab", "tools": ["echo"]}]}
    model = {"provider": "dify", "name": "made-up-agent", "max_tokens": 200}
    app = await stack.make("app.create", name="team", mode="agent-chat")
    await stack.send("app.configure", app=app, model=model, features={"agent": agent})
    frames = []
    async for frame in stack.client.ask(app, "When is high tide?", wait=PATIENCE_S, patience=PATIENCE_S):
        frames.append(frame)
        if frame["type"] == "held":
            message, [call] = frames[0]["message"], frame["calls"]
            await stack.until("SELECT * FROM headrace.tool_calls WHERE id = %(id)s AND status = 'held'", id=call)
            await stack.send("tool_call.release", tool_call=call)
    assert (frames[-1]["type"], frames[-1]["answer"]) == ("answered", "It is 18:05."), frames
    thoughts = await stack.until(
        "SELECT * FROM headrace.message_agent_thoughts WHERE message_id = %(id)s",
        lambda rows: bool(rows and rows[0]["observation"]),
        id=message,
    )
    assert [(row["tool"], row["observation"], row["position"]) for row in thoughts] == [("echo", "50:81", 1)]
    calls = await stack.until(
        "SELECT * FROM headrace.model_calls WHERE cause_id = %(id)s ORDER BY created_at",
        lambda rows: len(rows) == 2 and all(row["status"] == "completed" for row in rows),
        id=message,
    )
    assert thoughts[0]["message_chain_id"] == calls[0]["id"]  # the first was not made again after the wait


async def test_what_a_tool_stores_ends_with_its_person(stack: Stack) -> None:
    await toolset(stack, "lab", "digest", plugin={"name": "lab", "provider": "lab"})
    says: Scripts = {
        "Keep": [[Call("keeps", {"value": "18:05"})], "Kept."],
        "Find": [[Call("keeps", {})], lambda messages: f"Found {messages[-1]['content']}."],
    }
    async with faulty_server(scripted(says)) as server:
        await stack.send("provider.register", name="scripted", base_url=server.url)
        agent = {"tools": [{"toolset": "lab", "tools": ["keeps"], "approve": "never"}], "strategy": "tools"}
        app = await stack.make("app.create", name="keeper", mode="agent-chat")
        model = {"provider": "scripted", "name": "scripted"}
        await stack.send("app.configure", app=app, model=model, features={"agent": agent})
        assert (await stack.ask(app, "Keep it.", user="ada"))[-1]["answer"] == "Kept."
        assert (await stack.ask(app, "Find it.", user="bo"))[-1]["answer"] == "Found 18:05."
        [row] = await stack.until("SELECT * FROM headrace.plugin_storage WHERE id = 'lab'")
        assert (row["keys"], row["bytes"]) == (1, 5)
        await stack.send("end_user.erase", user="ada")
        assert (await stack.ask(app, "Find it.", user="bo"))[-1]["answer"] == "Found nothing."
