from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from handlers.ports.models import Attachment, ChatMessage, ModelError, Tool, ToolCall
from tests.adapters.models.dialects import Anthropic, model_of
from tests.adapters.models.test_kinds import ASKED, PICTURE, SCHEMA, TIDE, answer, failure, request, said
from tests.chat_servers import Exchange

SERVER = Anthropic()
DONE = SERVER.streams(SERVER.say("Yes."), SERVER.end())
CHOICE = {"oneOf": [{"type": "object", "properties": {"a": {"type": "string"}}}, {"type": "object"}]}


async def test_instructions_are_apart_and_a_limit_is_always_there() -> None:
    messages = [ChatMessage("system", "Be brief."), ChatMessage("user", "One."), ChatMessage("system", "Be kind.")]
    _, body = await answer(SERVER, DONE, request(*messages, parameters={"stop": "x", "temperature": 0.5}))
    assert body == {
        "model": "tiny",
        "max_tokens": 16,
        "system": "Be brief.\n\nBe kind.",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "One."}]}],
        "stream": True,
        "stop_sequences": ["x"],
        "temperature": 0.5,
    }


async def test_messages_of_one_role_are_one_and_empty_ones_are_left_out() -> None:
    messages = [ChatMessage("user", "One."), ChatMessage("assistant", " "), ChatMessage("user", "Two.")]
    _, body = await answer(SERVER, DONE, request(*messages))
    assert body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]}
    ]


async def test_files_come_before_the_text() -> None:
    pages = Attachment("document", "application/pdf", b"%PDF", "weir.pdf")
    notes = Attachment("document", "text/markdown", "Über".encode())
    _, body = await answer(SERVER, DONE, request(ChatMessage("user", "Look.", [PICTURE, pages, notes])))
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PICTURE.data).decode()}
    pdf = {"type": "base64", "media_type": "application/pdf", "data": base64.b64encode(b"%PDF").decode()}
    assert body["messages"][0]["content"] == [
        {"type": "image", "source": source},
        {"type": "document", "source": pdf, "title": "weir.pdf"},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Über"}},
        {"type": "text", "text": "Look."},
    ]


async def test_audio_is_refused() -> None:
    sound = Attachment("audio", "audio/wav", b"RIFF")
    async with model_of(SERVER, DONE) as (model, server):
        with pytest.raises(ModelError, match="audio") as caught:
            async for _ in model.stream(request(ChatMessage("user", "Hear.", [sound]))):
                pass
        assert not server.requests
    assert caught.value.code == "unsupported"


async def test_all_results_of_tools_are_in_one_message() -> None:
    calls = [ToolCall("a", "tide", '{"lock": "Mill"}'), ToolCall("b", "tide", '{"lock": "Sea"}')]
    results = [ChatMessage("tool", f"{call.id}!", tool_call_id=call.id) for call in calls]
    _, body = await answer(SERVER, DONE, request(*ASKED, ChatMessage("assistant", "Look.", tool_calls=calls), *results))
    asked, given = body["messages"][1:]
    assert [block["type"] for block in asked["content"]] == ["text", "tool_use", "tool_use"]
    assert asked["content"][1] == {"type": "tool_use", "id": "a", "name": "tide", "input": {"lock": "Mill"}}
    assert given["role"] == "user"
    assert given["content"] == [
        {"type": "tool_result", "tool_use_id": id, "content": [{"type": "text", "text": f"{id}!"}]} for id in ("a", "b")
    ]


