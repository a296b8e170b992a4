"""The tools that an agent is offered."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.code.contained import Allowance, ContainedCode
from adapters.sandbox.choice import choose
from adapters.tools.builtin.code import RunCode
from adapters.tools.builtin.toolbox import DEFINITIONS
from domain.chat.app import App
from handlers.ports.code import CallLimits
from handlers.tools.offer import Offer
from tests.handlers.tools.scene import Box, Scene, call
from tests.memory import Memory


@pytest.mark.parametrize(
    ("choice", "offered"),
    [
        ({"toolset": "builtin"}, ["time", "calculate", "fetch"]),
        ({"toolset": "builtin", "tools": ["code", "time"]}, ["time", "code"]),
        ({"toolset": "builtin", "tools": []}, []),
        ({"toolset": "box"}, ["time", "calculate", "fetch", "search_knowledge", "code"]),
    ],
)
async def test_the_built_in_tool_code_is_offered_only_by_its_name(
    memory: Memory, tenant: str, choice: dict[str, Any], offered: list[str]
) -> None:
    scene = Scene(memory, tenant, tools=DEFINITIONS)
    await scene.asked(tools=[choice])
    app = await scene.desk.fold("app", scene.app)
    assert isinstance(app, App)
    assert app.configuration
    found = await Offer(scene.desk.repository, scene.desk.blobs, Box(*DEFINITIONS))(tenant, app.configuration)
    assert list(found) == offered


async def test_a_program_of_an_agent_is_recorded_with_what_ran_it(memory: Memory, tenant: str) -> None:
    programs = [call("code", "a", code="print(6 * 7)"), call("code", "b", code="x = 1\nprint(x / 0)")]
    scene = Scene(memory, tenant, ("", programs), "It is 42.", tools=DEFINITIONS)
    async with ContainedCode(await choose(), Allowance(CallLimits())) as code:
        scene.box.does = RunCode(code)
        await scene.worker()(await scene.asked(tools=[{"toolset": "builtin", "tools": ["code"]}]))
        adapter = await code.adapter("python3")
    good, bad = await scene.tool_calls()
    assert (good.status, good.text, good.parts) == (
        "completed",
        "42\n",
        [{"type": "json", "value": {"adapter": adapter}}],
    )
    assert (bad.status, bad.code) == ("failed", "invalid_arguments")
    assert bad.reason == "Line 2: ZeroDivisionError: division by zero"
    results = [each.content for each in scene.model.asked[1].messages if each.role == "tool"]
    assert results[0] == "42\n"
    assert "Line 2: ZeroDivisionError: division by zero" in results[1]
