from __future__ import annotations

import base64
from typing import Any

import pytest

from adapters.models.openai_request import is_strict
from handlers.ports.models import Attachment, ChatMessage
from tests.adapters.models.dialects import Completions, event, model_of
from tests.adapters.models.test_kinds import ASKED, PICTURE, SCHEMA, answer, failure, request
from tests.chat_servers import Behaviour, Exchange

SERVER = Completions()
DONE = SERVER.streams(SERVER.say("Yes."), SERVER.end())
SOUND = Attachment("audio", "audio/mpeg", b"ID3 sound")
PAGES = Attachment("document", "application/pdf", b"%PDF-1.7", "weir.pdf")


def data(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


async def test_a_message_without_files_goes_as_text_and_one_with_files_as_a_list() -> None:
    picture = PICTURE._replace(detail="low")
    messages = [ChatMessage("user", "One."), ChatMessage("user", "Look.", [picture, SOUND, PAGES])]
    _, body = await answer(SERVER, DONE, request(*messages))
    assert body["messages"] == [
        {"role": "user", "content": "One."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look."},
                {"type": "image_url", "image_url": {"url": data("image/png", PICTURE.data), "detail": "low"}},
                {
                    "type": "input_audio",
                    "input_audio": {"data": base64.b64encode(SOUND.data).decode(), "format": "mp3"},
                },
                {"type": "file", "file": {"filename": "weir.pdf", "file_data": data("application/pdf", PAGES.data)}},
            ],
        },
    ]
    _, body = await answer(SERVER, DONE, request(ChatMessage("user", "", [PICTURE])))
    assert [part["type"] for part in body["messages"][0]["content"]] == ["image_url"]


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        ({"type": "object", "properties": {}, "additionalProperties": False}, True),
        ({**SCHEMA, "additionalProperties": False}, True),
        (SCHEMA, False),
        ({"type": "object", "properties": {"a": {}}, "additionalProperties": False}, False),
        ({**SCHEMA, "additionalProperties": False, "properties": {"open": SCHEMA}}, False),
        ({"anyOf": [{"type": "string"}, SCHEMA]}, False),
        ({"enum": [{"type": "object"}]}, True),
        ({"type": "string"}, True),
    ],
)
async def test_a_schema_is_strict_where_strict_servers_take_it(schema: dict[str, Any], strict: bool) -> None:
    assert is_strict(schema) == strict
    _, body = await answer(SERVER, DONE, request(schema=schema))
    wanted = {"name": "answer", "schema": schema, **({"strict": True} if strict else {})}
    assert body["response_format"] == {"type": "json_schema", "json_schema": wanted}


async def test_log_probabilities_are_recorded_and_no_text_is_made_of_them() -> None:
    top = [{"token": "Yes", "logprob": -0.1, "bytes": [89]}, {"token": "\ud800", "logprob": -3}, "odd"]
    tokens = [{"token": "```", "logprob": -0.5, "bytes": None}, {"token": "Yes", "logprob": -0.1, "top_logprobs": top}]
    said = {"choices": [{"delta": {"content": "Yes."}, "logprobs": {"content": tokens}}]}
    odd = {"choices": [{"delta": {}, "logprobs": {"content": [7, {"token": "x"}, {"token": "y", "logprob": True}]}}]}
    deltas, body = await answer(
        SERVER, SERVER.streams(event(said), event(odd), SERVER.end()), request(parameters={"logprobs": True})
    )
    assert body["logprobs"] is True
    assert "".join(delta.text for delta in deltas) == "Yes."
    assert deltas[-1].logprobs == [
        {"token": "```", "logprob": -0.5},
        {
            "token": "Yes",
            "logprob": -0.1,
            "top_logprobs": [{"token": "Yes", "logprob": -0.1}, {"token": "?", "logprob": -3}],
        },
    ]


YES = {"token": "Yes", "logprob": -0.1}


def refuses(status: int, message: str, code: str | None = None) -> Behaviour:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.fail(status, message, code)

    return behaviour


UNSUPPORTED = {
    "OpenAI": (400, "Invalid content type. image_url is only supported by certain models."),
    "vLLM": (400, "tiny is not a multimodal model"),
    "vLLM, tools": (400, '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'),
    "llama.cpp": (
        500,
        "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj",
    ),
    "llama.cpp, tools": (500, "tools param requires --jinja flag"),
    "Ollama": (400, "registry.ollama.ai/library/tiny:latest does not support tools"),
    "Ollama, thinking": (400, '"tiny" does not support thinking'),
    "OpenRouter": (404, "No endpoints found that support image input"),
    "DeepSeek": (400, "This response_format type is unavailable now"),
    "Groq": (400, "This model does not support response format `json_schema`."),
}


@pytest.mark.parametrize("server", UNSUPPORTED)
async def test_an_ability_that_a_model_lacks_has_its_own_code(server: str) -> None:
    status, message = UNSUPPORTED[server]
    _, error, requests = await failure(SERVER, refuses(status, message))
    assert (error.code, len(requests)) == ("unsupported", 1)
    assert message in error.reason


@pytest.mark.parametrize("code", ["content_filter", "content_policy_violation"])
async def test_a_prompt_that_a_filter_refuses(code: str) -> None:
    """Azure refuses it with a status."""
    _, error, requests = await failure(SERVER, refuses(400, "The prompt triggered the content policy.", code))
    assert (error.code, len(requests)) == ("content_filter", 1)


@pytest.mark.parametrize(
    ("base", "target", "header"),
    [
        ("/openai/deployments/gpt", "/openai/deployments/gpt/chat/completions", "api-key"),
        ("/openai/deployments", "/openai/deployments/tiny/chat/completions", "api-key"),
        (
            "/openai/deployments/?api-version=2024-10-21",
            "/openai/deployments/tiny/chat/completions?api-version=2024-10-21",
            "api-key",
        ),
        ("/openai/v1?api-version=preview", "/openai/v1/chat/completions?api-version=preview", "api-key"),
        ("/openai/v1", "/openai/v1/chat/completions", "authorization"),
    ],
)
async def test_addresses_of_azure(base: str, target: str, header: str) -> None:
    async with model_of(SERVER, DONE, key="some-key", base=base) as (model, server):
        assert [delta async for delta in model.stream(request())]
        [exchange] = server.requests
    assert exchange.target == target
    assert [name for name in ("api-key", "authorization") if name in exchange.headers] == [header]


async def test_usage_is_asked_for() -> None:
    deltas, body = await answer(SERVER, DONE, request(*ASKED))
    assert body["stream_options"] == {"include_usage": True}
    assert deltas[-1].usage is not None
