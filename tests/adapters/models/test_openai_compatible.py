from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from openai import AsyncOpenAI

from adapters.models.chat_server import ChatServer
from adapters.models.faults import redact
from adapters.models.kinds import KINDS
from adapters.models.server import Patience
from handlers.ports.models import ChatMessage, ChatRequest, ChatUsage, Delta, ModelError
from tests.adapters.models.dialects import tried
from tests.chat_servers import (
    LOOPBACK,
    Behaviour,
    Exchange,
    FaultyServer,
    breaks_off,
    drips,
    ends_early,
    fails,
    faulty_server,
    free_port,
    hangs,
    hangs_mid_stream,
    overflows,
    refuses_key,
    talks_nonsense,
    works,
)

KEY = "sk-live-3vKp+9/x2Qz7Lm=TtR"
PATIENCE = Patience(connect=2, first_token=1.0, between_tokens=0.8, total=5)
COUNTED = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
GOOD = [Delta("Fine."), Delta(finish_reason="stop", usage=ChatUsage(7, 2, raw=COUNTED))]


def request(model: str = "tiny", **parameters: Any) -> ChatRequest:
    return ChatRequest(model, [ChatMessage("system", "Be brief."), ChatMessage("user", "Well?")], 16, parameters)


@asynccontextmanager
async def model_of(
    behaviour: Behaviour, patience: Patience = PATIENCE, key: str = KEY
) -> AsyncIterator[tuple[ChatServer, FaultyServer]]:
    async with faulty_server(behaviour) as server:
        model = KINDS["openai"](LOOPBACK, "default", server.url, key, patience)
        try:
            yield model, server
        finally:
            await model.close()


async def answer(model: ChatServer, asked: ChatRequest | None = None) -> list[Delta]:
    return await tried(model, asked or request())


async def failure(model: ChatServer, asked: ChatRequest | None = None) -> tuple[str, ModelError]:
    """Return the text that had arrived, and the error that ended it, which came within seconds."""
    arrived = ""
    try:
        async with asyncio.timeout(20):
            async for delta in model.stream(asked or request()):
                arrived += delta.text
    except ModelError as error:
        return arrived, error
    pytest.fail(f"No error came, but {arrived!r}.")


def first_then(first: Behaviour, then: Behaviour = works, times: int = 1) -> Behaviour:
    async def behaviour(exchange: Exchange) -> None:
        await (first if exchange.number <= times else then)(exchange)

    return behaviour


# --- a real server -------------------------------------------------------------------------------------------


async def test_streams_what_the_openai_client_streams(serving_url: str, serving_model: str) -> None:
    model = KINDS["openai"](LOOPBACK, "default", serving_url)
    asked = request(serving_model)
    deltas = await answer(model, asked)
    await model.close()
    async with AsyncOpenAI(base_url=serving_url, api_key="none") as client:
        expected = await client.chat.completions.create(
            model=serving_model,
            messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Well?"}],
            max_tokens=16,
        )
    assert "".join(delta.text for delta in deltas) == expected.choices[0].message.content
    assert len(deltas) > 4
    assert expected.usage is not None
    last = deltas[-1]
    assert last.usage is not None
    assert (last.finish_reason, last.model) == (expected.choices[0].finish_reason, expected.model)
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (
        expected.usage.prompt_tokens,
        expected.usage.completion_tokens,
    )
    assert last.usage.raw["total_tokens"] == expected.usage.total_tokens
    assert last.response_id


async def test_a_real_servers_refusal_of_an_unknown_model_is_reported(serving_url: str) -> None:
    model = KINDS["openai"](LOOPBACK, "default", serving_url)
    arrived, error = await failure(model, request("someone/else"))
    await model.close()
    assert (arrived, error.code) == ("", "bad_request")
    assert "someone/else" in error.reason


