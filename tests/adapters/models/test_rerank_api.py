"""A reranker's server that refuses, fails, hangs, or says what is no answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from adapters.models.rerank_api import MOST_BYTES, RerankApi, read
from adapters.models.server import Patience
from handlers.ports.models import ChatUsage, ModelError, Reranking
from tests.chat_servers import (
    LOOPBACK,
    Behaviour,
    Exchange,
    FaultyServer,
    fails,
    faulty_server,
    free_port,
    hangs,
    refuses_key,
)
from tests.rerank_server import MISSING, rerank_server

KEY = "sk-live-3vKp+9/x2Qz7Lm=TtR"
PATIENCE = Patience(connect=2, first_token=2, total=5)
TEXTS = ["One.", "Two.", "Three."]
GOOD = {"results": [{"index": index, "relevance_score": score} for index, score in ((2, 0.9), (0, 0.5), (1, 0.1))]}


async def works(exchange: Exchange) -> None:
    await exchange.answer(200, GOOD)


@asynccontextmanager
async def api_of(behaviour: Behaviour, key: str = KEY) -> AsyncIterator[tuple[RerankApi, FaultyServer]]:
    async with faulty_server(behaviour) as server:
        api = RerankApi(LOOPBACK, "default", server.url, key, PATIENCE)
        try:
            yield api, server
        finally:
            await api.close()


async def failure(api: RerankApi) -> ModelError:
    async with asyncio.timeout(10):
        with pytest.raises(ModelError) as caught:
            await api.rerank("tiny", "Which?", TEXTS)
    assert KEY not in str(caught.value)
    assert caught.value.__context__ is None
    return caught.value


async def test_sends_what_the_servers_share_and_puts_the_scores_in_order() -> None:
    async with api_of(works) as (api, server):
        assert await api.rerank("tiny", "Which?", TEXTS) == Reranking([0.5, 0.1, 0.9])
        [exchange] = server.requests
        assert f"//{api.server}/" in server.url
    assert exchange.headers["authorization"] == f"Bearer {KEY}"
    assert exchange.body == {"model": "tiny", "query": "Which?", "documents": TEXTS, "top_n": 3}


async def test_a_server_without_a_key_is_sent_none() -> None:
    async with api_of(works, key="") as (api, server):
        await api.rerank("tiny", "Which?", TEXTS)
        assert "authorization" not in server.requests[0].headers


async def test_a_real_servers_refusals_are_reported(lexical_model: str) -> None:
    async with rerank_server(lexical_model, KEY) as url:
        for key, model, code in (("wrong", "lexical-2", "unauthorized"), (KEY, "someone/else", "not_found")):
            api = RerankApi(LOOPBACK, "default", f"{url}/v1", key, PATIENCE)
            with pytest.raises(ModelError) as caught:
                await api.rerank(model, "Which?", TEXTS)
            assert caught.value.code == code
            await api.close()
        api = RerankApi(LOOPBACK, "default", f"{url}/v1/nowhere", KEY, PATIENCE)
        assert (await failure(api)).code == "not_found"
        await api.close()


@pytest.mark.parametrize(
    ("behaviour", "code", "passing"),
    [(fails, "server_error", True), (hangs, "timeout", False), (refuses_key, "unauthorized", False)],
)
async def test_a_fault_is_an_error_after_one_request(behaviour: Behaviour, code: str, passing: bool) -> None:
    async with api_of(behaviour) as (api, server):
        error = await failure(api)
        assert (error.code, error.passing, len(server.requests)) == (code, passing, 1)


async def test_an_answer_that_drips_is_given_up() -> None:
    async def drips(exchange: Exchange) -> None:
        await exchange.begin()
        while True:
            await exchange.event("x")
            await asyncio.sleep(0.02)

    async with api_of(drips) as (api, server):
        assert (await failure(api)).code == "timeout"
        await asyncio.wait_for(server.hung_up.wait(), 5)


async def test_a_server_says_when_it_may_be_asked_again() -> None:
    async def busy(exchange: Exchange) -> None:
        await exchange.fail(429, "Slow down.", retry_after="7")

    async with api_of(busy) as (api, _):
        error = await failure(api)
        assert (error.code, error.passing, error.pause_s) == ("rate_limited", True, 7)


async def test_a_server_that_asks_for_texts_gets_them_with_the_next_request() -> None:
    async def asks(exchange: Exchange) -> None:
        await exchange.answer(422, MISSING)

    async with api_of(asks) as (api, server):
        first, second = await failure(api), await failure(api)
        assert (first.code, first.passing, first.pause_s) == ("bad_request", True, 0)
        assert (second.code, second.passing) == ("bad_request", False)
        assert [sorted(exchange.body) for exchange in server.requests] == [
            ["documents", "model", "query", "top_n"],
            ["query", "texts", "truncate"],
        ]


async def test_no_server_at_the_address() -> None:
    api = RerankApi(LOOPBACK, "default", f"http://127.0.0.1:{free_port()}/v1", KEY, PATIENCE)
    assert (await failure(api)).code == "unreachable"
    await api.close()
    with pytest.raises(ModelError):
        RerankApi(LOOPBACK, "default", "localhost:1", KEY)
    api = RerankApi(LOOPBACK, "default", "http://127.0.0.1:1/v1", "two\r\nlines", PATIENCE)
    assert (await failure(api)).code == "unauthorized"
    await api.close()


def scored(*pairs: tuple[object, object]) -> str:
    return json.dumps({"results": [{"index": index, "relevance_score": score} for index, score in pairs]})


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "<html>",
        "null",
        "[]",
        "{}",
        '{"results": {}}',
        '{"results": [1, 2, 3]}',
        '{"results": [{"index": 0}, {"index": 1}, {"index": 2}]}',
        scored((0, 0.5), (1, 0.5)),
        scored((0, 0.5), (1, 0.5), (1, 0.5)),
        scored((0, 0.5), (1, 0.5), (3, 0.5)),
        scored((0, 0.5), (1, 0.5), (-1, 0.5)),
        scored((0, 0.5), (1, 0.5), (2, 0.5), (3, 0.5)),
        scored((0, 0.5), (1, 0.5), (True, 0.5)),
        scored((0, 0.5), (1, 0.5), ("2", 0.5)),
        scored((0, 0.5), (1, 0.5), (2, "0.5")),
        scored((0, 0.5), (1, 0.5), (2, None)),
        scored((0, 0.5), (1, 0.5), (2, True)),
        scored((0, 0.5), (1, 0.5), (2, float("nan"))),
        scored((0, 0.5), (1, 0.5), (2, float("-inf"))),
        scored((0, 0.5), (1, 0.5), (2, 7)).replace("7", "1e999"),
        "[" * 100_000,
    ],
)
async def test_what_is_no_answer_is_an_error(answer: str) -> None:
    async def babbles(exchange: Exchange) -> None:
        await exchange.answer(200, answer)

    async with api_of(babbles) as (api, server):
        assert (await failure(api)).code == "server_error"
        assert len(server.requests) == 1


async def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    async def floods(exchange: Exchange) -> None:
        await exchange.begin()
        while True:
            await exchange.event("x" * 2**20)

    async with api_of(floods) as (api, _):
        error = await failure(api)
        assert (error.code, f"{MOST_BYTES:,}" in error.reason) == ("server_error", True)


async def test_a_cancelled_task_hangs_up() -> None:
    async with api_of(hangs) as (api, server):
        task = asyncio.create_task(api.rerank("tiny", "Which?", TEXTS))
        await server.asked.wait()
        task.cancel()
        await asyncio.wait((task,))
        await asyncio.wait_for(server.hung_up.wait(), 5)


ONE = [{"index": 0, "relevance_score": 3}]
JINA: dict[str, Any] = {"model": "jina-reranker-v2", "usage": {"total_tokens": 15, "prompt_tokens": 15}, "results": ONE}
COHERE: dict[str, Any] = {
    "id": "07734bd2",
    "results": ONE,
    "meta": {"billed_units": {"search_units": 1}, "tokens": {"input_tokens": 7}},
}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (JINA, Reranking([3.0], ChatUsage(15, 0, raw=JINA["usage"]), None, "jina-reranker-v2")),
        (COHERE, Reranking([3.0], ChatUsage(7, 0, raw=COHERE["meta"]), "07734bd2")),
        ([{"index": 0, "score": 0.25}], Reranking([0.25])),
        ({"results": ONE, "usage": "much", "meta": [1], "id": 7, "model": {}}, Reranking([3.0])),
        ({"results": ONE, "usage": {"total_tokens": -1}, "model": "x" * 9999}, Reranking([3.0], None, None, "x" * 255)),
    ],
)
def test_the_words_of_several_servers(answer: object, expected: Reranking) -> None:
    assert read(json.dumps(answer), 1) == expected
