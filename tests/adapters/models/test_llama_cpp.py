"""The client of the OpenAI protocol before a real model: an answer means something, obeys a schema, and is cut."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import jsonschema
import pytest
from openai import AsyncOpenAI

from adapters.models.chat_server import ChatServer
from handlers.ports.models import Attachment, ChatMessage, ChatRequest, Delta, ModelError, Tool
from ops.servers.model import NAME, EmbeddedModel
from tests.small_model import QUESTION, client_of, request

LENGTH = {
    "type": "object",
    "properties": {"length": {"type": "integer"}, "unit": {"enum": ["metres", "feet"]}},
    "required": ["length", "unit"],
    "additionalProperties": False,
}
MEASURE = Tool("measure", "Measures a thing.", {"type": "object", "properties": {"thing": {"type": "string"}}})


@pytest.fixture
async def model(small_model: EmbeddedModel) -> AsyncIterator[ChatServer]:
    client = client_of(small_model)
    yield client
    await client.close()


@pytest.fixture
async def narrow(narrow_model: EmbeddedModel) -> AsyncIterator[ChatServer]:
    client = client_of(narrow_model)
    yield client
    await client.close()


async def answer(model: ChatServer, asked: ChatRequest) -> tuple[str, Delta]:
    """The text, and the last delta."""
    deltas = [delta async for delta in model.stream(asked)]
    return "".join(delta.text for delta in deltas), deltas[-1]


async def test_it_answers_from_the_text_token_by_token(model: ChatServer) -> None:
    deltas = [delta async for delta in model.stream(request())]
    assert "28 metres" in "".join(delta.text for delta in deltas)
    assert len(deltas) > 5
    last = deltas[-1]
    assert (last.finish_reason, last.model, last.tool_calls) == ("stop", NAME, ())
    assert last.response_id


async def test_usage_is_what_the_server_counts(model: ChatServer, small_model: EmbeddedModel) -> None:
    asked = request(max_tokens=5)
    _, last = await answer(model, asked)
    async with AsyncOpenAI(base_url=small_model.url, api_key=small_model.key) as client:
        whole = await client.chat.completions.create(
            model=NAME,
            messages=[{"role": message.role, "content": message.content} for message in asked.messages],  # type: ignore[misc,list-item]
            max_tokens=5,
            temperature=0,
        )
    assert last.usage
    assert whole.usage
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (whole.usage.prompt_tokens, 5)
    assert last.finish_reason == whole.choices[0].finish_reason == "length"
    assert last.usage.cached_tokens is not None


async def test_an_answer_keeps_to_a_schema(model: ChatServer) -> None:
    text, last = await answer(model, request(schema=LENGTH))
    jsonschema.validate(json.loads(text), LENGTH)
    assert json.loads(text) == {"length": 28, "unit": "metres"}
    assert last.finish_reason == "stop"


async def test_a_schema_that_is_none_is_refused(model: ChatServer) -> None:
    with pytest.raises(ModelError) as refused:
        await answer(model, request(schema={"type": "nonsense"}))
    assert refused.value.code == "bad_request"


async def test_a_schema_that_is_cut_off_ends_by_its_length(model: ChatServer) -> None:
    text, last = await answer(model, request(max_tokens=4, schema=LENGTH))
    assert last.finish_reason == "length"
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)


async def test_it_stops_before_a_stop_word(model: ChatServer) -> None:
    text, last = await answer(model, request(parameters={"stop": ["metres"]}))
    assert text.rstrip().endswith("28")
    assert last.finish_reason == "stop"


async def test_it_has_probabilities_of_its_tokens(model: ChatServer) -> None:
    """With these, a language model can be asked for `yes` or `no`, and its answer ranked."""
    text, last = await answer(model, request(parameters={"logprobs": True, "top_logprobs": 3}))
    assert last.logprobs
    assert "".join(token["token"] for token in last.logprobs) == text
    for token in last.logprobs:
        tops = [each["logprob"] for each in token["top_logprobs"]]
        assert tops == sorted(tops, reverse=True)
        assert len(tops) == 3
        assert token["logprob"] == tops[0] <= 0


async def test_an_image_is_refused_although_the_server_calls_it_a_fault_of_its_own(model: ChatServer) -> None:
    image = Attachment("image", "image/png", b"\x89PNG\r\n\x1a\n")
    asked = ChatRequest(NAME, [ChatMessage("user", "What is it?", [image])], 10)
    with pytest.raises(ModelError) as refused:
        await answer(model, asked)
    assert refused.value.code == "unsupported"


@pytest.mark.parametrize("choice", ["auto", "required", "measure"])
async def test_it_ignores_tools_also_a_forced_one(model: ChatServer, choice: str) -> None:
    """Its template has none, and the server drops them without a word: only a measurement tells."""
    text, last = await answer(model, request(tools=[MEASURE], tool_choice=choice))
    assert "28 metres" in text
    assert (last.tool_calls, last.finish_reason) == ((), "stop")


async def test_a_prompt_beyond_the_window_is_refused(narrow: ChatServer) -> None:
    with pytest.raises(ModelError) as refused:
        await answer(narrow, request(QUESTION * 100))
    assert refused.value.code == "context_length_exceeded"


async def test_an_answer_is_cut_at_the_end_of_the_window(narrow: ChatServer) -> None:
    _, last = await answer(narrow, request(QUESTION * 25, max_tokens=500, parameters={"ignore_eos": True}))
    assert last.usage
    assert last.usage.prompt_tokens + last.usage.completion_tokens == 256
    assert last.finish_reason == "length"


async def test_a_wrong_key_is_refused(small_model: EmbeddedModel) -> None:
    model = client_of(small_model, "another key")
    with pytest.raises(ModelError) as refused:
        await answer(model, request())
    assert refused.value.code == "unauthorized"
    await model.close()


async def test_requests_wait_for_their_turn(model: ChatServer) -> None:
    """The server has one slot: of two answers, none begins before the other has ended."""
    ends: list[tuple[float, float]] = []

    async def timed() -> str:
        text, began = "", 0.0
        async for delta in model.stream(request()):
            text, began = text + delta.text, began or asyncio.get_running_loop().time()
        ends.append((began, asyncio.get_running_loop().time()))
        return text

    answers = await asyncio.gather(*(timed() for _ in range(4)))
    assert len(set(answers)) == 1
    ends.sort()
    assert all(end <= begin + 0.05 for (_, end), (begin, _) in pairwise(ends))


async def test_where_one_server_is_killed_another_gives_the_same_answer(model: ChatServer, tmp_path: Path) -> None:
    async with EmbeddedModel(tmp_path) as server:
        other = client_of(server)
        first, _ = await answer(other, request())
        process = server.daemon.process()
        assert process
        process.kill()
        process.wait()
        with pytest.raises(ModelError) as gone:
            await answer(other, request())
        await other.close()
    assert gone.value.code == "unreachable"
    assert (await answer(model, request()))[0] == first