async def test_ten_at_once_on_a_real_server(serving_url: str, serving_model: str) -> None:
    model = KINDS["openai"](LOOPBACK, "default", serving_url)
    answers = await asyncio.gather(*(answer(model, request(serving_model)) for _ in range(10)))
    await model.close()
    assert len({"".join(delta.text for delta in deltas) for deltas in answers}) == 1


# --- what is sent --------------------------------------------------------------------------------------------


async def test_sends_what_is_set_and_nothing_else() -> None:
    async with model_of(works) as (model, server):
        assert await answer(model, request(temperature=0.2, top_p=None, top_k=40)) == GOOD
        [exchange] = server.requests
    assert exchange.headers["authorization"] == f"Bearer {KEY}"
    assert exchange.body == {
        "model": "tiny",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Well?"}],
        "max_tokens": 16,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.2,
        "top_k": 40,
    }


async def test_sends_nothing_of_the_machines_own_openai_account(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_KEY", "ORG_ID", "PROJECT_ID", "ADMIN_KEY"):
        monkeypatch.setenv(f"OPENAI_{name}", f"operator-{name}")
    async with model_of(works, key="") as (model, server):
        assert await answer(model) == GOOD
        [exchange] = server.requests
    assert "authorization" not in exchange.headers
    assert not any("operator" in value for value in exchange.headers.values())


@pytest.mark.parametrize("name", ["stream", "messages", "n", "max_tokens"])
async def test_parameters_cannot_change_what_is_not_theirs(name: str) -> None:
    async with model_of(works) as (model, server):
        arrived, error = await failure(model, request("tiny", **{name: 1}))
        assert not server.requests
    assert (arrived, error.code) == ("", "bad_request")
    assert name in error.reason


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("https://user:secret@models.example.com/v1", "models.example.com:443"),
        ("http://127.0.0.1:8000/v1", "127.0.0.1:8000"),
        ("http://[::1]/v1", "[::1]:80"),
    ],
)
async def test_says_where_its_server_is(url: str, server: str) -> None:
    model = KINDS["openai"](LOOPBACK, "default", url)
    await model.close()
    assert model.server == server


# --- what a server refuses -----------------------------------------------------------------------------------


async def test_does_without_usage_where_the_server_refuses_to_count() -> None:
    async def refuses(exchange: Exchange) -> None:
        if "stream_options" in exchange.body:
            await exchange.answer(422, {"detail": [{"loc": ["body", "stream_options"], "msg": "Extra inputs"}]})
        else:
            await exchange.finish()

    async with model_of(refuses) as (model, server):
        for _ in range(2):
            assert await answer(model) == [GOOD[0], Delta(finish_reason="stop")]
        assert ["stream_options" in exchange.body for exchange in server.requests] == [True, False, False]


async def test_names_the_limit_as_the_server_wants_it() -> None:
    async def refuses(exchange: Exchange) -> None:
        if "max_tokens" in exchange.body:
            await exchange.fail(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        else:
            await exchange.finish()

    async with model_of(refuses) as (model, server):
        for _ in range(2):
            assert await answer(model) == GOOD
        assert [exchange.body.get("max_completion_tokens") for exchange in server.requests] == [None, 16, 16]


async def test_a_server_that_refuses_everything_is_not_asked_for_ever() -> None:
    async def refuses(exchange: Exchange) -> None:
        await exchange.fail(400, "No stream_options, no max_tokens (try max_completion_tokens), nothing.")

    async with model_of(refuses) as (model, server):
        with pytest.raises(ModelError) as error:
            await answer(model)
        assert len(server.requests) == 3
    assert error.value.code == "bad_request"


# --- faults --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "code", "arrived", "requests"),
    [
        (hangs, "timeout", "", 1),
        (hangs_mid_stream, "timeout", "Half of ", 1),
        (fails, "server_error", "", 1),
        (breaks_off, "broken_off", "Half of ", 1),
        (ends_early, "broken_off", "Half of ", 1),
        (talks_nonsense, "server_error", "", 1),
        (refuses_key, "unauthorized", "", 1),
        (overflows, "context_length_exceeded", "", 1),
    ],
)
async def test_a_fault_ends_in_its_error(behaviour: Behaviour, code: str, arrived: str, requests: int) -> None:
    async with model_of(behaviour) as (model, server):
        got, error = await failure(model)
        assert len(server.requests) == requests
    assert (got, error.code) == (arrived, code)
    assert server.url in error.reason
    assert str(error) == error.reason


