from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from handlers.ports.models import Attachment, ChatMessage, ModelError, ToolCall
from tests.adapters.models.dialects import Gemini, event, model_of
from tests.adapters.models.test_kinds import ASKED, PICTURE, SCHEMA, TIDE, answer, failure, request, said
from tests.chat_servers import Exchange

SERVER = Gemini()
DONE = SERVER.streams(SERVER.say("Yes."), SERVER.end())


async def test_roles_parts_and_settings() -> None:
    messages = [
        ChatMessage("system", "Be brief."),
        ChatMessage("user", "One."),
        ChatMessage("assistant", "Two."),
        ChatMessage("user", "Three.", [PICTURE, Attachment("audio", "audio/wav", b"RIFF")]),
    ]
    given = {"top_p": 0.5, "stop": "x", "seed": 7, "safetySettings": [], "thinkingConfig": {"includeThoughts": True}}
    _, body = await answer(SERVER, DONE, request(*messages, parameters=given))
    assert body == {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "One."}]},
            {"role": "model", "parts": [{"text": "Two."}]},
            {
                "role": "user",
                "parts": [
                    {"text": "Three."},
                    {"inlineData": {"mimeType": "image/png", "data": base64.b64encode(PICTURE.data).decode()}},
                    {"inlineData": {"mimeType": "audio/wav", "data": base64.b64encode(b"RIFF").decode()}},
                ],
            },
        ],
        "generationConfig": {
            "maxOutputTokens": 16,
            "topP": 0.5,
            "stopSequences": ["x"],
            "seed": 7,
            "thinkingConfig": {"includeThoughts": True},
        },
        "safetySettings": [],
    }


async def test_a_schema_and_tools() -> None:
    _, body = await answer(SERVER, DONE, request(schema=SCHEMA, tools=[TIDE]))
    assert body["generationConfig"]["responseJsonSchema"] == SCHEMA
    assert body["generationConfig"]["responseMimeType"] == "application/json"
    declared = {"name": "tide", "description": "The tide at a lock.", "parametersJsonSchema": TIDE.parameters}
    assert body["tools"] == [{"functionDeclarations": [declared]}]


async def test_signatures_go_back_with_the_parts_that_had_them() -> None:
    """Gemini refuses the request without."""
    asks = SERVER.streams(
        SERVER.think("Mud."),
        SERVER.say("Let me "),
        SERVER.say("see."),
        SERVER.call(0, "", "tide", {"lock": "Mill"}),
        SERVER.parts({"functionCall": {"name": "tide", "args": {"lock": "Sea"}}}),
        SERVER.parts({"text": "", "thoughtSignature": "bGFzdA"}),
        SERVER.end(),
    )
    deltas, _ = await answer(SERVER, asks, request(tools=[TIDE]))
    calls = deltas[-1].tool_calls
    back = ChatMessage("assistant", "Let me see.", tool_calls=calls, state=deltas[-1].state)
    results = [ChatMessage("tool", f"{call.arguments}!", tool_call_id=call.id) for call in calls]
    _, body = await answer(SERVER, DONE, request(*ASKED, back, *results, tools=[TIDE]))
    first, second = (call.id for call in calls)
    asked, given = body["contents"][1:]
    assert asked == {
        "role": "model",
        "parts": [
            {"text": "Let me see."},
            {"functionCall": {"name": "tide", "args": {"lock": "Mill"}, "id": first}, "thoughtSignature": "c2ln"},
            {"functionCall": {"name": "tide", "args": {"lock": "Sea"}, "id": second}},
            {"text": "", "thoughtSignature": "bGFzdA"},
        ],
    }
    assert [part["functionResponse"] for part in given["parts"]] == [
        {"id": first, "name": "tide", "response": {"result": '{"lock": "Mill"}!'}},
        {"id": second, "name": "tide", "response": {"result": '{"lock": "Sea"}!'}},
    ]


async def test_an_id_of_the_server_is_kept_and_no_signature_is_no_state() -> None:
    parts = {"functionCall": {"id": "f1", "name": "tide", "args": {"lock": "Mill"}}}
    deltas, _ = await answer(SERVER, SERVER.streams(SERVER.parts(parts), SERVER.end()), request(tools=[TIDE]))
    assert deltas[-1].tool_calls == (ToolCall("f1", "tide", '{"lock": "Mill"}'),)
    assert deltas[-1].state is None


