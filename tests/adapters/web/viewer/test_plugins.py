"""Plugins in the viewer: installed packages, their use, what they did, and the buttons."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from adapters.jetstream.client import Client
from domain.access.tenant import HOUSE
from domain.aggregate import new_id
from domain.log import Metadata
from domain.models.model_call import ModelCall
from domain.tools.plugin import PluginRun
from domain.tools.plugin_storage import PluginStorage, Value
from domain.tools.plugin_use import PluginUse
from domain.tools.toolset import Toolset
from ops.servers.embedded import EmbeddedNats
from tests.adapters.plugins import dify_agents
from tests.adapters.web.viewer.site import Site, serving, text_of
from tests.dify_packages import unpacked
from tests.packages import package

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
async def site(
    tmp_path_factory: pytest.TempPathFactory, lone_nats: EmbeddedNats, module_database_url: str
) -> AsyncIterator[Site]:
    home = tmp_path_factory.mktemp("plugins")
    log = home / "log"
    log.mkdir()
    lines = [
        {"event": "plugin.says", "plugin": "mask", "tenant": tenant, "text": text, "timestamp": "2026-03-01"}
        for tenant, text in (("default", f"I mask. {EVIL}"), ("other", "I am theirs."))
    ]
    (log / "worker.log").write_text("no JSON\n" + "".join(json.dumps(line) + "\n" for line in lines))
    async with serving(home, lone_nats.url, module_database_url, logs=log) as site:
        house = Client(site.wiring.nc, HOUSE)
        for name, data in (
            ("mask", package("serve(globals())\n")),
            ("team", unpacked(dify_agents.MANIFEST, dify_agents.FILES, wheels=False)),
        ):
            digest = await house.upload_blob(data)
            outcome = await house.send("plugin.install", {"plugin": name, "package": digest}, wait=30)
            assert outcome["status"] == "accepted", outcome
        yield site


async def plugin(site: Site, name: str) -> dict[str, Any]:
    await site.settled()
    return next(each for each in (await site.json("/plugins"))["plugins"] if each["id"] == name)


async def test_an_installed_plugin_is_shown_and_enabled_by_a_button(site: Site) -> None:
    await site.settled()
    words = text_of(await site.get("/plugins"))
    for said in ("mask", "1.0.0", "filter", "not used", "team", "7 strategies", "may call back for model.llm, tool"):
        assert said in words, said
    await site.post("/plugins/mask/enable")
    assert (await plugin(site, "mask"))["status"] == "enabled"
    await site.post("/plugins/mask/disable")
    assert (await plugin(site, "mask"))["status"] == "disabled"
    for path in ("gone/enable", "mask/other"):
        assert (await site.client.post(f"/plugins/{path}")).status_code == 404


async def test_what_a_plugin_did_keeps_and_wrote_is_shown(site: Site) -> None:
    await site.post("/plugins/mask/enable")
    await site.settled()
    call = ModelCall.begin(
        ModelCall.Requested,
        new_id(),
        site.now,
        kind="chat",
        provider="openai",
        model="m",
        cause_noun="message",
        cause_id=new_id(),
        attempt=1,
        server="",
        request={"messages": []},
        route=None,
    )
    run = PluginRun(
        name="mask",
        version="1.0.0",
        digest="d" * 64,
        hook="before_invoke",
        action="replace",
        changed=True,
        ms=2.0,
        code=None,
    )
    call.filter(site.now, plugins=[run, {**run, "version": "0.9.0", "action": "fail"}], original="e" * 64)
    await site.record(call, new_id())
    storage = PluginStorage.begin(PluginStorage.Begun, "mask", site.now)
    storage.store(site.now, key="a" * 64, value=Value(digest="d" * 64, size=1234, person=None), most=10**6)
    await site.record(storage, new_id())
    found = await plugin(site, "mask")
    did = {row["version"]: (row["runs"], row["failed"]) for row in found["versions"]}
    assert did == {"1.0.0": (1, 0), "0.9.0": (1, 1)}
    assert [entry["text"] for entry in found["logs"]] == [f"I mask. {EVIL}"]
    page = await site.get("/plugins")
    words = text_of(page)
    assert "Keeps 1 value, 1,234 bytes." in words
    assert "theirs" not in words
    assert EVIL not in page
    await site.post("/plugins/mask/clear")
    assert (await plugin(site, "mask"))["kept"] == 0


async def test_what_uses_a_plugin_is_shown(site: Site) -> None:
    toolset = Toolset.begin(
        Toolset.Registered,
        "tides",
        site.now,
        kind="plugin",
        description="",
        settings={"name": "team", "provider": "", "parameters": {}},
        secret=None,
        timeout_s=30.0,
    )
    await site.record(toolset, new_id())
    await site.post("/plugins/team/enable")
    sender = Client(site.wiring.nc, site.tenant)
    await sender.send("provider.register", {"name": "lab", "base_url": "http://127.0.0.1:9/v1", "check": False})
    made = await sender.send("app.create", {"name": "Harbour master", "mode": "agent-chat"})
    agent = {"strategy": "plugin", "plugin": {"name": "team", "strategy": "calling"}}
    fields = {"app": made["ids"]["app"], "model": {"provider": "lab", "name": "m"}, "features": {"agent": agent}}
    outcome = await sender.send("app.configure", fields)
    assert outcome["status"] == "accepted", outcome
    found = await plugin(site, "team")
    assert [(row["noun"], row["name"]) for row in found["used_by"]] == [("app", "Harbour master"), ("toolset", "tides")]
    words = text_of(await site.get("/plugins"))
    assert "Used by app Harbour master , toolset tides" in words


async def test_a_suspended_plugin_has_its_reason_and_is_tried_again(site: Site) -> None:
    await site.post("/plugins/team/enable")

    def suspend(use: PluginUse | None) -> PluginUse:
        assert use
        use.suspend(site.now, digest="d" * 64, reason=f"It ended. {EVIL}")
        return use

    await site.wiring.repository.change(PluginUse, "team", Metadata(new_id(), site.tenant, new_id()), suspend)
    assert (await plugin(site, "team"))["status"] == "suspended"
    page = await site.get("/plugins")
    assert "It ended." in text_of(page)
    assert "Try again" in text_of(page)
    assert EVIL not in page
    await site.post("/plugins/team/enable")
    assert (await plugin(site, "team"))["status"] == "enabled"