async def test_an_endless_answer_ends_at_the_total_time() -> None:
    async with model_of(drips, Patience(total=0.5)) as (model, server):
        arrived, error = await failure(model)
        async with asyncio.timeout(5):
            await server.hung_up.wait()
    assert error.code == "timeout"
    assert arrived.startswith("drop drop ")


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (403, "No.", "unauthorized"),
        (404, "No such model.", "not_found"),
        (413, "Large.", "context_length_exceeded"),
        (400, "This model's maximum context length is 512 tokens.", "context_length_exceeded"),
        (400, "the request exceeds the available context size", "context_length_exceeded"),
        (400, "Unknown role.", "bad_request"),
        (422, "temperature must be a number", "bad_request"),
    ],
)
async def test_a_status_that_will_not_change_is_not_tried_again(status: int, message: str, code: str) -> None:
    async def refuses(exchange: Exchange) -> None:
        await exchange.fail(status, message)

    async with model_of(refuses) as (model, server):
        _, error = await failure(model)
        assert len(server.requests) == 1
    assert error.code == code
    assert message in error.reason


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
async def test_a_status_that_may_change_is_tried_again(status: int) -> None:
    async def busy(exchange: Exchange) -> None:
        await exchange.fail(status, "Later.")

    async with model_of(first_then(busy, times=2)) as (model, server):
        assert await answer(model) == GOOD
        assert len(server.requests) == 3


