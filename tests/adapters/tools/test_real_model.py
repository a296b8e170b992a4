"""An agent with a real model: it answers in the form of its strategy, calls real tools, and every step is recorded."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import jsonschema
import pytest

from adapters.models.chat_server import ChatServer
from adapters.tools.builtin.calculator import CALCULATE, calculate
from adapters.tools.builtin.clock import TIME, tell
from domain.models.model_call import ModelCall
from domain.tools.tool import Definition
from handlers.ports.models import Access, ChatRequest, Delta, Tool
from handlers.ports.tools import Invocation, Result
from handlers.tools import strategies
from ops.servers.model import EmbeddedModel
from tests.handlers.tools.scene import Scene
from tests.larger_model import larger_model  # noqa: F401
from tests.memory import Memory
from tests.small_model import STEADY, client_of

FACTS = {"oil boom": "The oil boom is 28 metres long.", "surge tank": "The surge tank holds 350 cubic metres."}

SEARCH = Definition(
    name="search",
    label="",
    description="Return what the handbook of the power station says about a thing.",
    parameters={
        "type": "object",
        "properties": {"thing": {"type": "string", "description": "The thing, in one or two words"}},
        "required": ["thing"],
        "additionalProperties": False,
    },
    destructive=False,
    idempotent=True,
)

TOOLS: Sequence[Definition] = (TIME, CALCULATE, SEARCH)


class Real:
    """A model behind its server, as Models; requests are made steady, and answers kept short."""

    def __init__(self, client: ChatServer, name: str) -> None:
        self.client, self.name = client, name
        self.server = client.server

    async def get(self, tenant: str, provider: str, model: str) -> Sequence[Access]:
        return [Access(self)]

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta]:
        sent = replace(request, model=self.name, parameters=STEADY, max_tokens=96)
        async with aclosing(self.client.stream(sent)) as deltas:
            async for delta in deltas:
                yield delta


@asynccontextmanager
async def asking(memory: Memory, tenant: str, served: EmbeddedModel) -> AsyncIterator[Scene]:
    client = client_of(served)
    scene = Scene(memory, tenant, tools=TOOLS)
    scene.model = scene.speaker = Real(client, served.name)  # type: ignore[assignment]
    scene.box.does = does
    yield scene
    await client.close()


async def does(invocation: Invocation) -> Result:
    if invocation.tool["name"] == SEARCH["name"]:
        thing = invocation.arguments["thing"].lower()
        return Result(next((fact for known, fact in FACTS.items() if known in thing), "The handbook does not say."))
    return await (tell if invocation.tool["name"] == TIME["name"] else calculate)(invocation)


async def answers(scene: Scene) -> list[ModelCall.Completed]:
    """The recorded answers of the model, in order."""
    events = [event for id in scene.model_calls() for event in await scene.desk.events("model_call", id)]
    return [event for event in events if isinstance(event, ModelCall.Completed)]


async def keeps_to_the_form(scene: Scene) -> None:
    """Every step is recorded, each answer is a step by the schema, and each call is one of a tool with its schema."""
    offered = [Tool(tool["name"], tool["description"], tool["parameters"]) for tool in TOOLS]
    made, rounds = await scene.tool_calls(), await answers(scene)
    assert rounds
    asked = []
    for round in rounds:
        if round.finish_reason == "length":
            continue
        step = json.loads(round.response)
        jsonschema.validate(step, strategies.steps(offered))
        if "tool" in step["step"]:
            asked.append((step["step"]["tool"], step["step"]["arguments"]))
    assert [(call.name, json.loads(call.arguments)) for call in made] == asked
    assert {call.code for call in made} <= {"", "invalid_arguments"}, (
        "an expression may be none, but keeps to its schema"
    )
    assert not [call for call in made if call.reason.startswith("The arguments do not keep")]
    types = await scene.desk.types("conversation", scene.conversation)
    assert "message.strategy_changed.v1" not in types


async def test_a_small_model_keeps_to_the_form_of_a_schema(tenant: str, small_model: EmbeddedModel) -> None:
    """Which tool it takes is its own affair: it is small."""
    async with asking(Memory(), tenant, small_model) as scene:
        await scene.worker()(await scene.asked("What is 17 times 23?", strategy="schema", rounds=3))
        await keeps_to_the_form(scene)
        state = await scene.state()
        assert state["status"] == "answered"
        assert state["answer"].strip()
        assert not state["answer"].startswith("{")
        assert (await scene.tool_calls())[0].status in ("completed", "failed")


TASKS = {
    "What year is it now? Look at the clock.": str(datetime.now(UTC).year),
    "What is 17 times 23?": "391",
    "How long is the oil boom, by the handbook?": "28",
    "What is the square root of 1764?": "42",
    "How many cubic metres do three surge tanks hold? Look up one in the handbook, and calculate.": "1050",
}


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_a_larger_model_solves_most_small_tasks(tenant: str, larger_model: EmbeddedModel) -> None:  # noqa: F811
    """The clock, the calculator, a search, and one with two steps."""
    solved = {}
    for task, wanted in TASKS.items():
        async with asking(Memory(), tenant, larger_model) as scene:
            await scene.worker(600.0)(await scene.asked(task, strategy="schema", rounds=5, seconds=600))
            await keeps_to_the_form(scene)
            answer = (await scene.state())["answer"].replace(",", "")
            solved[task] = wanted in answer and bool(await scene.tool_calls())
    assert sum(solved.values()) >= 4, solved