@pytest.mark.parametrize("reason", ["SAFETY", "PROHIBITED_CONTENT"])
async def test_a_prompt_that_is_blocked(reason: str) -> None:
    blocked = event({"promptFeedback": {"blockReason": reason}, "usageMetadata": {"promptTokenCount": 5}})
    arrived, error, requests = await failure(SERVER, SERVER.streams(blocked))
    assert (arrived, error.code, len(requests)) == ("", "content_filter", 1)
    assert reason in error.reason


async def test_an_answer_that_is_stopped_by_a_filter_says_so() -> None:
    stopped = SERVER.streams(SERVER.say("It "), event({"candidates": [{"finishReason": "SAFETY"}]}))
    deltas, _ = await answer(SERVER, stopped)
    assert (said(deltas)[0], deltas[-1].finish_reason) == ("It ", "SAFETY")


async def test_the_time_to_wait_is_in_the_error() -> None:
    async def busy(exchange: Exchange) -> None:
        details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}]
        error = {"code": 429, "message": "Quota exceeded.", "status": "RESOURCE_EXHAUSTED", "details": details}
        if exchange.number > 2:
            await DONE(exchange)
        else:
            await exchange.answer(429, {"error": error})

    delay = "0.02s"
    assert said((await answer(SERVER, busy))[0])[0] == "Yes."
    delay = "34s"
    _, error, requests = await failure(SERVER, busy)
    assert (error.code, len(requests)) == ("rate_limited", 1)
    assert error.pause_s == 34


async def test_tokens_of_thoughts_and_of_the_cache() -> None:
    used = {"promptTokenCount": 20, "candidatesTokenCount": 5, "thoughtsTokenCount": 100, "totalTokenCount": 125}
    end = event({"candidates": [{"finishReason": "STOP"}], "usageMetadata": {**used, "cachedContentTokenCount": 8}})
    deltas, _ = await answer(SERVER, SERVER.streams(SERVER.say("Yes."), end))
    usage = deltas[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (20, 105)
    assert (usage.reasoning_tokens, usage.cached_tokens) == (100, 8)


async def test_log_probabilities() -> None:
    found = {
        "chosenCandidates": [{"token": "Yes", "logProbability": -0.1}, {"token": ".", "logProbability": -0.2}],
        "topCandidates": [{"candidates": [{"token": "No", "logProbability": -2.5}]}],
    }
    end = event({"candidates": [{"finishReason": "STOP", "logprobsResult": found}]})
    given = {"logprobs": True, "top_logprobs": 1}
    deltas, body = await answer(SERVER, SERVER.streams(SERVER.say("Yes."), end), request(parameters=given))
    assert (body["generationConfig"]["responseLogprobs"], body["generationConfig"]["logprobs"]) == (True, 1)
    assert deltas[-1].logprobs == [
        {"token": "Yes", "logprob": -0.1, "top_logprobs": [{"token": "No", "logprob": -2.5}]},
        {"token": ".", "logprob": -0.2},
    ]


@pytest.mark.parametrize("model", ["../x", "a b", "a?key=b", "a:b", "a#b", "a%2fb"])
async def test_a_name_that_would_change_the_address_is_refused(model: str) -> None:
    async with model_of(SERVER, DONE) as (client, server):
        with pytest.raises(ModelError, match="not the name"):
            async for _ in client.stream(replace(request(), model=model)):
                pass
        assert not server.requests


@pytest.mark.parametrize(
    ("base", "target"),
    [
        ("", "/v1beta/models/tiny:streamGenerateContent?alt=sse"),
        ("/v1", "/v1/models/tiny:streamGenerateContent?alt=sse"),
        ("/v1beta/", "/v1beta/models/tiny:streamGenerateContent?alt=sse"),
        ("/v1beta/openai", "/v1beta/models/tiny:streamGenerateContent?alt=sse"),
        ("/v1beta?a=1", "/v1beta/models/tiny:streamGenerateContent?a=1&alt=sse"),
    ],
)
async def test_endings_of_the_base_url(base: str, target: str) -> None:
    async with model_of(SERVER, DONE, base=base) as (model, server):
        assert said([delta async for delta in model.stream(request())]) == ("Yes.", "")
        assert server.requests[0].target == target
