"""Calls of tools as servers of the OpenAI protocol stream them, with what each of them does in its own way."""

from __future__ import annotations

import json
from typing import Any

import pytest

from adapters.models.kinds import KINDS
from adapters.models.tool_calls import LONGEST_HELD, CallPiece, Salvage, ToolCalls
from handlers.models.arguments import arguments_of
from handlers.ports.models import ChatMessage, ChatRequest, Delta, Tool, ToolCall
from tests.adapters.models.dialects import Completions, model_of, tried
from tests.adapters.models.test_kinds import ASKED, TIDE, answer, request, said
from tests.chat_servers import LOOPBACK, Exchange

SERVER = Completions()
STOP = SERVER.part("tool_calls") + "data: [DONE]\n\n"


def call(arguments: Any = None, name: str | None = None, **fields: Any) -> dict[str, Any]:
    """A piece of a call, without the fields that are not given."""
    given = {"name": name, "arguments": arguments}
    return {**fields, "function": {key: value for key, value in given.items() if value is not None}}


def asks(*pieces: dict[str, Any]) -> str:
    return "".join(SERVER.part(tool_calls=[piece]) for piece in pieces)


async def found(*pieces: dict[str, Any], tools: list[Tool] | None = None) -> list[tuple[str, str, str]]:
    """The calls of an answer with these pieces."""
    deltas, _ = await answer(SERVER, SERVER.streams(asks(*pieces), STOP), request(tools=tools or [TIDE]))
    return [(each.id, each.name, each.arguments) for each in deltas[-1].tool_calls]


MILL, SEA = '{"lock": "Mill"}', '{"lock": "Sea"}'


async def test_pieces_without_an_index() -> None:
    pieces = call("", "tide", id="a"), call(MILL[:5]), call(MILL[5:]), call(SEA, "tide", id="b")
    assert await found(*pieces) == [("a", "tide", MILL), ("b", "tide", SEA)]
    names = call("", "tide"), call(MILL), call("", "now"), call("{}")
    assert [(name, text) for _, name, text in await found(*names)] == [("tide", MILL), ("now", "{}")]


async def test_every_call_at_index_0() -> None:
    pieces = call(MILL, "tide", id="a", index=0), call(SEA, "tide", id="b", index=0)
    assert await found(*pieces) == [("a", "tide", MILL), ("b", "tide", SEA)]
    nameless = call(MILL, "tide", index=0), call(SEA, "tide", index=0)
    assert [text for *_, text in await found(*nameless)] == [MILL, SEA]


async def test_calls_without_an_id_get_one_of_nine_letters_and_digits() -> None:
    first, second = await found(call(MILL, "tide", index=0), call(SEA, "tide", index=1))
    assert first[0] != second[0]
    for id, *_ in (first, second):
        assert len(id) == 9
        assert id.isalnum()


async def test_an_index_that_comes_before_its_id() -> None:
    pieces = call("", "tide", index=0), call(MILL[:5], index=0, id="a"), call(MILL[5:], index=0)
    assert await found(*pieces) == [("a", "tide", MILL)]


async def test_an_index_that_changes_between_the_id_and_the_arguments() -> None:
    pieces = call("", "tide", index=1, id="a"), call(MILL[:5], index=0), call(MILL[5:], index=0)
    assert await found(*pieces) == [("a", "tide", MILL)]
    repeated = call("", "tide", index=1, id="a"), call(MILL[:5], index=0, id="a"), call(MILL[5:], index=0, id="a")
    assert await found(*repeated) == [("a", "tide", MILL)]


@pytest.mark.parametrize("empty", ["", None, "null", {}])
async def test_arguments_that_are_an_object_or_nothing(empty: object) -> None:
    assert await found(call({"lock": "Mill"}, "tide", id="a", index=0)) == [("a", "tide", MILL)]
    piece = {"index": 0, "id": "a", "function": {"name": "now", "arguments": empty}}
    assert await found(piece) == [("a", "now", "{}")]


@pytest.mark.parametrize("broken", ['{"lock": "Mi', MILL + MILL, '"lock": "Mill"}{'])
async def test_arguments_that_are_cut_doubled_or_out_of_order_come_as_they_are(broken: str) -> None:
    assert await found(call(broken, "tide", id="a", index=0)) == [("a", "tide", broken)]
    with pytest.raises(ValueError, match="not JSON"):
        arguments_of(broken)


async def test_an_answer_with_a_call_that_is_not_streamed() -> None:
    async def whole(exchange: Exchange) -> None:
        message = {"role": "assistant", "content": None, "tool_calls": [call(MILL, "tide", id="a", type="function")]}
        choices = [{"index": 0, "message": message, "finish_reason": "tool_calls"}]
        await exchange.answer(200, {"id": "c", "object": "chat.completion", "choices": choices})

    deltas, _ = await answer(SERVER, whole, request(tools=[TIDE]))
    assert deltas[-1].tool_calls == (ToolCall("a", "tide", MILL),)


