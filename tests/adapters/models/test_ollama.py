from __future__ import annotations

import json
from typing import Any

import pytest

from adapters.models.ollama import window_for
from handlers.models.prompt import estimate, likely
from handlers.ports.models import Attachment, ChatMessage, ModelError, ToolCall
from tests.adapters.models.dialects import Ollama, model_of
from tests.adapters.models.test_kinds import ASKED, SCHEMA, TIDE, answer, failure, request, said
from tests.chat_servers import Behaviour, Exchange

SERVER = Ollama()
DONE = SERVER.streams(SERVER.say("Yes."), SERVER.end())


@pytest.mark.parametrize(
    ("window", "asked"), [(1, 4096), (4096, 4096), (4097, 8192), (8192, 8192), (32_000, 32_768), (100_000, 131_072)]
)
async def test_the_window_of_the_app_is_asked_for_in_steps(window: int, asked: int) -> None:
    _, body = await answer(SERVER, DONE, request(context_window=window))
    assert body["options"] == {"num_ctx": asked, "num_predict": 16}
    assert (body["keep_alive"], body["truncate"], body["shift"]) == ("30m", False, False)


def test_without_a_window_the_prompt_and_the_answer_fit() -> None:
    long = request(ChatMessage("user", "x" * 20_000))
    assert window_for(request()) == 4096
    assert window_for(long) == 16_384 > estimate("x" * 20_000) + long.max_tokens


async def test_settings_are_options_and_some_are_fields() -> None:
    given = {
        "temperature": 0.1,
        "stop": ["x"],
        "think": "low",
        "keep_alive": 0,
        "options": {"num_gpu": 1},
        "seed": None,
    }
    _, body = await answer(SERVER, DONE, request(parameters=given, schema=SCHEMA))
    assert body["options"] == {"temperature": 0.1, "stop": ["x"], "num_gpu": 1, "num_ctx": 4096, "num_predict": 16}
    assert (body["think"], body["keep_alive"], body["format"]) == ("low", 0, SCHEMA)


async def test_calls_go_back_as_objects_with_the_reasoning_before_them() -> None:
    asks = SERVER.streams(SERVER.think("Mud."), SERVER.call(0, "", "tide", {"lock": "Mill"}), SERVER.end())
    deltas, _ = await answer(SERVER, asks, request(tools=[TIDE]))
    [call] = deltas[-1].tool_calls
    back = ChatMessage("assistant", "", tool_calls=[call], state=deltas[-1].state)
    result = ChatMessage("tool", "High.", tool_call_id=call.id)
    _, body = await answer(SERVER, DONE, request(*ASKED, back, result, tools=[TIDE]))
    assert body["messages"][2:] == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": "tide", "arguments": {"lock": "Mill"}}}],
            "thinking": "Mud.",
        },
        {"role": "tool", "content": "High.", "tool_name": "tide"},
    ]


async def test_several_calls_in_one_line_and_an_id_where_there_is_one() -> None:
    line = SERVER.line(
        tool_calls=[
            {"id": "call_x", "function": {"index": 0, "name": "tide", "arguments": {"lock": "Mill"}}},
            {"function": {"name": "tide", "arguments": {"lock": "Mill"}}},
            {"function": {"name": "now", "arguments": None}},
        ]
    )
    deltas, _ = await answer(SERVER, SERVER.streams(line, SERVER.end()), request(tools=[TIDE]))
    first, second, third = deltas[-1].tool_calls
    assert first == ToolCall("call_x", "tide", '{"lock": "Mill"}')
    assert second[1:] == first[1:]
    assert len({first.id, second.id, third.id}) == 3
    assert third[1:] == ("now", "{}")


async def test_arguments_that_were_not_json_go_back_as_an_object() -> None:
    messages = [ChatMessage("assistant", "", tool_calls=[ToolCall("a", "tide", "not JSON")])]
    _, body = await answer(SERVER, DONE, request(*ASKED, *messages, ChatMessage("tool", "No.", tool_call_id="a")))
    assert body["messages"][2]["tool_calls"][0]["function"]["arguments"] == {"invalid": "not JSON"}


@pytest.mark.parametrize("kind", ["audio", "document"])
async def test_other_files_than_images_are_refused(kind: Any) -> None:
    file = Attachment(kind, "application/x", b"x")
    async with model_of(SERVER, DONE) as (model, server):
        with pytest.raises(ModelError, match=kind) as caught:
            async for _ in model.stream(request(ChatMessage("user", "Hear.", [file]))):
                pass
        assert not server.requests
    assert caught.value.code == "unsupported"


