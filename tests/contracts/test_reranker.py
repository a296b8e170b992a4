"""Behaviour of every reranker: the built-in one as workers serve it, and one behind a real server, in two forms."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import suppress

import nats
import pytest

from adapters.embedding.cross_encoder import CrossEncoderEngine
from adapters.embedding.rerank_service import NatsReranker, serve
from adapters.models.rerank_api import RerankApi
from handlers.ports.models import ModelError, Reranker
from tests.chat_servers import LOOPBACK
from tests.rerank_server import once_served, rerank_server

MODEL = "lexical-2"
QUERY = "At what pressure does the Larkspur valve open?"
TEXTS = [
    "The weir was built of stone in 1824.",
    "The Larkspur valve opens at a pressure of 4.2 bar. It was installed in 2019.",
    "水は堰を越えて流れる。 🙂",
    "The valve house is painted green.",
    "x",
]


@pytest.fixture(params=["served", "jina", "tei"])
async def reranker(request: pytest.FixtureRequest, lexical_model: str, nats_url: str) -> AsyncIterator[Reranker]:
    if request.param == "served":
        server, client = await nats.connect(nats_url), await nats.connect(nats_url)
        service = asyncio.create_task(serve(server, CrossEncoderEngine(lexical_model, dtype="float32", device="cpu")))
        await once_served(client, lexical_model)
        yield NatsReranker(client, lexical_model)
        service.cancel()
        with suppress(asyncio.CancelledError):
            await service
        await client.close()
        await server.close()
        return
    async with rerank_server(lexical_model) as url:
        api = RerankApi(LOOPBACK, "default", f"{url}/{'v1' if request.param == 'jina' else 'tei'}", "secret-key")
        if request.param == "tei":
            with suppress(ModelError):  # it learns which form the server takes
                await api.rerank(MODEL, QUERY, ["x"])
        yield api
        await api.close()


async def test_scores_come_in_the_order_of_the_texts(reranker: Reranker, lexical_model: str) -> None:
    from sentence_transformers import CrossEncoder  # seconds, which every process would take to collect the tests

    found = await reranker.rerank(MODEL, QUERY, TEXTS)
    expected = CrossEncoder(lexical_model, device="cpu").predict([(QUERY, text) for text in TEXTS])
    assert found.scores == pytest.approx(expected.tolist(), abs=1e-4)
    assert max(range(5), key=found.scores.__getitem__) == 1
    assert found.scores[1] > 0.6 > 0.2 > found.scores[3] > found.scores[0]
    assert all(0 <= score <= 1 for score in found.scores)


async def test_a_text_scores_the_same_in_any_company(reranker: Reranker) -> None:
    together = (await reranker.rerank(MODEL, QUERY, TEXTS[::-1])).scores[::-1]
    alone = [(await reranker.rerank(MODEL, QUERY, [text])).scores[0] for text in TEXTS]
    assert together == pytest.approx(alone, abs=1e-4)


async def test_what_does_not_fit_is_cut(reranker: Reranker) -> None:
    long = [f"{TEXTS[1]} {'and so on ' * 5000}", "word " * 20_000]
    scores = (await reranker.rerank(MODEL, QUERY, long)).scores
    assert scores[0] > 0.5 > scores[1]


async def test_many_and_long_texts_are_more_than_a_message_of_the_bus(reranker: Reranker) -> None:
    texts = [f"Number {number}. {'Stone weir. ' * 700}" for number in range(80)] + [TEXTS[1]]
    scores = (await reranker.rerank(MODEL, QUERY, texts)).scores
    assert len(scores) == 81
    assert scores[-1] == max(scores)


async def test_an_empty_text_or_query_has_scores_too(reranker: Reranker) -> None:
    assert (await reranker.rerank(MODEL, QUERY, [""])).scores[0] < 0.1
    assert len((await reranker.rerank(MODEL, "", TEXTS)).scores) == 5


async def test_tokens_are_counted_where_the_server_says_so(reranker: Reranker) -> None:
    usage = (await reranker.rerank(MODEL, QUERY, TEXTS)).usage
    if usage is not None:
        assert usage.prompt_tokens >= len(TEXTS)
        assert usage.completion_tokens == 0


async def test_ten_at_once(reranker: Reranker) -> None:
    found = await asyncio.gather(*(reranker.rerank(MODEL, QUERY, TEXTS) for _ in range(10)))
    assert all(math.isclose(one.scores[1], found[0].scores[1], abs_tol=1e-4) for one in found)
