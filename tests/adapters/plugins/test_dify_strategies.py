"""Strategies of agents in plugins of Dify, run unchanged by the real SDK."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from adapters.sandbox.choice import choose
from adapters.tools.plugin.strategies import DifyStrategies
from domain.chat.app import ModelSettings, PluginStrategy
from domain.log import Metadata
from handlers.cause import Cause
from handlers.ports.models import ChatMessage, ModelError, Tool, ToolCall
from handlers.ports.strategies import Brief, OfferedTool
from handlers.ports.tools import Output, Refused, Result
from tests.adapters.plugins import dify_agents
from tests.adapters.plugins.conftest import Site
from tests.adapters.plugins.lab import Backs, Lab
from tests.dify_packages import has_python

pytestmark = pytest.mark.skipif(not has_python(), reason="there is no Python 3.12 on this machine")

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}, "days": {"type": "integer", "minimum": 1}},
    "required": ["city"],
}

TOOLS = [OfferedTool("climate", Tool("weather", "The weather of a city.", SCHEMA))]

CALLS = [ToolCall("a", "weather", '{"city": "Paris"}'), ToolCall("b", "weather", '{"city": "Rome"}')]


class Agents(Lab):
    async def run(
        self, strategy: str, backs: Backs, history: Sequence[ChatMessage] = (), rounds: int = 5, **parameters: Any
    ) -> list[str | Output]:
        brief = Brief(
            cause=Cause(Metadata("1", "acme", "1", actor="ada"), "message", "m-1", 1, app="app-1"),
            conversation="c-1",
            strategy=PluginStrategy(name="team", provider="", strategy=strategy, parameters=parameters),
            instructions="Be brief.",
            query="How is the weather?",
            history=history,
            model=ModelSettings(
                provider="local", name="m", max_tokens=200, context_window=8192, parameters={"temperature": 0.1}
            ),
            tools=TOOLS,
            rounds=rounds,
            user="ada",
        )
        return [each async for each in DifyStrategies(self.dify, self.answering).run(brief, backs)]

    async def failure(self, strategy: str, backs: Backs, **parameters: Any) -> ModelError:
        with pytest.raises(ModelError) as failed:
            await self.run(strategy, backs, **parameters)
        return failed.value


@pytest.fixture(scope="module")
async def agents(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Agents]:
    site = Site(tmp_path_factory.mktemp("home"), (await choose()).sandbox)
    agents = Agents(site)
    await agents.add(dify_agents.MANIFEST, dify_agents.FILES)
    yield agents
    await site.hosts.close()
    await site.environments.close()


@pytest.mark.parametrize("strategy", ["calling", "whole"])
async def test_a_strategy_calls_a_model_and_its_tools(agents: Agents, strategy: str) -> None:
    backs = Backs(("Let me look.", CALLS), "It rains in both.")
    said = await agents.run(strategy, backs)
    assert "".join(map(str, said)) == "Let me look.It rains in both."
    assert backs.tools == [("climate", "weather", {"city": "Paris"}), ("climate", "weather", {"city": "Rome"})]
    first, second = backs.models
    assert (first.provider, first.model, first.parameters, first.max_tokens) == (
        "local",
        "m",
        {"temperature": 0.1},
        200,
    )
    assert [(each.role, each.content) for each in first.messages] == [
        ("system", "Be brief."),
        ("user", "How is the weather?"),
    ]
    assert first.tools[0].parameters["properties"] == SCHEMA["properties"]
    assert first.tools[0].parameters["required"] == ["city"]
    asked, *results = second.messages[2:]
    assert asked.tool_calls == CALLS
    assert [(each.tool_call_id, each.content) for each in results] == [
        ("a", "weather of climate: 42"),
        ("b", "weather of climate: 42"),
    ]


async def test_a_strategy_is_given_history_and_rounds(agents: Agents) -> None:
    backs = Backs("Fine.")
    history = [
        ChatMessage("user", "Before?"),
        ChatMessage("assistant", "", tool_calls=CALLS[:1]),
        ChatMessage("tool", "Rain.", tool_call_id="a"),
        ChatMessage("assistant", "It rained."),
    ]
    await agents.run("calling", backs, history, rounds=1)
    given = [each._replace(tool_calls=tuple(each.tool_calls)) for each in backs.models[0].messages[1:-1]]
    assert given == [each._replace(tool_calls=tuple(each.tool_calls)) for each in history]
    assert backs.models[0].tools == []  # the last round


async def test_calls_of_tools_at_once_are_kept_apart(agents: Agents) -> None:
    class Slow(Backs):
        """Its tools answer once all four are called, the last one first."""

        def __init__(self) -> None:
            super().__init__()
            self.all = asyncio.Event()

        async def tool(self, toolset: str, tool: str, arguments: dict[str, Any]) -> Result:
            self.tools.append((toolset, tool, arguments))
            if len(self.tools) == 4:
                self.all.set()
            await self.all.wait()
            await asyncio.sleep(0.05 * (4 - arguments["number"]))
            return Result(str(arguments["number"]))

    assert await agents.run("together", Slow()) == ["0 1 2 3"]


async def test_files_and_links_come_with_the_text_and_logs_do_not(agents: Agents) -> None:
    text, link, file = await agents.run("gives_files", Backs())
    assert (text, str(link).strip()) == ("Here is a chart.", "https://example.com/chart")
    assert isinstance(file, Output)
    assert (file.name, file.media_type, len(file.data)) == ("chart.png", "image/png", 1004)


async def test_a_fault_is_the_reason(agents: Agents) -> None:
    assert "ValueError: The strategy has no idea." in (await agents.failure("fails", Backs())).reason
    refused = await agents.failure("obstinate", Backs(Refused("The agent must answer.")))
    assert (refused.code, "The agent must answer." in refused.reason) == ("plugin_failed", True)
    assert "no strategies 'other'" in (await agents.failure("other", Backs())).reason


async def test_a_process_that_crashes_fails_the_turn(agents: Agents) -> None:
    failed = await agents.failure("crashes", Backs())
    assert (failed.code, "status 3" in failed.reason) == ("plugin_failed", True)
    assert json.dumps(await agents.run("calling", Backs("Well."))) == '["Well."]'
