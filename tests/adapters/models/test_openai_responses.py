from __future__ import annotations

import base64

import pytest

from handlers.ports.models import Attachment, ChatMessage, ToolCall
from tests.adapters.models.dialects import Responses, model_of, tried
from tests.adapters.models.test_kinds import ASKED, PICTURE, SCHEMA, TIDE, answer, failure, request, said
from tests.chat_servers import Exchange

SERVER = Responses()
DONE = SERVER.streams(SERVER.say("Yes."), SERVER.end())


async def test_items_of_a_conversation() -> None:
    pages = Attachment("document", "application/pdf", b"%PDF", "weir.pdf")
    messages = [*ASKED, ChatMessage("assistant", "Yes."), ChatMessage("user", "Look.", [PICTURE, pages])]
    given = {"temperature": 0.5, "reasoning_effort": "low", "top_logprobs": 2}
    _, body = await answer(SERVER, DONE, request(*messages, schema=SCHEMA, tools=[TIDE], parameters=given))
    image = f"data:image/png;base64,{base64.b64encode(PICTURE.data).decode()}"
    pdf = f"data:application/pdf;base64,{base64.b64encode(b'%PDF').decode()}"
    assert body == {
        "model": "tiny",
        "input": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Is the Mill lock open?"},
            {"role": "assistant", "content": "Yes."},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "Look."},
                    {"type": "input_image", "image_url": image, "detail": "auto"},
                    {"type": "input_file", "filename": "weir.pdf", "file_data": pdf},
                ],
            },
        ],
        "max_output_tokens": 16,
        "store": False,
        "stream": True,
        "include": ["message.output_text.logprobs", "reasoning.encrypted_content"],
        "tools": [{"type": "function", **TIDE._asdict(), "strict": True}],
        "tool_choice": "auto",
        "text": {"format": {"type": "json_schema", "name": "answer", "schema": SCHEMA}},
        "temperature": 0.5,
        "reasoning": {"effort": "low"},
        "top_logprobs": 2,
    }


async def test_encrypted_reasoning_goes_back_before_its_calls() -> None:
    item = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "c2Vj"}
    asks = SERVER.streams(
        SERVER.think("Mud."),
        SERVER.named("output_item.done", output_index=0, item=item),
        SERVER.call(0, "call_a", "tide", {"lock": "Mill"}),
        SERVER.call(1, "call_b", "tide", {"lock": "Sea"}),
        SERVER.end(),
    )
    deltas, _ = await answer(SERVER, asks, request(tools=[TIDE]))
    calls = deltas[-1].tool_calls
    assert [call.id for call in calls] == ["call_a", "call_b"]
    back = ChatMessage("assistant", "", tool_calls=calls, state=deltas[-1].state)
    results = [ChatMessage("tool", "High.", tool_call_id=call.id) for call in calls]
    _, body = await answer(SERVER, DONE, request(*ASKED, back, *results, tools=[TIDE]))
    assert body["input"][2:] == [
        item,
        {"type": "function_call", "call_id": "call_a", "name": "tide", "arguments": '{"lock": "Mill"}'},
        {"type": "function_call", "call_id": "call_b", "name": "tide", "arguments": '{"lock": "Sea"}'},
        {"type": "function_call_output", "call_id": "call_a", "output": "High."},
        {"type": "function_call_output", "call_id": "call_b", "output": "High."},
    ]
    plain = SERVER.streams(
        SERVER.named("output_item.done", output_index=0, item=item), SERVER.say("Yes."), SERVER.end()
    )
    assert (await answer(SERVER, plain))[0][-1].state is None


@pytest.mark.parametrize(
    "message", ["Encrypted content is not supported with this model.", "Unknown parameter: 'include'."]
)
async def test_does_without_encrypted_reasoning_where_it_is_refused(message: str) -> None:
    async def refuses(exchange: Exchange) -> None:
        if "include" in exchange.body:
            await exchange.fail(400, message)
        else:
            await DONE(exchange)

    async with model_of(SERVER, refuses) as (model, server):
        for _ in range(2):
            assert said(await tried(model, request()))[0] == "Yes."
        assert ["include" in exchange.body for exchange in server.requests] == [True, False, False]


async def test_a_response_that_fails() -> None:
    error = {"code": "rate_limit_exceeded", "message": "Slow down."}
    failed = SERVER.named("failed", response={"id": "a1", "status": "failed", "error": error})
    _, found, requests = await failure(SERVER, SERVER.streams(failed))
    assert (found.code, len(requests)) == ("rate_limited", 1)
    assert "Slow down." in found.reason
    arrived, found, _ = await failure(SERVER, SERVER.streams(SERVER.say("Half "), failed))
    assert (arrived, found.code) == ("Half ", "broken_off")


async def test_a_refusal_of_the_model_is_its_answer() -> None:
    refusal = SERVER.named("refusal.delta", output_index=0, delta="I cannot.")
    assert said((await answer(SERVER, SERVER.streams(refusal, SERVER.end())))[0])[0] == "I cannot."


async def test_log_probabilities() -> None:
    token = {"token": "Yes", "logprob": -0.1, "top_logprobs": [{"token": "No", "logprob": -2}]}
    piece = SERVER.named("output_text.delta", output_index=0, delta="Yes.", logprobs=[token])
    deltas, _ = await answer(SERVER, SERVER.streams(piece, SERVER.end()))
    assert deltas[-1].logprobs == [token]


async def test_an_answer_that_is_not_streamed() -> None:
    async def whole(exchange: Exchange) -> None:
        output = [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Mud."}], "encrypted_content": "c2Vj"},
            {"type": "message", "content": [{"type": "output_text", "text": "Look."}]},
            {"type": "function_call", "call_id": "a", "name": "tide", "arguments": '{"lock": "Mill"}'},
        ]
        used = {"input_tokens": 20, "output_tokens": 5}
        body = {"object": "response", "id": "a1", "model": "m1", "status": "completed", "error": None}
        await exchange.answer(200, {**body, "output": output, "usage": used})

    deltas, _ = await answer(SERVER, whole, request(tools=[TIDE]))
    assert said(deltas) == ("Look.", "Mud.")
    assert deltas[-1].tool_calls == (ToolCall("a", "tide", '{"lock": "Mill"}'),)
    assert deltas[-1].state is not None
    assert (deltas[-1].finish_reason, deltas[-1].response_id) == ("completed", "a1")


async def test_an_address_of_azure() -> None:
    async with model_of(SERVER, DONE, key="k", base="/openai/v1/?api-version=preview") as (model, server):
        assert [delta async for delta in model.stream(request())]
        [exchange] = server.requests
    assert exchange.target == "/openai/v1/responses?api-version=preview"
    assert exchange.headers["api-key"] == "k"
