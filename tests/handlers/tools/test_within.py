"""Calls that a call of a tool makes itself: each is recorded, with the outer one as its cause."""

from __future__ import annotations

import json

import pytest

from domain.models.model_call import ModelCall
from domain.tools.question import Question
from domain.tools.tool_call import ToolCall
from handlers.ports.models import ChatMessage
from handlers.ports.tools import AskedModel, Invocation, NeedsAnswers, Refused, Result
from tests.handlers.tools.scene import Scene, call, tool
from tests.handlers.tools.test_kills import Killed
from tests.memory import Memory

OUTER, INNER, DELETE = tool("outer", idempotent=False), tool("inner"), tool("delete", destructive=True)

WANTS = ("", [call("outer", city="Paris")])


def outer(scene: Scene, *inner: str) -> list[str]:
    """Have the tool `outer` call a model, and these tools; return what it is refused."""
    refused: list[str] = []

    async def does(invocation: Invocation) -> Result:
        if invocation.tool["name"] != "outer":
            return Result(f"{invocation.tool['name']} of {invocation.arguments['city']}")
        assert invocation.backs
        texts = []
        asked = AskedModel("local", "m", [ChatMessage("user", "Which city?")], (), {}, None)
        async for delta in invocation.backs.model(asked):
            texts.append(delta.text)
        for name in inner:
            try:
                texts.append((await invocation.backs.tool("box", name, {"city": "Rome"})).text)
            except Refused as error:
                refused.append(str(error))
        return Result(" ".join(filter(None, texts)))

    scene.box.does = does
    return refused


async def test_calls_within_are_recorded(memory: Memory, tenant: str) -> None:
    scene = Scene(memory, tenant, WANTS, "Rome!", "Done.", tools=[OUTER, INNER])
    outer(scene, "inner")
    await scene.worker()(await scene.asked(approve="never"))
    first, second = await scene.tool_calls()
    assert (first.text, second.text) == ("Rome! inner of Rome", "inner of Rome")
    [requested] = [each for each in await scene.desk.events("tool_call", second.id) if hasattr(each, "within")]
    assert (requested.within, requested.cause_id) == (first.id, scene.message)
    [commit, *_] = await scene.desk.commits("tool_call", second.id)
    assert commit.metadata.causation == first.id
    _, inner, _ = scene.model_calls()
    asked = [each for each in await scene.desk.events("model_call", inner) if isinstance(each, ModelCall.Requested)]
    assert asked[0].request["messages"][0]["pieces"][0]["tool_call"] == first.id
    assert [part["id"] for part in (await scene.last())["parts"]] == [first.id]


@pytest.mark.parametrize(
    ("inner", "reason"), [("delete", "waits for a person"), ("fly", "has no tool"), ("outer", "call each other")]
)
async def test_what_a_call_within_may_not_do(memory: Memory, tenant: str, inner: str, reason: str) -> None:
    deep = ["Rome!"] * 4
    scene = Scene(memory, tenant, WANTS, *deep, "Done.", tools=[OUTER, INNER, DELETE])
    refused = outer(scene, inner)
    await scene.worker()(
        await scene.asked(
            tools=[
                {"toolset": "box", "tools": ["outer", "inner"], "approve": "never"},
                {"toolset": "box", "tools": ["delete"]},
            ]
        )
    )
    assert reason in refused[0]
    assert all(each.ended for each in await scene.tool_calls())


async def test_a_model_without_a_name_is_the_apps(memory: Memory, tenant: str) -> None:
    scene = Scene(memory, tenant, WANTS, "Rome!", "Done.", tools=[OUTER])

    async def does(invocation: Invocation) -> Result:
        assert invocation.backs
        asked = AskedModel("", "", [ChatMessage("user", "Which city?")], (), {}, None)
        return Result("".join([delta.text async for delta in invocation.backs.model(asked)]))

    scene.box.does = does
    await scene.worker()(await scene.asked(approve="never"))
    assert [each.model for each in scene.model.asked] == ["m", "m", "m"]
    assert (await scene.tool_calls())[0].text == "Rome!"


async def test_calls_within_a_lost_call_are_lost(memory: Memory, tenant: str) -> None:
    scene = Scene(memory, tenant, WANTS, "Rome!", "Done.", tools=[OUTER, tool("inner", idempotent=False)])
    outer(scene, "inner")
    does = scene.box.does

    async def dies(invocation: Invocation) -> Result:
        if invocation.tool["name"] == "inner":
            raise Killed
        return await does(invocation)

    scene.box.does = dies
    cause = await scene.asked(approve="never")
    with pytest.raises(Killed):
        await scene.worker()(cause)
    scene.box.does = does
    await scene.worker()(cause)
    assert [(each.tool, each.code) for each in await scene.tool_calls()] == [("outer", "lost"), ("inner", "lost")]
    assert (await scene.state())["answer"] == "Done."
    assert json.loads((await scene.tool_calls())[1].arguments) == {"city": "Rome"}
    assert all(isinstance(each, ToolCall) for each in await scene.tool_calls())


async def test_a_call_within_that_asks_the_user_is_cancelled(memory: Memory, tenant: str) -> None:
    scene = Scene(memory, tenant, WANTS, "Rome!", "Done.", tools=[OUTER, INNER])
    refused = outer(scene, "inner")
    does = scene.box.does

    async def asks(invocation: Invocation) -> Result:
        if invocation.tool["name"] == "inner":
            raise NeedsAnswers([Question(name="q", message="Which?", form={"type": "object", "properties": {}})], "s1")
        return await does(invocation)

    scene.box.does = asks
    await scene.worker()(await scene.asked(approve="never"))
    assert "asks the user" in refused[0]
    assert [each.status for each in await scene.tool_calls()] == ["completed", "cancelled"]
    assert (await scene.state())["answer"] == "Done."
