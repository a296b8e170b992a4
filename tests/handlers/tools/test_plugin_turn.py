"""Turns of agents by the strategy of a plugin, which a scripted one stands for: its calls back are recorded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from domain.access.tenant import HOUSE
from domain.models.model_call import ModelCall
from domain.tools.tool import Definition
from handlers.ports.models import ChatMessage, ModelError, ToolCall
from handlers.ports.strategies import Brief, named
from handlers.ports.tools import AskedModel, CallBacks, Invocation, Output, Refused, Result
from tests.adapters.plugins import dify_agents
from tests.dify_packages import unpacked
from tests.handlers.tools.scene import Says, Scene, call, tool
from tests.handlers.tools.test_kills import LOOK, PAY, ROUNDS, Killed, completed, killed
from tests.memory import Memory
from tests.packages import digest


class Calling:
    """Calls the tools that the model asks for, one after another, or with `together` all at once."""

    def __init__(self, *, together: bool = False) -> None:
        self.together = together
        self.briefs: list[Brief] = []

    async def run(self, brief: Brief, backs: CallBacks) -> AsyncGenerator[str | Output]:
        self.briefs.append(brief)
        messages = [ChatMessage("system", brief.instructions), *brief.history, ChatMessage("user", brief.query)]
        tools = [each.tool for each in brief.tools]
        while True:
            said, calls = "", []
            asked = AskedModel(*named(brief.model), list(messages), tools, {}, None)
            async for delta in backs.model(asked):
                said, calls = said + delta.text, [*calls, *delta.tool_calls]
                if delta.text:
                    yield delta.text
            if not calls:
                return
            messages.append(ChatMessage("assistant", said, tool_calls=calls))

            async def called(each: ToolCall) -> Result:
                return await backs.tool("box", each.name, json.loads(each.arguments))

            results = (
                await asyncio.gather(*map(called, calls)) if self.together else [await called(each) for each in calls]
            )
            for each, result in zip(calls, results, strict=True):
                messages.append(ChatMessage("tool", result.text, tool_call_id=each.id))


class Team(Scene):
    """A scene whose app has the strategy of an installed plugin."""

    def __init__(self, memory: Memory, tenant: str, *says: Says, tools: Sequence[Definition] = ()) -> None:
        super().__init__(memory, tenant, *says, tools=tools)
        self.strategies: Any = Calling()

    async def asked(self, query: str = "How is the weather?", **agent: Any) -> Any:
        data = unpacked(dify_agents.MANIFEST, dify_agents.FILES, wheels=False)
        await self.desk.blobs.put(HOUSE, data)
        await self.desk.done("plugin.install", plugin="team", package=digest(data))
        await self.desk.done("plugin.enable", plugin="team")
        plugin = {"name": "team", "strategy": "calling"}
        return await super().asked(query, strategy="plugin", plugin=plugin, **agent)

    def frames(self, kind: str) -> list[dict[str, Any]]:
        return [frame for frame in self.memory.frames if frame["type"] == kind]


TWO = ("Let me look.", [call("weather", "a", city="Paris"), call("weather", "b", city="Rome")])


@pytest.mark.parametrize("together", [False, True])
async def test_calls_back_are_recorded_as_the_turn_of_an_agent(memory: Memory, tenant: str, together: bool) -> None:
    scene = Team(memory, tenant, TWO, "It rains in both.")
    scene.strategies = Calling(together=together)
    await scene.worker()(await scene.asked(approve="never"))
    state = await scene.state()
    assert (state["status"], state["answer"]) == ("answered", "It rains in both.")
    first, second = await scene.tool_calls()
    assert [json.loads(each.arguments)["city"] for each in (first, second)] == ["Paris", "Rome"]
    assert [each.status for each in (first, second)] == ["completed", "completed"]
    assert {each.cause_id for each in (first, second)} == {scene.message}
    asked, answered = scene.model_calls()
    [requested] = [event for event in await scene.desk.events("tool_call", first.id) if hasattr(event, "model_call")]
    assert (requested.model_call, requested.round) == (asked, 1)
    assert [message.content for message in scene.model.asked[1].messages[-2:]] == [first.text, second.text]
    assert [frame["text"] for frame in scene.frames("thought")] == ["Let me look."]
    assert [frame["name"] for frame in scene.frames("tool")] == ["weather", "weather"]
    assert {frame["call"] for frame in scene.frames("observation")} == {first.id, second.id}
    assert "".join(frame["text"] for frame in scene.frames("token")) == "It rains in both."
    last = await scene.last()
    assert (last["model_call"], last["usage"]["prompt_tokens"]) == (answered, 20)
    assert [part["id"] for part in last["parts"]] == [first.id, second.id]


async def test_a_strategy_is_given_the_turn(memory: Memory, tenant: str) -> None:
    scene = Team(memory, tenant, TWO, "It rains.", "It still does.")
    await scene.worker()(await scene.asked("Weather?", approve="never", rounds=7))
    await scene.worker()(await scene.ask("And now?"))
    first, second = scene.strategies.briefs
    assert (first.query, first.rounds, first.history, first.strategy["strategy"]) == ("Weather?", 7, [], "calling")
    assert [each.tool.name for each in first.tools] == ["weather"]
    assert second.query == "And now?"
    assert [message.role for message in second.history] == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "tool",
        "assistant",
    ]


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("at", range(1, 17))
async def test_a_kill_at_any_commit_repeats_no_side_effect(memory: Memory, tenant: str, at: int, stored: bool) -> None:
    scene = Team(memory, tenant, *ROUNDS, tools=[PAY, LOOK])
    await killed(scene, at, stored=stored)
    assert len(await completed(scene)) == len(ROUNDS)


async def test_a_strategy_that_goes_another_way_repeats_no_side_effect(memory: Memory, tenant: str) -> None:
    class Wavering(Calling):
        async def run(self, brief: Brief, backs: CallBacks) -> AsyncGenerator[str | Output]:
            self.briefs.append(brief)
            await backs.tool("box", "pay", {"city": f"Paris {len(self.briefs)}"})
            yield "Paid."

    scene = Team(memory, tenant, tools=[PAY])
    scene.strategies = Wavering()

    async def dies(invocation: Invocation) -> Result:
        raise Killed

    cause = await scene.asked(approve="never")
    box, scene.box.does = scene.box.does, dies
    with pytest.raises(Killed):
        await scene.worker()(cause)
    scene.box.does = box
    await scene.worker()(cause)
    assert (await scene.last())["code"] == "strategy_deviated"
    assert len(scene.box.called) == 1


async def test_a_call_that_needs_a_person_is_held_and_the_strategy_runs_again(memory: Memory, tenant: str) -> None:
    scene = Team(memory, tenant, ("", [call("pay", "a", city="Paris")]), "Paid.", tools=[tool("pay", destructive=True)])
    await scene.worker()(await scene.asked())
    [waiting] = await scene.tool_calls()
    assert ((await scene.state())["status"], waiting.status) == ("held", "held")
    assert scene.box.called == []
    await scene.decided("tool_call.release", waiting.id)
    assert [each.id for each in scene.box.called] == [waiting.id]
    assert (await scene.state())["answer"] == "Paid."
    assert len(scene.model.asked) == 2


async def test_all_calls_of_a_step_are_held_together(memory: Memory, tenant: str) -> None:
    scene = Team(memory, tenant, TWO, "Done.")
    scene.strategies = Calling(together=True)
    await scene.worker()(await scene.asked(approve="always"))
    first, second = await scene.tool_calls()
    assert [first.status, second.status] == ["held", "held"]
    await scene.decided("tool_call.release", first.id)
    await scene.decided("tool_call.release", second.id)
    assert (await scene.state())["answer"] == "Done."
    assert sorted(each.id for each in scene.box.called) == sorted([first.id, second.id])


async def test_limits_of_the_app_hold(memory: Memory, tenant: str) -> None:
    scene = Team(memory, tenant, TWO, "I must answer.")
    await scene.worker()(await scene.asked(approve="never", rounds=2))
    assert scene.model.asked[0].tools
    assert scene.model.asked[1].tool_choice == "none"
    assert (await scene.last())["finish_reason"] == "max_rounds"


async def test_after_the_last_round_a_strategy_gets_nothing_more(memory: Memory, tenant: str) -> None:
    said: list[str] = []

    class Obstinate(Calling):
        async def run(self, brief: Brief, backs: CallBacks) -> AsyncGenerator[str | Output]:
            asked = AskedModel(*named(brief.model), [ChatMessage("user", brief.query)], (), {}, None)
            for _ in range(3):
                try:
                    async for delta in backs.model(asked):
                        yield delta.text
                    await backs.tool("box", "weather", {"city": "Oslo"})
                except Refused as refused:
                    said.append(str(refused))

    scene = Team(memory, tenant, "One.", "Two.", "Three.")
    scene.strategies = Obstinate()
    await scene.worker()(await scene.asked(approve="never", rounds=2))
    assert len(scene.model.asked) == 2
    assert len(said) == 2
    assert all("max_rounds" in each for each in said)
    assert (await scene.state())["status"] == "answered"


async def test_the_error_of_a_model_is_that_of_the_message(memory: Memory, tenant: str) -> None:
    class Broken(Calling):
        async def run(self, brief: Brief, backs: CallBacks) -> AsyncGenerator[str | Output]:
            try:
                async for each in super().run(brief, backs):
                    yield each
            except ModelError as error:
                raise ModelError("plugin_failed", f"Exception: {error.reason}") from error

    scene = Team(memory, tenant, ModelError("unauthorized", "The key is not known."))
    scene.strategies = Broken()
    await scene.worker()(await scene.asked())
    assert (await scene.last())["code"] == "unauthorized"


async def test_a_tool_that_is_not_offered_is_a_failed_call(memory: Memory, tenant: str) -> None:
    scene = Team(memory, tenant, ("", [call("fly", "a", city="Rome")]), "I cannot.")
    await scene.worker()(await scene.asked(approve="never"))
    [made] = await scene.tool_calls()
    assert (made.status, made.code) == ("failed", "unknown_tool")
    assert (await scene.state())["answer"] == "I cannot."


async def test_files_of_a_strategy_are_parts_of_the_answer(memory: Memory, tenant: str) -> None:
    class Draws(Calling):
        async def run(self, brief: Brief, backs: CallBacks) -> AsyncGenerator[str | Output]:
            yield "A chart."
            yield Output("chart.png", "image/png", b"\x89PNG")

    scene = Team(memory, tenant)
    scene.strategies = Draws()
    await scene.worker()(await scene.asked())
    last = await scene.last()
    assert (last["answer"], last["model_call"]) == ("A chart.", "")
    [part] = last["parts"]
    assert (part["type"], part["name"], part["size"]) == ("image", "chart.png", 4)


async def test_prompts_quote_what_is_recorded(memory: Memory, tenant: str) -> None:
    long = "It rains. " * 100
    scene = Team(memory, tenant, TWO, "Rain.")

    async def rains(invocation: Invocation) -> Result:
        return Result(f"{invocation.arguments['city']}: {long}")

    scene.box.does = rains
    await scene.worker()(await scene.asked(approve="never"))
    _, second = scene.model_calls()
    [requested] = [e for e in await scene.desk.events("model_call", second) if isinstance(e, ModelCall.Requested)]
    assert long not in json.dumps(requested.request)
    calls = [each.id for each in await scene.tool_calls()]
    quoted = [message["pieces"][0]["quotes"] for message in requested.request["messages"][-2:]]
    assert quoted == [f"tool_call/{id}" for id in calls]


@pytest.mark.parametrize(
    ("plugin", "code", "field"),
    [
        ({"name": "other"}, "not_found", "name"),
        ({"name": "team", "strategy": "other"}, "not_found", "strategy"),
        ({"name": "team"}, "not_found", "strategy"),
        ({"name": "team", "strategy": "calling", "parameters": {"other": 1}}, "invalid", "parameters"),
    ],
)
async def test_an_app_names_a_strategy_that_is_declared(
    memory: Memory, tenant: str, plugin: dict[str, Any], code: str, field: str
) -> None:
    scene = Team(memory, tenant)
    await scene.asked()
    features = {"agent": {"strategy": "plugin", "plugin": plugin}}
    model = {"provider": "local", "name": "m"}
    refused = await scene.desk.fails("app.configure", app=scene.app, model=model, features=features)
    assert refused == (code, f"features.agent.plugin.{field}")


async def test_the_plugin_must_be_enabled_and_named_by_its_strategy_alone(memory: Memory, tenant: str) -> None:
    scene = Team(memory, tenant)
    await scene.asked()
    model, plugin = {"provider": "local", "name": "m"}, {"name": "team", "strategy": "calling"}
    for agent in ({"strategy": "plugin"}, {"strategy": "tools", "plugin": plugin}):
        code, _ = await scene.desk.fails("app.configure", app=scene.app, model=model, features={"agent": agent})
        assert code == "invalid"
    await scene.desk.done("plugin.disable", plugin="team")
    features = {"agent": {"strategy": "plugin", "plugin": plugin}}
    refused = await scene.desk.fails("app.configure", app=scene.app, model=model, features=features)
    assert refused == ("not_enabled", "features.agent.plugin.name")