async def test_signed_reasoning_goes_back_before_the_calls_that_it_led_to() -> None:
    hidden = SERVER.block(1, {"type": "redacted_thinking", "data": "c2Vj"})
    empty = SERVER.block(5, {"type": "text", "text": ""})
    asks = SERVER.streams(
        SERVER.think("Mud."), hidden, SERVER.call(0, "a", "tide", {"lock": "Mill"}), empty, SERVER.end()
    )
    deltas, _ = await answer(SERVER, asks, request(tools=[TIDE]))
    assert said(deltas) == ("", "Mud.")
    back = ChatMessage("assistant", "", tool_calls=deltas[-1].tool_calls, state=deltas[-1].state)
    _, body = await answer(SERVER, DONE, request(*ASKED, back, ChatMessage("tool", "High.", tool_call_id="a")))
    assert body["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "Mud.", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "c2Vj"},
        {"type": "tool_use", "id": "a", "name": "tide", "input": {"lock": "Mill"}},
    ]
    deltas, _ = await answer(SERVER, SERVER.streams(SERVER.think("Mud."), SERVER.say("It is."), SERVER.end()))
    assert deltas[-1].state is None


@pytest.mark.parametrize("pieces", [['{"lock": "Mi'], ['{"lock": "Mill", ', '"lock": "Sea"}']])
async def test_arguments_that_are_cut_or_double_come_as_they_are(pieces: list[str]) -> None:
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    block = SERVER.block(0, {"type": "tool_use", "id": "a", "name": "tide", "input": {}}, *deltas)
    found, _ = await answer(SERVER, SERVER.streams(block, SERVER.end(calls=True)), request(tools=[TIDE]))
    assert found[-1].tool_calls == (ToolCall("a", "tide", "".join(pieces)),)


async def test_arguments_that_are_whole_at_the_start() -> None:
    block = SERVER.block(0, {"type": "tool_use", "id": "a", "name": "tide", "input": {"lock": "Mill"}})
    found, _ = await answer(SERVER, SERVER.streams(block, SERVER.end(calls=True)), request(tools=[TIDE]))
    assert found[-1].tool_calls == (ToolCall("a", "tide", '{"lock": "Mill"}'),)


async def test_a_choice_at_the_top_of_a_schema_is_wrapped() -> None:
    tool = Tool("pick", "Pick one.", CHOICE)
    value = Tool("value", "Looks wrapped, and is not.", {"type": "object", "properties": {"value": {"type": "object"}}})
    calls = [
        SERVER.call(0, "a", "pick", {"value": {"a": "b"}}),
        SERVER.call(1, "b", "value", {"value": {"c": "d"}}),
    ]
    asks = SERVER.streams(*calls, SERVER.end(calls=True))
    deltas, body = await answer(SERVER, asks, request(tools=[tool, value]))
    assert [each["input_schema"] for each in body["tools"]] == [
        {
            "type": "object",
            "properties": {"value": {"type": "object", "properties": {}, **CHOICE}},
            "required": ["value"],
        },
        {"type": "object", "properties": {"value": {"type": "object"}}},
    ]
    assert [json.loads(call.arguments) for call in deltas[-1].tool_calls] == [{"a": "b"}, {"value": {"c": "d"}}]
    back = ChatMessage("assistant", "", tool_calls=deltas[-1].tool_calls)
    _, body = await answer(SERVER, DONE, request(*ASKED, back, tools=[tool, value]))
    assert [block["input"] for block in body["messages"][1]["content"]] == [
        {"value": {"a": "b"}},
        {"value": {"c": "d"}},
    ]


@pytest.mark.parametrize(
    ("fields", "choice"),
    [
        ({}, {"type": "tool", "name": "structured_answer"}),
        ({"tools": [TIDE]}, {"type": "any"}),
        ({"tools": [TIDE], "tool_choice": "none"}, {"type": "tool", "name": "structured_answer"}),
        ({"parameters": {"thinking": {"type": "enabled", "budget_tokens": 9}}}, {"type": "auto"}),
        ({"parameters": {"thinking": {"type": "disabled"}}}, {"type": "tool", "name": "structured_answer"}),
    ],
)
async def test_a_schema_is_a_tool_that_must_be_called(fields: dict[str, Any], choice: dict[str, Any]) -> None:
    """A model that thinks cannot be forced to."""
    asks = SERVER.streams(SERVER.call(0, "a", "structured_answer", {"open": True}), SERVER.end(calls=True))
    deltas, body = await answer(SERVER, asks, request(schema=SCHEMA, **fields))
    assert body["tool_choice"] == choice
    assert body["tools"][-1]["input_schema"] == SCHEMA
    assert json.loads(said(deltas)[0]) == {"open": True}
    assert (deltas[-1].tool_calls, deltas[-1].state) == ((), None)