async def test_the_old_form_of_a_call() -> None:
    body = SERVER.part(function_call={"name": "tide", "arguments": MILL[:5]})
    body += SERVER.part(function_call={"arguments": MILL[5:]}) + SERVER.part("function_call")
    deltas, _ = await answer(SERVER, SERVER.streams(body, "data: [DONE]\n\n"), request(tools=[TIDE]))
    assert [each[1:] for each in deltas[-1].tool_calls] == [("tide", MILL)]


@pytest.mark.parametrize("content", [None, "", [], [{"type": "text", "text": ""}]])
async def test_a_content_of_nothing_next_to_calls(content: object) -> None:
    body = SERVER.part(content=content, tool_calls=[call(MILL, "tide", id="a", index=0)])
    deltas, _ = await answer(SERVER, SERVER.streams(body, STOP), request(tools=[TIDE]))
    assert said(deltas) == ("", "")
    back = ChatMessage("assistant", "", tool_calls=deltas[-1].tool_calls, state=deltas[-1].state)
    done = SERVER.streams(SERVER.say("High."), SERVER.end())
    _, sent = await answer(SERVER, done, request(*ASKED, back, ChatMessage("tool", "High.", tool_call_id="a")))
    assert sent["messages"][2]["content"] == ("" if content == "" else None)


# --- what goes back ------------------------------------------------------------------------------------------


async def goes_back(deltas: list[Delta], text: str = "") -> dict[str, Any]:
    """The message with the calls of an answer as it is sent with their results."""
    calls = deltas[-1].tool_calls
    message = ChatMessage("assistant", text, tool_calls=calls, state=deltas[-1].state)
    results = [ChatMessage("tool", "High.", tool_call_id=each.id) for each in calls]
    done = SERVER.streams(SERVER.say("High."), SERVER.end())
    _, sent = await answer(SERVER, done, request(*ASKED, message, *results, tools=[TIDE]))
    found: dict[str, Any] = sent["messages"][2]
    return found


async def test_reasoning_goes_back_with_the_results_of_tools() -> None:
    """DeepSeek refuses the request without, and one with reasoning where no tool was asked for."""
    body = SERVER.think("Mud ") + SERVER.think("dries.") + asks(call(MILL, "tide", id="a", index=0))
    deltas, _ = await answer(SERVER, SERVER.streams(body, STOP), request(tools=[TIDE]))
    assert (await goes_back(deltas))["reasoning_content"] == "Mud dries."
    deltas, _ = await answer(SERVER, SERVER.streams(SERVER.think("Mud."), SERVER.say("It is."), SERVER.end()))
    assert deltas[-1].state is None


async def test_details_of_reasoning_go_back_as_they_came() -> None:
    details = [{"type": "reasoning.encrypted", "data": "c2Vj", "index": 0}]
    body = SERVER.part(reasoning_details=details) + asks(call(MILL, "tide", id="a", index=0))
    deltas, _ = await answer(SERVER, SERVER.streams(body, STOP), request(tools=[TIDE]))
    assert (await goes_back(deltas))["reasoning_details"] == details


async def test_a_signature_goes_back_with_its_call() -> None:
    """Gemini at its address of the OpenAI protocol."""
    extra = {"google": {"thought_signature": "c2ln"}}
    body = asks(call(MILL, "tide", id="a", index=0, extra_content=extra), call(SEA, "tide", id="b", index=1))
    deltas, _ = await answer(SERVER, SERVER.streams(body, STOP), request(tools=[TIDE]))
    sent = await goes_back(deltas, "Look:")
    assert sent["content"] == "Look:"
    assert [each.get("extra_content") for each in sent["tool_calls"]] == [extra, None]
    assert [each["id"] for each in sent["tool_calls"]] == ["a", "b"]


async def test_ids_are_made_short_for_a_server_that_wants_nine_characters() -> None:
    async def mistral(exchange: Exchange) -> None:
        ids = [each["id"] for message in exchange.body["messages"] for each in message.get("tool_calls", ())]
        if any(len(id) != 9 for id in ids):
            await exchange.fail(400, "Tool call id was call_0123456 but must be a-z, A-Z, 0-9, with a length of 9.")
        else:
            await exchange.finish()

    long = "call_0123456"
    messages = [*ASKED, ChatMessage("assistant", "", tool_calls=[ToolCall(long, "tide", MILL)])]
    back = request(*messages, ChatMessage("tool", "High.", tool_call_id=long), tools=[TIDE])
    async with model_of(SERVER, mistral) as (model, server):
        for _ in range(2):
            assert await tried(model, back)
        bodies = [exchange.body["messages"] for exchange in server.requests]
    assert [body[2]["tool_calls"][0]["id"] == long for body in bodies] == [True, False, False]
    assert all(body[2]["tool_calls"][0]["id"] == body[3]["tool_call_id"] for body in bodies)


