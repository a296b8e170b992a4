"""Embedding models behind scripted servers of each kind."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from adapters.models.embedding_api import EmbeddingApi
from adapters.models.kinds import EMBEDDERS
from adapters.models.server import Patience
from handlers.ports.models import ModelError
from tests.adapters.models.dialects import KEY
from tests.chat_servers import LOOPBACK, Behaviour, Exchange, FaultyServer, faulty_server, hangs

PATIENCE = Patience(first_token=10, total=30)
SHORT = Patience(first_token=0.3)

TARGETS = {
    "openai": "/embeddings",
    "openai_responses": "/embeddings",
    "ollama": "/api/embed",
    "gemini": "/v1beta/models/tiny:batchEmbedContents",
}
each_kind = pytest.mark.parametrize("kind", EMBEDDERS)


def vector(text: str) -> list[float]:
    return [float(len(text)), 1.0, 0.0]


def texts_in(body: dict[str, Any]) -> list[str]:
    if "requests" in body:
        return [each["content"]["parts"][0]["text"] for each in body["requests"]]
    found: list[str] = body["input"]
    return found


def answer(kind: str, vectors: list[Any]) -> dict[str, Any]:
    if kind == "ollama":
        return {"model": "m1", "embeddings": vectors, "prompt_eval_count": 2 * len(vectors)}
    if kind == "gemini":
        return {"embeddings": [{"values": each} for each in vectors]}
    data = [{"object": "embedding", "index": index, "embedding": each} for index, each in enumerate(vectors)]
    used = {"prompt_tokens": 2 * len(vectors), "total_tokens": 2 * len(vectors)}
    return {"data": data[::-1], "model": "m1", "usage": used}


def embeds(kind: str) -> Behaviour:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.answer(200, answer(kind, [vector(text) for text in texts_in(exchange.body)]))

    return behaviour


@asynccontextmanager
async def api_of(kind: str, behaviour: Behaviour, base: str = "") -> AsyncIterator[tuple[EmbeddingApi, FaultyServer]]:
    async with faulty_server(behaviour) as server:
        patience = SHORT if behaviour is hangs else PATIENCE
        api = EMBEDDERS[kind](LOOPBACK, "default", server.url.removesuffix("/v1") + base, KEY, patience)
        try:
            yield api, server
        finally:
            await api.close()


async def failure(kind: str, behaviour: Behaviour) -> tuple[ModelError, int]:
    async with api_of(kind, behaviour) as (api, server):
        with pytest.raises(ModelError) as caught:
            await api.embed("tiny", ["a", "bb"])
        return caught.value, len(server.requests)


@each_kind
async def test_every_text_has_its_vector_of_length_one(kind: str) -> None:
    async with api_of(kind, embeds(kind)) as (api, server):
        found = await api.embed("tiny", ["a", "bb", ""])
        [exchange] = server.requests
    assert exchange.target == TARGETS[kind]
    assert KEY in (exchange.headers.get("x-goog-api-key"), exchange.headers.get("authorization", "").split(" ")[-1])
    assert found.vectors.dtype == np.float32
    lengths = [math.hypot(*vector(text)) for text in ("a", "bb", "")]
    expected = [[part / length for part in vector(text)] for text, length in zip(("a", "bb", ""), lengths, strict=True)]
    assert found.vectors == pytest.approx(np.array(expected), abs=1e-6)
    assert (found.usage and found.usage.prompt_tokens) == (None if kind == "gemini" else 6)
    assert f"//{api.server}" in server.url


@each_kind
async def test_many_texts_are_one_request(kind: str) -> None:
    texts = ["x" * (number % 7) for number in range(32)]
    async with api_of(kind, embeds(kind)) as (api, server):
        found = await api.embed("tiny", texts)
        assert [len(texts_in(exchange.body)) for exchange in server.requests] == [32]
    assert found.vectors.shape == (32, 3)
    assert np.argmax(found.vectors[:, 0]) == 6


async def test_ollama_is_asked_not_to_cut_a_text() -> None:
    async with api_of("ollama", embeds("ollama"), "/v1") as (api, server):
        await api.embed("tiny", ["a"])
        assert server.requests[0].body == {"model": "tiny", "input": ["a"], "truncate": False, "keep_alive": "30m"}


async def test_a_deployment_of_azure() -> None:
    async with api_of("openai", embeds("openai"), "/openai/deployments?api-version=1") as (api, server):
        await api.embed("tiny", ["a"])
        assert server.requests[0].target == "/openai/deployments/tiny/embeddings?api-version=1"
        assert server.requests[0].headers["api-key"] == KEY


@each_kind
@pytest.mark.parametrize(
    "vectors", [[[1.0]], [[1.0], [1.0, 2.0]], [[1.0], [None]], [[], []], [["x"], ["y"]], [1.0, 2.0]]
)
async def test_vectors_that_are_none(kind: str, vectors: list[Any]) -> None:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.answer(200, answer(kind, vectors))

    error, requests = await failure(kind, behaviour)
    assert (error.code, requests) == ("server_error", 1)


@each_kind
@pytest.mark.parametrize(
    "body", ["{}", "[]", "7", "{", '{"data": 7, "embeddings": 7}', '{"data": [{}], "embeddings": [{}]}']
)
async def test_an_answer_in_another_form(kind: str, body: str) -> None:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.answer(200, body)

    error, requests = await failure(kind, behaviour)
    assert (error.code, requests) == ("server_error", 1)


@each_kind
@pytest.mark.parametrize(
    ("status", "message", "code", "passing"),
    [
        (400, "the input length exceeds the context length", "context_length_exceeded", False),
        (401, "Who?", "unauthorized", False),
        (404, "model 'tiny' not found", "not_found", False),
        (429, "Slow down.", "rate_limited", True),
        (500, "On fire.", "server_error", True),
    ],
)
async def test_a_status_has_its_code(kind: str, status: int, message: str, code: str, passing: bool) -> None:
    async def refuses(exchange: Exchange) -> None:
        await exchange.answer(status, {"error": {"message": f"{message} {KEY}"}})

    error, made = await failure(kind, refuses)
    assert (error.code, error.passing, made) == (code, passing, 1)
    assert KEY not in error.reason


async def test_silence_ends_at_its_limit() -> None:
    error, _ = await failure("openai", hangs)
    assert error.code == "timeout"
