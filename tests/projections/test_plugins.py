"""The tables of plugins."""

from __future__ import annotations

from datetime import timedelta
from typing import cast

from domain.access.tenant import HOUSE
from domain.models.model_call import ModelCall
from domain.tools.plugin import Manifest, Package, Plugin, PluginRun
from domain.tools.plugin_storage import PluginStorage, Value
from domain.tools.plugin_use import PluginUse
from projections.plugin_runs import plugin_runs
from projections.plugin_storage import plugin_storage
from projections.plugin_uses import plugin_uses
from projections.plugins import plugins
from projections.traces.spans import spans
from tests.projections.history import History

MANIFEST = cast("Manifest", {"name": "mask", "kind": "filter"})
PACKAGE = Package(package_version="1.0.0", digest="a" * 64, manifest=MANIFEST, content="none")
NEWER = Package(package_version="1.1.0", digest="a" * 64, manifest=MANIFEST, content="full")
RUN = PluginRun(
    name="mask",
    version="1.0.0",
    digest="a" * 64,
    hook="before_invoke",
    action="replace",
    changed=True,
    ms=0.5,
    code=None,
)


def test_an_installed_plugin_is_a_row_of_the_house() -> None:
    history = History(tenant=HOUSE)
    plugin = Plugin.begin(Plugin.Installed, "mask", history.now, **PACKAGE)
    plugin.install(history.now, **NEWER)
    history.record(plugin)
    [row] = history.rows(plugins)
    assert (row["tenant_id"], row["version"], row["status"], row["content"]) == (HOUSE, "1.1.0", "installed", "full")
    plugin.remove(history.now)
    history.record(plugin)
    [row] = history.rows(plugins)
    assert row["status"] == "removed"


def test_the_storage_of_a_plugin_is_counted() -> None:
    history = History()
    storage = PluginStorage.begin(PluginStorage.Begun, "tides", history.now)
    for key, size in (("a", 10), ("b", 5), ("a", 20)):
        storage.store(history.now, key=key, value=Value(digest="d", size=size, person=None), most=100)
    history.record(storage)
    [row] = history.rows(plugin_storage)
    assert (row["keys"], row["bytes"], row["sizes"]) == (2, 25, {"a": 20, "b": 5})
    storage.delete(history.now, key="b")
    history.record(storage)
    assert history.rows(plugin_storage)[0]["bytes"] == 20
    storage.clear(history.now)
    history.record(storage)
    assert (history.rows(plugin_storage)[0]["keys"], history.rows(plugin_storage)[0]["sizes"]) == (0, {})


def test_the_use_of_a_plugin_has_its_state_and_no_secret() -> None:
    history = History()
    use = PluginUse.begin(PluginUse.Begun, "mask", history.now)
    use.configure(history.now, settings={"mark": "x"}, secrets={"token": "sealed"})
    history.record(use)
    states = []
    for step in (
        lambda: use.enable(history.now, content=False),
        lambda: use.suspend(history.now, digest="a", reason="It ended."),
        lambda: use.resume(history.now, digest="a"),
        lambda: use.disable(history.now),
    ):
        step()
        history.record(use)
        [row] = history.rows(plugin_uses)
        states.append((row["status"], row["reason"]))
    assert states == [("enabled", None), ("suspended", "It ended."), ("enabled", None), ("disabled", None)]
    assert (row["settings"], row["secrets"], row["content"]) == ({"mark": "x"}, ["token"], False)


def test_each_hook_of_a_call_is_a_row() -> None:
    history = History()
    call = ModelCall.begin(
        ModelCall.Requested,
        "call",
        history.now,
        kind="chat",
        provider="lab",
        model="small",
        cause_noun="message",
        cause_id="message",
        request={},
    )
    call.filter(history.now, plugins=[RUN, {**RUN, "action": "continue", "changed": False}], original="b" * 64)
    history.record(call)
    call.filter(history.now, plugins=[{**RUN, "hook": "after_invoke"}], original=None)
    history.record(call)
    rows = history.rows(plugin_runs)
    assert len({row["id"] for row in rows}) == 3
    assert sorted((row["hook"], row["action"], row["original"]) for row in rows) == [
        ("after_invoke", "replace", None),
        ("before_invoke", "continue", "b" * 64),
        ("before_invoke", "replace", "b" * 64),
    ]
    assert {row["call_id"] for row in rows} == {"call"}
    hooks = [span for span in history.rows(spans) if span["kind"] == "plugin"]
    assert sorted((span["name"], span["status"], span["duration_ms"]) for span in hooks) == [
        ("after_invoke mask", "ok", 0.5),
        ("before_invoke mask", "ok", 0.5),
        ("before_invoke mask", "ok", 0.5),
    ]
    [call_span] = [span for span in history.rows(spans) if span["model_call_id"] == "call"]
    assert {span["parent_id"] for span in hooks} == {call_span["parent_id"]}
    assert hooks[0]["attributes"]["headrace.plugin.version"] == "1.0.0"
    assert all(span["ended_at"] - span["started_at"] == timedelta(milliseconds=0.5) for span in hooks)
