"""Answers and errors in the dialects of many servers, each from a server on loopback."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from adapters.models.kinds import KINDS
from adapters.models.server import Patience
from handlers.ports.models import Delta, ModelError
from tests.adapters.models.test_openai_compatible import PATIENCE, answer, failure, model_of, request
from tests.chat_servers import LOOPBACK, Behaviour, Exchange, faulty_server

USED = {"prompt_tokens": 20, "completion_tokens": 5}
DONE = "data: [DONE]\n\n"


def event(data: Any) -> str:
    return f"data: {json.dumps(data)}\n\n"


def part(finish: Any = None, **delta: Any) -> str:
    return event({"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def says(*texts: str) -> str:
    return "".join(part(content=text) for text in texts)


def used(**usage: Any) -> str:
    return event({"choices": [], "usage": usage})


STOP = part("stop") + DONE


def streams(*pieces: str) -> Behaviour:
    """A server that sends these pieces of a body, and ends it properly."""

    async def behaviour(exchange: Exchange) -> None:
        await exchange.begin()
        for piece in pieces:
            await exchange.send(piece)
        await exchange.end()

    return behaviour


async def heard(behaviour: Behaviour) -> tuple[str, str, str | None, Any]:
    """The text of an answer, its reasoning, the reason for its end, and the tokens of prompt and answer."""
    async with model_of(behaviour) as (model, _):
        deltas = await answer(model)
    usage = deltas[-1].usage
    return (
        "".join(delta.text for delta in deltas),
        "".join(delta.reasoning for delta in deltas),
        deltas[-1].finish_reason,
        usage and (usage.prompt_tokens, usage.completion_tokens),
    )


async def failed(behaviour: Behaviour) -> tuple[str, ModelError, int]:
    """The text that had arrived, the error, and the number of requests."""
    async with model_of(behaviour) as (model, server):
        arrived, error = await failure(model)
        return arrived, error, len(server.requests)


# --- the end of a stream -------------------------------------------------------------------------------------


@pytest.mark.parametrize("finish", [None, "", "null"])
async def test_the_mark_of_the_end_makes_an_answer_whole(finish: str | None) -> None:
    body = part(finish, content="It is ") + part(finish, content="all here.") + used(**USED) + DONE
    assert await heard(streams(body)) == ("It is all here.", "", None, (20, 5))


async def test_tokens_that_are_counted_after_the_mark_of_the_end() -> None:
    assert await heard(streams(says("Fine."), STOP, used(**USED))) == ("Fine.", "", "stop", (20, 5))


async def test_a_server_that_keeps_its_connection_open_after_the_end() -> None:
    async def lingers(exchange: Exchange) -> None:
        await streams(says("Fine."), STOP)(exchange)
        await asyncio.Event().wait()

    async def goes_on(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.send(says("Fine.") + STOP)
        while True:
            await exchange.send(": still here\n\n")
            await asyncio.sleep(0.05)

    for behaviour in (lingers, goes_on):
        async with asyncio.timeout(5):
            assert (await heard(behaviour))[:3] == ("Fine.", "", "stop")


@pytest.mark.parametrize("finish", ["error", "ERROR", "abort", "network_error", "insufficient_system_resource"])
async def test_a_reason_that_is_no_end_breaks_the_answer_off(finish: str) -> None:
    arrived, error, requests = await failed(streams(says("It is "), part(finish), DONE))
    assert (arrived, error.code, requests) == ("It is ", "broken_off", 1)
    assert finish in error.reason
    arrived, error, requests = await failed(streams(part(finish), DONE))
    assert (arrived, error.code, requests) == ("", "broken_off", 1)


async def test_an_end_without_an_answer_that_is_paid_for_is_not_asked_again() -> None:
    assert await heard(streams(part(role="assistant"), used(**USED), DONE)) == ("", "", None, (20, 5))


async def test_an_end_without_an_answer_is_tried_again() -> None:
    arrived, error, requests = await failed(streams(DONE))
    assert (arrived, error.code, requests) == ("", "broken_off", 1)


# --- errors wherever they stand ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "code", "reason"),
    [
        (event({"object": "error", "message": "out of memory", "code": 500}) + DONE, "server_error", "out of memory"),
        ('event: error\ndata: {"code":400,"message":"shift is off"}\n\n', "bad_request", "shift is off"),
        ('error: {"code":500,"message":"slot is gone","type":"server_error"}\n\n', "server_error", "slot is gone"),
        ('{"error":{"message":"no field before it"}}\n', "server_error", "no field before it"),
        ("event: error\ndata: it went wrong\n\n", "server_error", "it went wrong"),
        (event({"detail": "Engine is dead"}), "server_error", "Engine is dead"),
        (event({"code": "InvalidParameter", "message": "Odd", "request_id": "r"}), "server_error", "Odd"),
        (event({"error_code": 18, "error_msg": "Open api qps limit"}), "server_error", "qps limit"),
        (event({"base_resp": {"status_code": 1004, "status_msg": "login fail"}}), "server_error", "login fail"),
        (
            event({"choices": [{"delta": {}, "error": {"code": 502, "message": "Upstream"}}]}),
            "server_error",
            "Upstream",
        ),
        (event({"type": "error", "error": {"type": "overloaded_error", "message": "Busy"}}), "overloaded", "Busy"),
        (event({"error": {"type": "rate_limit_error", "message": "Slow"}}), "rate_limited", "Slow"),
        (event({"error": {"status": "RESOURCE_EXHAUSTED", "message": "Slow"}}), "rate_limited", "Slow"),
        (event({"error": {"type": "authentication_error", "message": "Who?"}}), "unauthorized", "Who?"),
        (event({"error": {"code": "insufficient_quota", "message": "Pay"}}), "payment_required", "Pay"),
        (event({"error": {"message": "prompt is too long"}}), "context_length_exceeded", "too long"),
    ],
)
async def test_an_error_in_a_stream_has_its_code_and_the_servers_reason(body: str, code: str, reason: str) -> None:
    arrived, error, _ = await failed(streams(body))
    assert (arrived, error.code) == ("", code)
    assert reason in error.reason
    arrived, error, requests = await failed(streams(says("Half of "), body))
    assert (arrived, error.code, requests) == ("Half of ", "broken_off", 1)
    assert reason in error.reason


async def test_an_error_instead_of_a_stream_with_a_good_status() -> None:
    async def whole(exchange: Exchange) -> None:
        await exchange.answer(200, {"error": {"code": 429, "message": "Slow down."}})

    _, error, _ = await failed(whole)
    assert error.code == "rate_limited"
    assert "Slow down." in error.reason


async def test_tokens_in_any_place_of_a_stream() -> None:
    body = says("Fine.") + event({"choices": [{"delta": {}, "finish_reason": "stop", "usage": USED}]}) + DONE
    assert await heard(streams(body)) == ("Fine.", "", "stop", (20, 5))
    first = event(
        {"choices": [{"delta": {"content": "Fine."}}], "usage": {"prompt_tokens": 20, "completion_tokens": 1}}
    )
    assert (await heard(streams(first, used(**USED), event({"choices": [], "usage": None}), STOP)))[3] == (20, 5)


async def test_tokens_of_an_answer_that_is_broken_off() -> None:
    async with model_of(streams(says("Half of "), used(**USED))) as (model, _):
        deltas: list[Delta] = []

        async def listen() -> None:
            async for delta in model.stream(request()):
                deltas.append(delta)

        with pytest.raises(ModelError, match="before it was whole"):
            await listen()
    assert deltas[-1].usage is not None
    assert deltas[-1].usage.completion_tokens == 5


async def test_a_field_of_an_answer_that_is_called_message_or_error_is_no_error() -> None:
    body = event({"error": None, "message": "ok", "choices": [{"delta": {"content": "Fine."}}]})
    assert (await heard(streams(body, STOP)))[0] == "Fine."


# --- answers in other shapes ---------------------------------------------------------------------------------

THINKING = [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}]


@pytest.mark.parametrize(
    ("pieces", "text", "reasoning"),
    [
        (part(content=THINKING) + part(content=[{"type": "text", "text": "It is 42."}]), "It is 42.", "Hm."),
        (part(content=[{"type": "text", "text": "It "}, {"type": "text", "text": "is."}]), "It is.", ""),
        (part(content={"type": "text", "text": "It is."}), "It is.", ""),
        (part(content=["It ", "is."]), "It is.", ""),
        (part(content=[{"type": "output_text", "text": "It is."}, {"type": "image_url", "url": "x"}]), "It is.", ""),
        (part(content=[{"type": "reasoning", "summary": [{"text": "Hm."}]}, {"text": "It is."}]), "It is.", "Hm."),
        (part(content=[{"type": "text", "text": {"value": "It is."}}]), "It is.", ""),
        (part(content=[]) + says("It is."), "It is.", ""),
        (event({"choices": [{"text": "It is.", "finish_reason": None}]}), "It is.", ""),
        (event({"choices": [{"delta": None, "message": {"content": "It is."}}]}), "It is.", ""),
        (event({"choices": [{"delta": {"content": "It is."}, "message": {"content": "It is."}}]}), "It is.", ""),
    ],
)
async def test_a_content_of_parts(pieces: str, text: str, reasoning: str) -> None:
    assert (await heard(streams(pieces, STOP)))[:2] == (text, reasoning)


async def test_an_answer_that_is_not_streamed_is_read() -> None:
    async def whole(exchange: Exchange) -> None:
        message = {"role": "assistant", "content": "It is 42.", "reasoning_content": "Hm."}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        await exchange.answer(200, {"id": "c", "object": "chat.completion", "choices": choices, "usage": USED})

    assert await heard(whole) == ("It is 42.", "Hm.", "stop", (20, 5))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_lines_of_a_stream_in_any_pieces(end: str, size: int) -> None:
    body = "\ufeff: hello\n\nid: 7\nevent: message\n" + says("Fü", "nf.") + "retry: 3\n" + used(**USED) + STOP
    body = body.replace("\n", end)
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    assert await heard(streams(*pieces)) == ("Fünf.", "", "stop", (20, 5))


# --- reasoning -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "text", "reasoning"),
    [
        (["<think>", "41+1.", "</think>", "It is 42."], "It is 42.", "41+1."),
        (["<think>41+1.</think>\n\nIt is 42."], "It is 42.", "41+1."),
        (list("\n <think>41+1.</think>\n\nIt is 42."), "It is 42.", "41+1."),
        (["<think>\n\n</think>\n\n", "It is 42."], "It is 42.", "\n\n"),
        (["<think>41</thi", "s></think>It is 42."], "It is 42.", "41</this>"),
        (["<think>One.</think>\n<think>Two.</think>Done."], "Done.", "One.Two."),
        (["<thinking>Hm.</thinking>Done."], "Done.", "Hm."),
        (["[THINK]Hm.[/THINK]Done."], "Done.", "Hm."),
        (["<|channel|>analysis<|message|>Hm.<|channel|>final<|message|>Done."], "Done.", "Hm."),
        (["The mark <think> begins it, ", "</think> ends it."], "The mark <think> begins it, </think> ends it.", ""),
        (["<thin", "g>"], "<thing>", ""),
        (["<th"], "<th", ""),
        (["  ", "indented"], "  indented", ""),
        ([" " * 500, "far"], " " * 500 + "far", ""),
    ],
)
async def test_reasoning_between_marks_is_no_part_of_the_answer(texts: list[str], text: str, reasoning: str) -> None:
    assert (await heard(streams(says(*texts), STOP)))[:2] == (text, reasoning)


@pytest.mark.parametrize(
    "pieces",
    [says("<think>41+1."), says("41+1.\n</think>"), part(content=None, reasoning_content="41+1.")],
)
async def test_reasoning_that_is_all_of_an_answer_is_an_error(pieces: str) -> None:
    _, error, requests = await failed(streams(pieces, STOP))
    assert (error.code, requests) == ("empty_answer", 1)


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize(
    ("body", "text", "reasoning"),
    [
        ("41+1.\n</think>\n\nIt is 42.", "It is 42.", "41+1.\n"),
        ("</think>It is 42.", "It is 42.", ""),
        ("41+1.\n </think>\n<think>More.</think>\nIt is 42.", "It is 42.", "41+1.\n More."),
        ("The mark </think> ends it.\n</think>", "The mark </think> ends it.\n</think>", ""),
        ("Write:\n<think>\nx\n</think>\n", "Write:\n<think>\nx\n</think>\n", ""),
        ("a < b\n</thing>\n</thi", "a < b\n</thing>\n</thi", ""),
    ],
)
async def test_an_end_of_reasoning_that_a_template_has_begun(body: str, size: int, text: str, reasoning: str) -> None:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    said = thought = ""
    async with model_of(streams(says(*pieces), STOP)) as (model, _):
        for delta in await answer(model):
            if delta.unsaid:
                thought, said = thought + said, ""
            said, thought = said + delta.text, thought + delta.reasoning
    assert (said, thought) == (text, reasoning)


@pytest.mark.parametrize(
    "delta",
    [
        {"content": None, "reasoning_content": "Hidden."},
        {"content": "", "reasoning": "Hidden."},
        {"thinking": "Hidden."},
        {"reasoning": "Hidden.", "reasoning_content": "Hidden."},
        {"reasoning_details": [{"type": "reasoning.text", "text": "Hidden."}]},
        {"reasoning": "Hidden.", "reasoning_details": [{"type": "reasoning.text", "text": "Hidden."}]},
        {"reasoning_details": [{"type": "reasoning.summary", "summary": "Hidden."}, {"type": "reasoning.encrypted"}]},
    ],
)
async def test_reasoning_in_a_field_of_its_own(delta: dict[str, Any]) -> None:
    details = {"completion_tokens_details": {"reasoning_tokens": 100}}
    body = part(**delta) + says("It is 42.") + part("stop") + used(prompt_tokens=20, completion_tokens=105, **details)
    assert await heard(streams(body, DONE)) == ("It is 42.", "Hidden.", "stop", (20, 105))


# --- signs of life -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sign",
    [
        ": ping\n\n",
        "\n",
        "event: ping\n\n",
        "data:\n\n",
        "event: ping\ndata: still here\n\n",
        'event: ping\ndata: {"type": "ping"}\n\n',
        'event: status\ndata: {"message": "The model is loading."}\n\n',
        'data: {"choices": []}\n\n',
    ],
)
async def test_whatever_a_server_sends_is_a_sign_of_life(sign: str) -> None:
    async def pings(exchange: Exchange) -> None:
        await exchange.begin()
        for _ in range(4):
            await asyncio.sleep(0.15)
            await exchange.send(sign)
        await exchange.send(says("It is "))
        for _ in range(4):
            await asyncio.sleep(0.15)
            await exchange.send(sign)
        await exchange.send(says("42.") + STOP)
        await exchange.end()

    patience = Patience(first_token=0.4, between_tokens=0.4, total=10)
    async with model_of(pings, patience) as (model, _):
        assert "".join(delta.text for delta in await answer(model)) == "It is 42."
    async with model_of(pings, Patience(first_token=0.4, between_tokens=0.4, total=0.5)) as (model, _):
        assert (await failure(model))[1].code == "timeout"


# --- fields that a server does not know ----------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 422, 500, 501])
@pytest.mark.parametrize("wording", ["unknown field stream_options", "Unrecognized field: streamOptions.includeUsage"])
async def test_learns_from_any_status_that_names_the_field(status: int, wording: str) -> None:
    async def refuses(exchange: Exchange) -> None:
        if "stream_options" in exchange.body:
            await exchange.fail(status, wording)
        else:
            await exchange.finish()

    async with model_of(refuses) as (model, server):
        for _ in range(2):
            assert (await answer(model))[0].text == "Fine."
        assert ["stream_options" in exchange.body for exchange in server.requests] == [True, False, False]


# --- wordings ------------------------------------------------------------------------------------------------

TOO_LONG = {
    "vLLM": "The decoder prompt (length 9001) is longer than the maximum model length of 4096.",
    "vLLM, chat": "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.",
    "SGLang": "The input (9001 tokens) is longer than the model's context length (8192 tokens).",
    "SGLang, with the answer": "Requested token count exceeds the model's maximum context length of 8192 tokens.",
    "Gemini": "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
    "Qwen": "Range of input length should be [1, 30720]",
    "Anthropic": "input length and `max_tokens` exceed context limit: 199759 + 8192 > 200000",
    "Anthropic, prompt": "prompt is too long: 210000 tokens > 200000 maximum",
    "OpenAI": "Input tokens exceed the configured limit of 272000 tokens.",
    "llama.cpp": "the request exceeds the available context size, try increasing it",
    "Ollama": "the input length exceeds the context length",
    "TGI": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 and 20",
    "TGI, input": "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000",
    "Mistral": "Prompt contains 40000 tokens, too large for model with 32768 maximum context length",
    "Cohere": "too many tokens: total number of tokens in the prompt cannot exceed 4081",
    "Groq": "Please reduce the length of the messages or completion.",
    "Bedrock": "Input is too long for requested model.",
    "xAI": "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
    "MiniMax": "invalid params, context window exceeds limit",
    "Moonshot": "Invalid request: Your request exceeded model token limit: 8192",
    "Baichuan": "tokens in request more than max tokens allowed",
    "Ark": "Total tokens of image and text exceed max message tokens",
    "LM Studio": "Trying to keep the first 5000 tokens when context the overflows.",
}


@pytest.mark.parametrize("server", TOO_LONG)
@pytest.mark.parametrize("status", [400, 500])
async def test_a_prompt_that_is_too_long_in_the_words_of_many_servers(server: str, status: int) -> None:
    async def refuses(exchange: Exchange) -> None:
        await exchange.fail(status, TOO_LONG[server])

    _, error, requests = await failed(refuses)
    assert (error.code, requests) == ("context_length_exceeded", 1)
    assert TOO_LONG[server] in error.reason


@pytest.mark.parametrize(
    "wording",
    [
        "max_tokens is too large: 100000. This model supports at most 16384 completion tokens.",
        "messages: text content blocks must be non-empty",
        "`temperature` must be at most 2",
        "Invalid 'messages[0].role': must be one of system, user",
    ],
)
async def test_other_refusals_are_not_taken_for_a_prompt_that_is_too_long(wording: str) -> None:
    async def refuses(exchange: Exchange) -> None:
        await exchange.fail(400, wording)

    assert (await failed(refuses))[1].code == "bad_request"


@pytest.mark.parametrize(
    ("status", "wording"),
    [
        (402, "Insufficient Balance"),
        (402, "This request requires more credits, or fewer max_tokens."),
        (400, "Your credit balance is too low to access the Anthropic API."),
        (403, "Sorry, your account balance is insufficient"),
        (429, "余额不足或无可用资源包,请充值。"),
        (403, "Your team has used all available credits."),
    ],
)
async def test_an_account_without_money_is_not_asked_again(status: int, wording: str) -> None:
    async def refuses(exchange: Exchange) -> None:
        await exchange.fail(status, wording)

    _, error, requests = await failed(refuses)
    assert (error.code, requests) == ("payment_required", 1)
    assert wording in error.reason


async def test_too_many_requests_that_a_server_calls_a_quota_are_tried_again() -> None:
    async def refuses(exchange: Exchange) -> None:
        message = "You exceeded your current quota, please check your plan and billing details."
        await exchange.answer(429, [{"error": {"code": 429, "message": message, "status": "RESOURCE_EXHAUSTED"}}])

    _, error, requests = await failed(refuses)
    assert (error.code, requests) == ("rate_limited", 1)
    assert "plan and billing details" in error.reason
    assert "{" not in error.reason


@pytest.mark.parametrize(
    ("page", "shown"),
    [
        ("<html>\r\n<head><title>502 Bad Gateway</title></head><body><hr>nginx</body></html>", "502 Bad Gateway"),
        ("<!DOCTYPE html><html><head>\n<title>\n Just a moment&hellip;\n</title>", "Just a moment…"),
        ('<html><body><h1 class="x">Not here</h1><p>Go</p></body></html>', "Not here"),
        ("<p>It is <b>gone</b>.</p>", "It is gone ."),
        ('<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>', "NoSuchKey"),
        ("upstream connect error", "upstream connect error"),
    ],
)
@pytest.mark.parametrize("status", [404, 502])
async def test_of_a_page_the_title_is_the_reason(page: str, shown: str, status: int) -> None:
    async def answers(exchange: Exchange) -> None:
        await exchange.answer(status, page, {"Content-Type": "text/html"})

    _, error, _ = await failed(answers)
    assert error.reason.endswith(f": {shown}")


# --- addresses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("location", "there"),
    [
        ("/v2/chat/completions", "{origin}/v2"),
        ("https://models.example.com/v1/chat/completions", "https://models.example.com/v1"),
        ("//models.example.com:8443/login?next=x", "http://models.example.com:8443/login"),
    ],
)
async def test_a_redirect_says_where_to(status: int, location: str, there: str) -> None:
    async def moves(exchange: Exchange) -> None:
        await exchange.answer(status, "", {"Location": location})

    async with model_of(moves) as (model, server):
        _, error = await failure(model)
        assert len(server.requests) == 1
        there = there.format(origin=server.url.removesuffix("/v1"))
    assert error.code == "bad_request"
    assert f"Register {there} " in error.reason


@pytest.mark.parametrize("location", ["", "/v1/chat/completions", "javascript:alert(1)"])
async def test_a_redirect_to_nowhere(location: str) -> None:
    async def moves(exchange: Exchange) -> None:
        await exchange.answer(301, "", {"Location": location})

    _, error, requests = await failed(moves)
    assert (error.code, requests) == ("bad_request", 1)
    assert error.reason.endswith("which is not followed.")


@pytest.mark.parametrize(
    ("base", "asked"),
    [
        (
            "/openai/deployments/gpt?api-version=2024-10-21",
            "/openai/deployments/gpt/chat/completions?api-version=2024-10-21",
        ),
        ("/v1/?a=1&a=2&b=%2F", "/v1/chat/completions?a=1&a=2&b=%2F"),
        ("?x", "/chat/completions?x"),
        ("/v1?", "/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions"),
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completions/?key=x", "/v1/chat/completions?key=x"),
    ],
)
async def test_a_query_of_the_address_goes_with_each_request(base: str, asked: str) -> None:
    async with faulty_server(lambda exchange: exchange.finish()) as server:
        model = KINDS["openai"](LOOPBACK, "default", server.url.removesuffix("/v1") + base, "some-key", PATIENCE)
        await answer(model)
        await model.close()
        [exchange] = server.requests
    assert exchange.target == asked
    assert exchange.headers.get("api-key") == ("some-key" if "api-version" in base else None)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "http://127.0.0.1:9", "nonsense"])
async def test_proxies_of_the_environment_have_no_part(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    for name in ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "http_proxy"):
        monkeypatch.setenv(name, proxy)
    async with model_of(lambda exchange: exchange.finish()) as (model, _):
        assert (await answer(model, request()))[0].text == "Fine."
