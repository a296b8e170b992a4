"""The tools that an agent is offered."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.tools.builtin.toolbox import DEFINITIONS
from domain.chat.app import App
from handlers.tools.offer import Offer
from tests.handlers.tools.scene import Box, Scene
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
