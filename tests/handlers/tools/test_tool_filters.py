"""Filters of plugins around calls of tools: what is recorded is what is sent, and what came back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from domain.tools.tool_call import ToolCall
from handlers.ports.plugins import PluginFailed
from tests.handlers.fakes import Installed
from tests.handlers.tools.scene import Scene, call
from tests.memory import Memory

Call = Mapping[str, Any]


@pytest.fixture
def scene(memory: Memory, tenant: str) -> Scene:
    scene = Scene(memory, tenant, ("", [call("weather", city="Paris")]), "Done.")
    scene.plugins = Installed()
    return scene


async def made(scene: Scene) -> ToolCall:
    await scene.worker()(await scene.asked())
    [call] = await scene.tool_calls()
    return call


async def runs(scene: Scene, call: ToolCall) -> list[tuple[str, str, bool]]:
    return [
        (run["hook"], run["action"], run["changed"])
        for event in await scene.desk.events("tool_call", call.id)
        if isinstance(event, ToolCall.Filtered)
        for run in event.plugins
    ]


def plugins(scene: Scene) -> Installed:
    assert scene.plugins is not None
    return scene.plugins


async def test_arguments_and_results_are_as_the_filters_leave_them(scene: Scene) -> None:
    plugins(scene).add(
        "guide",
        before_tool=lambda call: {"action": "replace", "arguments": {"city": "Rome"}},
        after_tool=lambda call: {"action": "replace", "result": call["result"].upper()},
    )
    found = await made(scene)
    assert (found.status, found.arguments, found.text) == ("completed", '{"city":"Rome"}', 'WEATHER: {"CITY": "ROME"}')
    assert await runs(scene, found) == [("before_tool", "replace", True), ("after_tool", "replace", True)]
    [(_, _, before), _] = plugins(scene).asked
    assert (before["toolset"], before["tool"], before["arguments"]) == ("box", "weather", {"city": "Paris"})
    assert scene.model.asked[1].messages[-1].content == 'WEATHER: {"CITY": "ROME"}'


async def test_a_call_can_be_refused(scene: Scene) -> None:
    plugins(scene).add("guard", before_tool=lambda call: {"action": "refuse", "reason": "Not in winter."})
    found = await made(scene)
    assert (found.status, found.code) == ("failed", "plugin_refused")
    assert "Not in winter" in found.reason
    assert await runs(scene, found) == [("before_tool", "refuse", False)]


@pytest.mark.parametrize("hook", ["before_tool", "after_tool"])
@pytest.mark.parametrize(("failing", "status"), [("closed", "failed"), ("open", "completed")])
async def test_a_filter_fails_open_or_closed(scene: Scene, hook: str, failing: str, status: str) -> None:
    plugins(scene).add("guard", {"on_failure": failing}, **{hook: lambda call: PluginFailed("died", "It ended.")})
    found = await made(scene)
    assert (found.status, found.code) == (status, "plugin_failed" if status == "failed" else "")
    assert await runs(scene, found) == [(hook, "fail", False)]


async def test_changed_arguments_keep_to_the_schema(scene: Scene) -> None:
    plugins(scene).add("guide", before_tool=lambda call: {"action": "replace", "arguments": {"city": 7}})
    found = await made(scene)
    assert (found.status, found.code) == ("failed", "invalid_arguments")


async def test_filters_meet_the_tools_that_they_match(scene: Scene) -> None:
    refuses = {"before_tool": lambda call: {"action": "refuse"}}
    plugins(scene).add("other", {"match": {"providers": ["another"]}}, **refuses)
    plugins(scene).add("chats", {"match": {"kinds": ["chat"]}}, **refuses)
    assert (await made(scene)).status == "completed"
    assert plugins(scene).asked == []
