"""Tools and agents in nodes: recorded as those of messages are, and not called twice when a worker dies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from domain.aggregate import new_id
from domain.tools.tool_call import ToolCall
from domain.workflows.graph import Graph
from domain.workflows.requests import AgentRequest, ToolRequest
from domain.workflows.values import infer
from handlers.abilities import Abilities
from handlers.models.model_calls import ModelCalls
from handlers.ports.models import ChatRequest
from handlers.repository import Repository
from handlers.tools.agent import Agent
from handlers.tools.offer import Offer
from handlers.tools.tool_calls import ToolCalls
from handlers.workflows.agent import RunAgent
from handlers.workflows.execution import Executor
from handlers.workflows.tool import CallTool
from tests.domain.workflows.golden import Case
from tests.handlers.fakes import Here, choosing
from tests.handlers.tools.scene import Box, Says, Scripted, call, tool
from tests.handlers.workflows.stage import Stage, graph
from tests.memory import Memory

WORLD: Case = {"graph": {}, "mode": "workflow"}


def _say(request: ChatRequest) -> Says:
    """An answer once the tool was called, and else the call."""
    called = any(message.role == "tool" for message in request.messages)
    return "It rains." if called else ("", [call("weather", city="Delft", days=2)])


class Workshop(Stage):
    def __init__(self, memory: Memory, tenant: str, *, idempotent: bool = True) -> None:
        super().__init__(memory, tenant)
        self.play(WORLD)
        self.box = Box(tool("weather", idempotent=idempotent, city={"type": "string"}, days={"type": "integer"}))
        self.model = Scripted(*[_say] * 9)
        self.own = self.calls

    def calls(self, repository: Repository) -> Mapping[type, Executor]:
        offer = Offer(repository, self.desk.blobs, self.box)
        tools = ToolCalls(repository, Here(), self.desk.files)
        choose = choosing(repository, self.model)
        agent = Agent(repository, ModelCalls(repository), choose, offer, tools, Abilities(repository))
        return {ToolRequest: CallTool(offer, tools), AgentRequest: RunAgent(agent)}


def ends(node: dict[str, Any]) -> Graph:
    outputs = [{"variable": "text", "value_selector": ["it", "text"]}]
    nodes = [{"id": "start", "type": "start"}, {"id": "it", **node}, {"id": "end", "type": "end", "outputs": outputs}]
    return graph(nodes, [("start", "it"), ("it", "end")])


TOOL = ends(
    {
        "type": "tool",
        "provider_id": "builtin",
        "provider_name": "builtin",
        "tool_name": "weather",
        "tool_parameters": {
            "city": {"type": "mixed", "value": "{{#start.city#}}"},
            "days": {"type": "constant", "value": 2},
        },
        "tool_configurations": {"unknown": "x", "other": None},
    }
)
AGENT = ends(
    {
        "type": "agent",
        "agent_strategy_name": "function_calling",
        "agent_parameters": {
            "model": {"type": "constant", "value": {"provider": "lab", "model": "m"}},
            "tools": {"type": "constant", "value": [{"provider_name": "builtin", "tool_name": "weather"}]},
            "instruction": {"type": "constant", "value": "Be brief."},
            "query": {"type": "constant", "value": "Rain in {{#start.city#}}?"},
        },
    }
)
CITY = {"city": infer("Delft")}
SAID = 'weather: {"city": "Delft", "days": 2}'


async def test_a_tool_gets_the_values_of_the_types_that_it_asks_for(memory: Memory, tenant: str) -> None:
    stage = Workshop(memory, tenant)
    id = await stage.started(TOOL, inputs=CITY)
    await stage.work(id)
    assert await stage.end(id) == ("succeeded", {"text": SAID}, "")
    [made] = stage.box.called
    found = await stage.desk.repository.get(ToolCall, tenant, made.id)
    assert found
    assert (found.status, found.cause_noun, found.cause_id) == ("completed", "run", id)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("drawn", [TOOL, AGENT], ids=["tool", "agent"])
async def test_a_call_that_is_not_harmless_is_made_once(drawn: Graph, after: bool) -> None:
    ended = set()
    for number in range(1, 10):
        stage = Workshop(Memory(), f"t{new_id()[:8]}", idempotent=False)
        id = await stage.started(drawn, inputs=CITY)
        await stage.work(id, kill=number, after=after)
        ended.add((await stage.end(id))[0])
        assert len(stage.box.called) <= 1
    assert "succeeded" in ended


async def test_an_agent_answers_by_its_tools(memory: Memory, tenant: str) -> None:
    stage = Workshop(memory, tenant)
    id = await stage.started(AGENT, inputs=CITY)
    await stage.work(id)
    assert await stage.end(id) == ("succeeded", {"text": "It rains."}, "")
    assert [each.content for each in stage.model.asked[0].messages][-1] == "Rain in Delft?"
    assert stage.model.asked[0].messages[0].content.startswith("Be brief.")
    assert stage.model.asked[1].messages[-1].content == SAID
    assert stage.made == {}


async def test_a_toolset_that_is_not_there_fails_the_node(memory: Memory, tenant: str) -> None:
    stage = Workshop(memory, tenant)
    node = {"type": "tool", "provider_id": "gone", "provider_name": "gone", "tool_name": "x", "tool_parameters": {}}
    id = await stage.started(ends(node))
    await stage.work(id)
    status, _, error = await stage.end(id)
    assert (status, error) == ("failed", "The toolset gone has no tool x; register it first.")