async def test_state_that_cannot_be_recorded_is_cleansed() -> None:
    details = [{"type": "x", "data": "\ud800", "big": 2**70}]
    body = SERVER.part(reasoning_details=details) + asks(call(MILL, "tide", id="a", index=0))
    deltas, _ = await answer(SERVER, SERVER.streams(body, STOP), request(tools=[TIDE]))
    assert deltas[-1].state is not None
    [found] = deltas[-1].state["message"]["reasoning_details"]
    assert (found["data"], found["big"]) == ("?", float(2**70))


# --- calls in the answer's text ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "tide", "arguments": {"lock": "Mill"}}',
        '```json\n{"name": "tide", "arguments": {"lock": "Mill"}}\n```',
        '```\n{"name": "tide", "parameters": {"lock": "Mill"}}```',
        '<tool_call>\n{"name": "tide", "arguments": {"lock": "Mill"}}\n</tool_call>',
        ' {"type": "function", "function": {"name": "tide", "arguments": {"lock": "Mill"}}} ',
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_call_in_the_text_is_salvaged(text: str, size: int) -> None:
    salvage = Salvage([TIDE])
    assert "".join(salvage.feed(text[at : at + size]) for at in range(0, len(text), size)) == ""
    rest, [found] = salvage.end([])
    assert (rest, found.name, json.loads(found.arguments)) == ("", "tide", {"lock": "Mill"})


@pytest.mark.parametrize(
    "text",
    [
        "It is high.",
        '{"name": "other", "arguments": {"lock": "Mill"}}',
        '{"name": "tide", "arguments": {"gate": "Mill"}}',
        '{"name": "tide", "arguments": {}}',
        '{"name": "tide", "arguments": "Mill"}',
        '{"name": "tide", "arguments": {"lock": "Mill"}} and {"name": "tide", "arguments": {"lock": "Sea"}}',
        '{"name": "tide", "arguments": {"lock": "Mill", "lock": "Sea"}}',
        '```python\nprint("tide")\n```',
        '{"high": true}',
        "[1, 2]",
        "{" * 5000,
        "",
    ],
)
def test_any_other_text_is_the_answer(text: str) -> None:
    salvage = Salvage([TIDE])
    said = "".join(salvage.feed(sign) for sign in text)
    rest, calls = salvage.end([])
    assert (said + rest, calls) == (text, [])


def test_a_text_is_an_answer_without_tools_with_calls_of_the_server_and_beyond_a_size() -> None:
    text = '{"name": "tide", "arguments": {"lock": "Mill"}}'
    assert Salvage([]).feed(text) == text
    salvage = Salvage([TIDE])
    assert salvage.feed(text) == ""
    assert salvage.end([ToolCall("a", "tide", SEA)]) == (text, [])
    assert len(Salvage([TIDE]).feed("{" + " " * LONGEST_HELD)) == LONGEST_HELD + 1


async def test_a_call_after_reasoning_that_a_template_has_begun() -> None:
    for thought in ("{Mud} dries.\n", "Mud dries.\n"):
        pieces = [thought, "</think>\n", '{"name": "tide", ', '"arguments": {"lock": "Mill"}}']
        said = thinking = ""
        async with model_of(SERVER, SERVER.streams(*map(SERVER.say, pieces), SERVER.end())) as (model, _):
            async for delta in model.stream(request(tools=[TIDE])):
                if delta.unsaid:
                    thinking, said = thinking + said, ""
                said, thinking = said + delta.text, thinking + delta.reasoning
        assert (said, thinking) == ("", thought)
        assert [each.name for each in delta.tool_calls] == ["tide"]


def test_one_object_with_a_key_twice_is_refused_with_a_reason() -> None:
    with pytest.raises(ValueError, match="'city' twice"):
        arguments_of('{"city": "Paris", "city": "Rome"}')
    for text in ("[]", "7", "", "{" * 100_000, '{"a": NaN} x'):
        with pytest.raises(ValueError, match="arguments"):
            arguments_of(text)
    assert arguments_of('{"city": {"name": "Rome"}}') == {"city": {"name": "Rome"}}


def test_pieces_without_a_name_are_no_calls() -> None:
    calls = ToolCalls()
    calls.add(CallPiece(0, "", "", "{}"))
    assert calls.whole() == []


async def test_tools_that_a_server_drops_leave_an_answer(serving_url: str, serving_model: str) -> None:
    """As llama.cpp and `transformers serve` do where the template of the model has none."""
    model = KINDS["openai"](LOOPBACK, "default", serving_url)
    asked = ChatRequest(serving_model, list(ASKED), 8, tools=[TIDE], tool_choice="required")
    deltas = [delta async for delta in model.stream(asked)]
    await model.close()
    assert said(deltas)[0]
    assert deltas[-1].tool_calls == ()