async def test_a_model_that_is_not_pulled() -> None:
    async def refuses(exchange: Exchange) -> None:
        await exchange.answer(404, {"error": "model 'tiny' not found, try pulling it first"})

    _, error, requests = await failure(SERVER, refuses)
    assert (error.code, len(requests)) == ("not_found", 1)
    assert "try pulling it first" in error.reason


async def test_an_error_in_words_within_a_stream() -> None:
    line = json.dumps({"error": "llama runner process has terminated: out of memory"}) + "\n"
    arrived, error, _ = await failure(SERVER, SERVER.streams(SERVER.say("Half "), line))
    assert (arrived, error.code) == ("Half ", "broken_off")
    assert "out of memory" in error.reason


async def test_a_model_that_is_unloaded_before_it_answers() -> None:
    _, error, _ = await failure(SERVER, SERVER.streams(SERVER.line()))
    assert error.code == "broken_off"


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/", "/api", "/api/chat"])
async def test_endings_of_the_base_url(ending: str) -> None:
    async with model_of(SERVER, DONE, base=ending) as (model, server):
        assert said([delta async for delta in model.stream(request())]) == ("Yes.", "")
        assert server.requests[0].target == "/api/chat"


# --- prompts that are cut ------------------------------------------------------------------------------------

LONG = "The lock keeper writes down the level of the water each hour. " * 400
"""About 5,900 tokens."""


def counts(prompt: int | None, loaded: int | None = None, name: str = "tiny:latest") -> Behaviour:
    """A server that counts this number of tokens of a prompt, and says with which window it has loaded the model."""

    async def behaviour(exchange: Exchange) -> None:
        if exchange.target == "/api/ps":
            models = [{"model": name, "context_length": loaded}, {"model": "other", "context_length": 1}]
            await exchange.answer(200, {"models": models if loaded else []})
        else:
            await SERVER.streams(SERVER.say("Yes."), SERVER.end(prompt=prompt))(exchange)

    return behaviour


@pytest.mark.parametrize(
    ("prompt", "loaded", "cut"),
    [
        (5900, 8192, False),
        (8192, 8192, True),  # the prompt fills the window
        (4096, 4096, True),  # the model is trained with less
        (4000, 4096, True),  # older messages were left out
        (4000, None, False),  # a version that does not show the window: it is as asked for
        (8192, None, True),
        (12, 8192, False),  # a version that does not count what it has in its cache
        (12, None, False),
        (5000, 8192, False),  # the estimate is too high
        (None, 8192, False),  # all of the prompt is in the cache
    ],
)
async def test_a_prompt_that_was_cut_is_a_failure(prompt: int | None, loaded: int | None, cut: bool) -> None:
    assert 5500 < likely(LONG) < 6500
    asked = request(ChatMessage("user", LONG), context_window=8000)
    async with model_of(SERVER, counts(prompt, loaded)) as (model, _):
        if not cut:
            assert said([delta async for delta in model.stream(asked)]) == ("Yes.", "")
            return
        with pytest.raises(ModelError, match=f"{loaded or 8192}") as caught:
            async for _delta in model.stream(asked):
                pass
    assert caught.value.code == "truncated"


async def test_the_window_of_a_loaded_model_is_asked_for_once() -> None:
    asked = request(ChatMessage("user", LONG), context_window=8000)
    async with model_of(SERVER, counts(100, 8192)) as (model, server):
        for _ in range(3):
            assert [delta async for delta in model.stream(asked)]
        assert [exchange.target for exchange in server.requests].count("/api/ps") == 1


async def test_a_newer_server_refuses_a_prompt_that_does_not_fit() -> None:
    async def refuses(exchange: Exchange) -> None:
        assert exchange.body["truncate"] is False
        await exchange.answer(400, {"error": "the input length exceeds the context length"})

    _, error, requests = await failure(SERVER, refuses)
    assert (error.code, len(requests)) == ("context_length_exceeded", 1)


async def test_a_list_of_loaded_models_that_cannot_be_read_does_no_harm() -> None:
    async def behaviour(exchange: Exchange) -> None:
        if exchange.target == "/api/ps":
            await exchange.answer(200, "[7" if exchange.number == 2 else {"models": [7]})
        else:
            await SERVER.streams(SERVER.say("Yes."), SERVER.end(prompt=100))(exchange)

    asked = request(ChatMessage("user", LONG), context_window=8000)
    async with model_of(SERVER, behaviour) as (model, _):
        for _ in range(2):
            assert [delta async for delta in model.stream(asked)]