async def test_an_answer_to_a_wrapped_schema_is_unwrapped() -> None:
    schema = {"type": "array", "items": {"type": "string"}}
    asks = SERVER.streams(SERVER.call(0, "a", "structured_answer", {"value": ["x"]}), SERVER.end(calls=True))
    deltas, _ = await answer(SERVER, asks, request(schema=schema))
    assert said(deltas)[0] == '["x"]'


async def test_the_cache_is_counted_as_part_of_the_prompt() -> None:
    used = {"input_tokens": 20, "cache_read_input_tokens": 1000, "cache_creation_input_tokens": 200}
    start = SERVER.typed("message_start", message={"id": "a1", "model": "m1", "usage": {**used, "output_tokens": 1}})

    async def behaviour(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.send(start + SERVER.say("Yes.") + SERVER.end())
        await exchange.end()

    deltas, _ = await answer(SERVER, behaviour)
    usage = deltas[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (1220, 5)
    assert (usage.cached_tokens, usage.cache_write_tokens) == (1000, 200)
    assert usage.raw == {**used, "output_tokens": 5}


async def test_an_answer_that_is_not_streamed() -> None:
    async def whole(exchange: Exchange) -> None:
        content = [
            {"type": "thinking", "thinking": "Mud.", "signature": "c2ln"},
            {"type": "text", "text": "Look."},
            {"type": "tool_use", "id": "a", "name": "tide", "input": {"lock": "Mill"}},
        ]
        used = {"input_tokens": 20, "output_tokens": 5}
        body = {"type": "message", "id": "a1", "model": "m1", "content": content, "stop_reason": "tool_use"}
        await exchange.answer(200, {**body, "usage": used})

    deltas, _ = await answer(SERVER, whole, request(tools=[TIDE]))
    assert said(deltas) == ("Look.", "Mud.")
    assert deltas[-1].tool_calls == (ToolCall("a", "tide", '{"lock": "Mill"}'),)
    assert (deltas[-1].finish_reason, deltas[-1].model) == ("tool_use", "m1")
    assert deltas[-1].state == {"content": [{"type": "thinking", "thinking": "Mud.", "signature": "c2ln"}, *CALLED]}


CALLED = [
    {"type": "text", "text": "Look."},
    {"type": "tool_use", "id": "a", "name": "tide", "input": {"lock": "Mill"}},
]


async def test_unknown_events_and_blocks_are_passed_over() -> None:
    pieces = [
        SERVER.typed("something_new", value=7),
        SERVER.block(0, {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}),
        SERVER.block(1, {"type": "text", "text": ""}, {"type": "citations_delta", "citation": {}}),
        SERVER.block(2, {"type": "text", "text": "Yes."}),
        SERVER.end(),
    ]
    deltas, _ = await answer(SERVER, SERVER.streams(*pieces))
    assert said(deltas) == ("Yes.", "")


@pytest.mark.parametrize(
    ("status", "type", "message", "code"),
    [
        (
            400,
            "invalid_request_error",
            "Your credit balance is too low to access the Anthropic API.",
            "payment_required",
        ),
        (413, "request_too_large", "Request exceeds the maximum size.", "context_length_exceeded"),
        (529, "overloaded_error", "Overloaded", "overloaded"),
    ],
)
async def test_errors_of_its_own(status: int, type: str, message: str, code: str) -> None:
    async def refuses(exchange: Exchange) -> None:
        await exchange.answer(status, {"type": "error", "error": {"type": type, "message": message}})

    _, error, _ = await failure(SERVER, refuses)
    assert error.code == code


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/messages"])
async def test_endings_of_the_base_url(ending: str) -> None:
    async with model_of(SERVER, DONE, base=ending) as (model, server):
        assert said([delta async for delta in model.stream(request())]) == ("Yes.", "")
        assert server.requests[0].target == "/v1/messages"
