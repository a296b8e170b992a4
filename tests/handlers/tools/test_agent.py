"""The turn of an agent: its rounds, its strategies, what ends it, and what is recorded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from handlers.chat.evidence import evidence
from handlers.models.recorded import read
from handlers.ports.index import Entry, Hit
from handlers.ports.models import ChatRequest, ModelError
from handlers.ports.tools import Invocation, Result, ToolError
from handlers.tools.strategies import STRATEGIES
from tests.handlers.tools.scene import Scene, call, tool
from tests.memory import Memory


def below(request: ChatRequest) -> list[tuple[str, str]]:
    """The messages below the instructions."""
    return [(message.role, message.content) for message in request.messages[1:]]


async def test_a_call_is_made_and_the_model_answers_from_its_result(memory: Memory, tenant: str) -> None:
    scene = Scene(memory, tenant, ("Let me look.", [call("weather", city="Paris")]), "It rains in Paris.")
    await scene.worker()(await scene.asked())
    state = await scene.state()
    assert (state["status"], state["answer"]) == ("answered", "It rains in Paris.")
    [made] = await scene.tool_calls()
    assert (made.status, made.toolset, made.tool, made.text) == (
        "completed", "box", "weather", 'weather: {"city": "Paris"}'
    )  # fmt: skip
    first, second = scene.model.asked
    assert [each.name for each in first.tools] == ["weather"]
    assert below(second)[-1] == ("tool", 'weather: {"city": "Paris"}')
    assert second.messages[-2].content == "Let me look."
    assert second.messages[-2].tool_calls[0].id == second.messages[-1].tool_call_id
    assert scene.frames() == ["retrieved", "thought", "tool", "observation", "token", "answered"]
    assert memory.frames[-1]["usage"] == {"prompt_tokens": 20, "completion_tokens": 10, "estimated": False}


async def test_a_call_is_recorded_before_it_is_made(memory: Memory, tenant: str) -> None:
    scene = Scene(memory, tenant, ("", [call("weather", city="Paris")]), "It rains.")
    seen: list[str] = []

    async def does(invocation: Invocation) -> Result:
        seen.extend(await scene.desk.types("tool_call", invocation.id))
        return Result("Rain.")

    scene.box.does = does
    await scene.worker()(await scene.asked())
    assert seen == ["tool_call.requested.v1"]
    [made] = await scene.tool_calls()
    assert await scene.desk.types("tool_call", made.id) == ["tool_call.requested.v1", "tool_call.completed.v1"]


async def test_two_calls_of_one_tool_in_one_step_are_both_whole(memory: Memory, tenant: str) -> None:
    """Where results are kept by the name of the tool, one of them is lost."""
    calls = [call("weather", "a", city="Paris"), call("weather", "b", city="Rome")]
    scene = Scene(memory, tenant, ("", calls), "It rains in both.")
    await scene.worker()(await scene.asked())
    assert [each.text for each in await scene.tool_calls()] == [
        'weather: {"city": "Paris"}', 'weather: {"city": "Rome"}'
    ]  # fmt: skip
    results = [(each.tool_call_id, each.content) for each in scene.model.asked[1].messages if each.role == "tool"]
    assert results == [("a", 'weather: {"city": "Paris"}'), ("b", 'weather: {"city": "Rome"}')]
    parts = (await scene.last())["parts"]
    assert [part["type"] for part in parts] == ["tool_call", "tool_call"]
    assert len({part["id"] for part in parts}) == 2


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (call("snow", city="Paris"), "unknown_tool"),
        (call("weather", town="Paris"), "invalid_arguments"),
        (call("weather", city=7), "invalid_arguments"),
        (call("weather")._replace(arguments='{"city": "Paris", "city": "Rome"}'), "invalid_arguments"),
        (call("weather")._replace(arguments='{"city": "Par'), "invalid_arguments"),
        (call("weather")._replace(arguments="[1]"), "invalid_arguments"),
    ],
)
async def test_an_invalid_call_is_recorded_and_not_made(memory: Memory, tenant: str, asked: Any, code: str) -> None:
    scene = Scene(memory, tenant, ("", [asked]), "I do not know.")
    await scene.worker()(await scene.asked())
    [made] = await scene.tool_calls()
    assert (made.status, made.code, made.arguments) == ("failed", code, asked.arguments)
    assert scene.box.called == []
    assert "failed" in below(scene.model.asked[1])[-1][1]
    assert (await scene.state())["answer"] == "I do not know."


async def test_a_tool_that_fails_is_a_result_for_the_model(memory: Memory, tenant: str) -> None:
    scene = Scene(memory, tenant, ("", [call("weather", city="Paris")]), "It is not known.")

    async def does(invocation: Invocation) -> Result:
        raise ToolError("timeout", "It did not answer within 30 s.")

    scene.box.does = does
    await scene.worker()(await scene.asked())
    [made] = await scene.tool_calls()
    assert (made.status, made.code) == ("failed", "timeout")
    assert below(scene.model.asked[1])[-1] == ("tool", "The call was failed: It did not answer within 30 s.")
    assert (await scene.state())["status"] == "answered"


async def test_a_fault_of_ours_in_a_tool_tells_the_model_no_secret(memory: Memory, tenant: str) -> None:
    scene = Scene(memory, tenant, ("", [call("weather", city="Paris")]), "It is not known.")

    async def does(invocation: Invocation) -> Result:
        raise KeyError("sk-secret")

    scene.box.does = does
    await scene.worker()(await scene.asked())
    [made] = await scene.tool_calls()
    assert (made.code, made.reason) == ("internal_error", "KeyError")


async def test_the_last_round_is_without_tools(memory: Memory, tenant: str) -> None:
    more = ("", [call("weather", city="Paris")])
    other = ("", [call("weather", city="Rome")])
    scene = Scene(memory, tenant, more, other, "Enough.")
    await scene.worker()(await scene.asked(rounds=3))
    assert [request.tool_choice for request in scene.model.asked] == ["auto", "auto", "none"]
    assert (await scene.last())["finish_reason"] == "max_rounds"
    assert (await scene.state())["answer"] == "Enough."


async def test_a_model_that_calls_in_the_last_round_fails_with_a_code_and_shows_no_tags(
    memory: Memory, tenant: str
) -> None:
    scene = Scene(memory, tenant, '<tool_call>{"name": "weather"}</tool_call>')
    await scene.worker()(await scene.asked(rounds=1))
    state = await scene.state()
    assert (state["status"], (await scene.last())["code"]) == ("failed", "invalid_answer")
    assert "token" not in scene.frames()


async def test_the_same_call_three_times_is_the_last(memory: Memory, tenant: str) -> None:
    same = ("", [call("weather", city="Paris")])
    scene = Scene(memory, tenant, same, same, same, "I give up.")
    await scene.worker()(await scene.asked())
    assert (await scene.last())["finish_reason"] == "repetition"
    assert len(await scene.tool_calls()) == 3


async def test_tokens_end_a_turn(memory: Memory, tenant: str) -> None:
    scene = Scene(memory, tenant, ("", [call("weather", city="Paris")]), "Rain.")
    await scene.worker()(await scene.asked(tokens=15))
    assert (await scene.last())["finish_reason"] == "max_tokens"


async def test_the_cost_ends_a_turn(memory: Memory, tenant: str) -> None:
    scene = Scene(memory, tenant, ("", [call("weather", city="Paris")]), "Rain.")
    cause = await scene.asked(cost=0.000_001)
    scene.prices = (100.0, 100.0)
    await scene.worker()(cause)
    assert (await scene.last())["finish_reason"] == "max_cost"


async def test_a_long_result_is_cut_to_the_window_and_ends_the_turn(memory: Memory, tenant: str) -> None:
    scene = Scene(memory, tenant, ("", [call("weather", city="Paris")]), "Rain.")

    async def does(invocation: Invocation) -> Result:
        return Result("rain " * 10_000)

    scene.box.does = does
    await scene.worker()(await scene.asked())
    [made] = await scene.tool_calls()
    assert len(made.text) == 50_000
    sent = below(scene.model.asked[1])[-1][1]
    assert sent.endswith("[The rest does not fit the context window.]")
    assert len(sent) < 16_000
    assert (await scene.last())["finish_reason"] == "context_full"
    requested = (await scene.desk.events("model_call", scene.model_calls()[1]))[0]
    messages = requested.request["messages"]  # type: ignore[attr-defined]
    assert f"tool_call/{made.id}" in json.dumps(messages)
    assert len(json.dumps(messages)) < 4000
    whole = await read(scene.desk.repository, tenant, messages)
    assert "".join(piece["text"] for piece in whole[-1]["pieces"]) == sent


async def test_a_result_is_quoted_not_repeated(memory: Memory, tenant: str) -> None:
    calls = [("", [call("weather", city=city)]) for city in ("Paris", "Rome", "Oslo")]
    scene = Scene(memory, tenant, *calls, "Rain.")

    async def does(invocation: Invocation) -> Result:
        return Result(f"In {invocation.arguments['city']} " + "it rains " * 50)

    scene.box.does = does
    await scene.worker()(await scene.asked())
    requested = (await scene.desk.events("model_call", scene.model_calls()[-1]))[0]
    messages = requested.request["messages"]  # type: ignore[attr-defined]
    assert "it rains it rains" not in json.dumps(messages)
    whole = await read(scene.desk.repository, tenant, messages)
    assert ["Paris" in each["pieces"][0]["text"] for each in whole if each["role"] == "tool"] == [True, False, False]


SCHEMA = {"tools": False, "schema": True}


async def test_a_model_without_tools_answers_by_a_schema(memory: Memory, tenant: str) -> None:
    step = json.dumps({"step": {"tool": "weather", "arguments": {"city": "Paris"}}})
    scene = Scene(memory, tenant, step, '{"step": {"answer": "It rains."}}')
    cause = await scene.asked()
    await scene.measured(SCHEMA)
    await scene.worker()(cause)
    first, second = scene.model.asked
    assert first.tools == ()
    assert first.schema is not None
    tools = [each["properties"].get("tool") for each in first.schema["properties"]["step"]["anyOf"]]
    assert tools == [{"const": "weather"}, None]
    assert below(second)[1:] == [("assistant", step), ("user", 'Result of weather:\nweather: {"city": "Paris"}')]
    assert (await scene.state())["answer"] == "It rains."


async def test_a_model_with_neither_answers_by_one_action_a_round(memory: Memory, tenant: str) -> None:
    action = 'Thought: I look.\nAction: {"action": "weather", "action_input": "Paris"}'
    scene = Scene(memory, tenant, action, 'Action: {"action": "Final Answer", "action_input": "It rains."}')
    cause = await scene.asked()
    await scene.measured({"tools": False, "schema": False})
    await scene.worker()(cause)
    assert scene.model.asked[0].parameters["stop"] == ["Observation:"]
    assert [each.arguments for each in scene.box.called] == [{"city": "Paris"}]
    assert (await scene.state())["answer"] == "It rains."


async def test_a_strategy_that_is_broken_twice_is_left(memory: Memory, tenant: str) -> None:
    tags = '<tool_call>{"name": "weather"}</tool_call>'
    step = json.dumps({"step": {"tool": "weather", "arguments": {"city": "Paris"}}})
    scene = Scene(memory, tenant, tags, tags, step, '{"step": {"answer": "It rains."}}')
    await scene.worker()(await scene.asked())
    [changed] = [
        event
        for event in await scene.desk.events("conversation", scene.conversation)
        if event.TOPIC == "message.strategy_changed.v1"
    ]
    assert (changed.before, changed.strategy, changed.round) == ("tools", "schema", 3)  # type: ignore[attr-defined]
    assert (await scene.state())["answer"] == "It rains."


async def test_a_server_that_refuses_tools_is_asked_by_a_schema(memory: Memory, tenant: str) -> None:
    refused = ModelError("unsupported", "It takes no tools.")
    scene = Scene(memory, tenant, refused, '{"step": {"answer": "Hello."}}')
    await scene.worker()(await scene.asked())
    assert (await scene.state())["answer"] == "Hello."


async def test_a_follow_up_is_given_the_calls_of_earlier_turns(memory: Memory, tenant: str) -> None:
    scene = Scene(memory, tenant, ("", [call("weather", city="Paris")]), "It rains.", "As I said.")
    await scene.worker()(await scene.asked())
    await scene.worker()(await scene.ask("And now?"))
    roles = [message.role for message in scene.model.asked[-1].messages]
    assert roles == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert scene.model.asked[-1].messages[3].content == 'weather: {"city": "Paris"}'


async def test_a_file_that_a_tool_makes_is_stored_and_part_of_the_answer(memory: Memory, tenant: str) -> None:
    from handlers.ports.tools import Output

    scene = Scene(memory, tenant, ("", [call("weather", city="Paris")]), "See the map.")

    async def does(invocation: Invocation) -> Result:
        return Result(files=[Output("map.png", "image/png", b"\x89PNG")], parts=[{"type": "json", "value": {"a": 1}}])

    scene.box.does = does
    await scene.worker()(await scene.asked())
    [made] = await scene.tool_calls()
    image = next(part for part in made.parts if part["type"] == "image")
    events = await scene.desk.commits("tool_call", made.id)
    assert await scene.desk.files.get(tenant, events[0].metadata.person, "file", image["digest"]) == b"\x89PNG"
    assert image in (await scene.last())["parts"]
    assert "map.png was made" in below(scene.model.asked[1])[-1][1]


async def test_names_of_tools_are_unique_and_fit(memory: Memory, tenant: str) -> None:
    names = ["get weather!", "get_weather_", "x" * 100, "x" * 99]
    scene = Scene(memory, tenant, "Hello.", tools=[tool(name) for name in names])
    await scene.worker()(await scene.asked())
    offered = [each.name for each in scene.model.asked[0].tools]
    assert len(set(offered)) == 4
    assert all(len(name) <= 64 and name.replace("_", "").replace("-", "").isalnum() for name in offered)


async def test_passages_of_tools_are_numbered_after_those_of_the_question_and_cited(
    memory: Memory, tenant: str
) -> None:
    def hit(name: str, text: str) -> Hit:
        return Hit("d", name, Entry(name, 0, text), 1.0)

    searches = [("", [call("weather", city="a"), call("weather", city="b")]), ("", [call("weather", city="c")])]
    scene = Scene(memory, tenant, *searches, "At six [3].")

    async def does(invocation: Invocation) -> Result:
        city = invocation.arguments["city"]
        return Result(passages=[hit(city, f"The lock {city} opens at six.")], names={city: f"{city}.md"})

    scene.box.does = does
    scene.cites.evidence = _named  # type: ignore[method-assign]
    await scene.worker()(await scene.asked())
    texts = [each.content for each in scene.model.asked[-1].messages if each.role == "tool"]
    assert [text.splitlines()[0] for text in texts] == ["[1] a.md", "[2] b.md", "[3] c.md"]
    [cited] = (await scene.last())["citations"]
    assert (cited["document"], cited["document_name"], cited["content"]) == ("c", "c.md", "The lock c opens at six.")


async def _named(tenant: str, answer: str, passages: list[str]) -> list[tuple[int, str]]:
    return evidence(answer, passages)


@pytest.mark.parametrize(
    "answer",
    [
        "Write it so:\n```c\nint main() { return 0; }\n```",
        "```\nlet x = {}\n```",
        "Thought: the map is {}.",
        "```json\n[1]```",
    ],
)
def test_an_answer_with_code_is_no_action(answer: str) -> None:
    read = STRATEGIES["react"].read(answer, ())
    assert (read.said, read.calls, read.fault) == (answer.removeprefix("Thought: "), (), "")


def test_a_fenced_object_is_an_action() -> None:
    read = STRATEGIES["react"].read('I look.\n```json\n{"action": "weather", "action_input": "Paris"}\n```', ())
    assert [(each.name, each.arguments) for each in read.calls] == [("weather", "Paris")]