@pytest.mark.parametrize("cut", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 500 No\r\nContent-Length: 99\r\n\r\n{"])
async def test_a_connection_lost_before_the_answer_is_tried_again(cut: bytes) -> None:
    async def drops(exchange: Exchange) -> None:
        exchange.writer.write(cut)

    async with model_of(first_then(drops)) as (model, server):
        assert await answer(model) == GOOD
        assert len(server.requests) == 2
    async with model_of(drops) as (model, _):
        arrived, error = await failure(model)
    assert (arrived, error.code) == ("", "unreachable")


async def test_a_stream_lost_before_its_first_word_is_tried_again() -> None:
    async def drops(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.event({"choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}]})

    async with model_of(first_then(drops)) as (model, _):
        assert await answer(model) == GOOD
    async with model_of(drops) as (model, _):
        assert (await failure(model))[1].code == "broken_off"


async def test_no_server_at_the_address() -> None:
    model = KINDS["openai"](
        LOOPBACK, "default", f"http://user:{quote(KEY, safe='')}@127.0.0.1:{free_port()}/v1", KEY, PATIENCE
    )
    arrived, error = await failure(model)
    await model.close()
    assert (arrived, error.code) == ("", "unreachable")
    assert quote(KEY, safe="") not in error.reason


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "localhost:11434",
        "gopher://127.0.0.1/v1",
        "http://[half",
        "http://a:b/v1",
        "http://a/#",
        r"http://a\@b/v1",
    ],
)
def test_an_address_that_is_none(base_url: str) -> None:
    with pytest.raises(ModelError, match="not the address") as caught:
        KINDS["openai"](LOOPBACK, "default", base_url, KEY)
    assert caught.value.code == "unreachable"


async def test_a_server_that_accepts_no_connection_in_time() -> None:
    async with faulty_server(works) as server:
        secured = server.url.replace("http:", "https:")
        model = KINDS["openai"](LOOPBACK, "default", secured, KEY, Patience(connect=0.2))
        _, error = await failure(model)
        await model.close()
    assert error.code == "unreachable"
    assert "no connection was accepted in time" in error.reason


@pytest.mark.parametrize("dated", [False, True])
async def test_the_time_that_the_server_asks_for_is_in_the_error(dated: bool) -> None:
    def after(seconds: float) -> str:
        return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds)) if dated else str(seconds)

    async def soon(exchange: Exchange) -> None:
        await exchange.fail(429, "Slow down.", retry_after=after(0.05))

    async def late(exchange: Exchange) -> None:
        await exchange.fail(429, "Slow down.", retry_after=after(3600))

    async with model_of(first_then(soon)) as (model, _):
        assert await answer(model) == GOOD
    async with model_of(late) as (model, server):
        _, error = await failure(model)
        assert len(server.requests) == 1
    assert (error.code, error.passing) == ("rate_limited", True)
    assert error.pause_s == pytest.approx(3600, abs=2)


async def test_an_empty_account_is_not_tried_again() -> None:
    async def broke(exchange: Exchange) -> None:
        await exchange.fail(429, "You exceeded your quota.", "insufficient_quota")

    async with model_of(broke) as (model, server):
        assert (await failure(model))[1].code == "payment_required"
        assert len(server.requests) == 1


async def test_errors_inside_a_stream() -> None:
    async def long(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.event({"error": {"message": "prompt is too long", "code": 400}})
        await exchange.end()

    async def sick(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.event({"error": "out of memory"})
        await exchange.end()

    async def late(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.say("Half of ")
        await exchange.event({"error": "out of memory"})
        await exchange.end()

    async with model_of(long) as (model, server):
        assert (await failure(model))[1].code == "context_length_exceeded"
        assert len(server.requests) == 1
    async with model_of(first_then(sick)) as (model, _):
        assert await answer(model) == GOOD
    async with model_of(late) as (model, server):
        arrived, error = await failure(model)
        assert len(server.requests) == 1
    assert (arrived, error.code) == ("Half of ", "broken_off")
    assert "out of memory" in error.reason


@pytest.mark.parametrize(
    "chunk",
    [
        "[1, 2]",
        '"text"',
        '{"choices": "many"}',
        '{"choices": [7]}',
        '{"choices": [{"delta": {"content": 7}}]}',
        "[" * 100_000,
    ],
)
async def test_chunks_of_an_unknown_shape(chunk: str) -> None:
    async def odd(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.event(chunk)
        await exchange.end()

    async with model_of(odd) as (model, _):
        assert (await failure(model))[1].code == "server_error"


@pytest.mark.parametrize("field", ["usage", "id", "model", "finish_reason"])
@pytest.mark.parametrize("odd", ["x", 7, -1, 1.5, True, [], [1], {}, {"a": {"b": []}}, None, "\ud800", "x" * 100_000])
async def test_an_answer_survives_whatever_is_said_about_it(field: str, odd: object) -> None:
    async def babbles(exchange: Exchange) -> None:
        await exchange.begin()
        about = {} if field == "finish_reason" else {field: odd}
        finish = odd if field == "finish_reason" and odd else "stop"
        await exchange.event({"choices": [{"delta": {"content": "Fine \ud800."}}], **about})
        await exchange.event({"choices": [{"delta": {}, "finish_reason": finish}], **about})
        await exchange.event({"choices": [], "usage": {"prompt_tokens": odd, "completion_tokens": odd}, **about})
        await exchange.end()

    async with model_of(babbles) as (model, _):
        *texts, last = await answer(model)
    assert "".join(delta.text for delta in texts) == "Fine ?."
    assert isinstance(last.finish_reason, str)
    assert orjson.dumps(last)
    assert len(orjson.dumps(last)) < 1000


async def test_an_address_that_is_no_model_server() -> None:
    async def page(exchange: Exchange) -> None:
        await exchange.answer(200, "<html>Welcome</html>", {"Content-Type": "text/html; charset=utf-8"})

    async def status(exchange: Exchange) -> None:
        await exchange.answer(200, {"status": "ok"})

    for behaviour in (page, status):
        async with model_of(behaviour) as (model, _):
            _, error = await failure(model)
        assert error.code == "server_error"
        assert "is not a stream" in error.reason


async def test_an_answer_that_is_whole_is_kept_when_the_count_is_lost() -> None:
    async def uncounted(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.say("Fine.")
        await exchange.say(finish="stop")

    async with model_of(uncounted) as (model, _):
        assert await answer(model) == [Delta("Fine."), Delta(finish_reason="stop")]


async def test_thinking_is_a_sign_of_life_and_no_part_of_the_answer() -> None:
    async def thinks(exchange: Exchange) -> None:
        await exchange.begin()
        for _ in range(8):
            await exchange.event({"choices": [{"index": 0, "delta": {"reasoning_content": "Hm. "}}]})
            await asyncio.sleep(0.1)
        await exchange.say("Fine.", finish="stop")
        await exchange.end()

    async with model_of(thinks) as (model, _):
        assert await answer(model) == [Delta(reasoning="Hm. ")] * 8 + [Delta("Fine."), Delta(finish_reason="stop")]


# --- leaving -------------------------------------------------------------------------------------------------


async def test_a_cancelled_task_hangs_up_before_the_answer_and_in_its_middle() -> None:
    for behaviour in (hangs, hangs_mid_stream, drips):
        async with model_of(behaviour, Patience()) as (model, server):
            task = asyncio.ensure_future(answer(model))
            async with asyncio.timeout(10):
                await server.asked.wait()
                await asyncio.sleep(0.05)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await server.hung_up.wait()


async def test_a_closed_generator_hangs_up() -> None:
    async with model_of(drips, Patience()) as (model, server):
        async with aclosing(model.stream(request())) as deltas:
            async for delta in deltas:
                assert delta.text == "drop "
                break
        async with asyncio.timeout(10):
            await server.hung_up.wait()


# --- the key -------------------------------------------------------------------------------------------------


async def test_the_key_is_in_no_error_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    async def quotes(exchange: Exchange) -> None:
        key = exchange.headers["authorization"].removeprefix("Bearer ")
        quoted = f"{'x' * 290}{key} {key[:12]}... {exchange.headers}"
        if exchange.number == 1:
            await exchange.fail(400, quoted)
        elif exchange.number == 2:
            await exchange.answer(401, f"<h1>{quoted}</h1>", {"Content-Type": "text/html"})
        elif exchange.number == 3:
            await exchange.answer(400, {"detail": [{"input": exchange.headers}]})
        else:
            await exchange.begin()
            await exchange.event({"error": {"message": quoted, "code": "400"}})
            await exchange.end()

    async with model_of(quotes) as (model, server):
        with caplog.at_level(logging.DEBUG):
            for _ in range(4):
                _, error = await failure(model)
                shown = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
                assert KEY not in shown
                assert KEY[:12] not in shown
                assert "***" in error.reason or len(error.reason) > 290
                assert error.__cause__ is None
                assert error.__context__ is None
        assert len(server.requests) == 4
    assert KEY not in caplog.text


@pytest.mark.parametrize("key", ["clé-secrète", "two\r\nlines", "tab\tbed"])
async def test_a_key_that_no_header_can_carry(key: str) -> None:
    async with model_of(works, key=key) as (model, server):
        _, error = await failure(model)
        assert not server.requests
    assert error.code == "unauthorized"
    assert key not in repr(error)


def test_redact_hides_the_key_its_parts_and_its_spellings() -> None:
    assert redact("key abcdefghij!", "abcdefghij") == "key ***!"
    assert redact("abcdefgh... and cdefghij", "abcdefghij") == "***... and ***"
    assert redact("?key=a%2Fb%2Bc", "a/b+c") == "?key=***"
    assert redact("ab", "ab") == "***"
    assert redact("abcdefg is too short a part", "abcdefghij") == "abcdefg is too short a part"
    assert redact("nothing", "") == "nothing"
