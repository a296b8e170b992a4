from __future__ import annotations

from typing import Any

import pytest

from adapters.egress.client import Egress
from adapters.models.limits import limits
from adapters.models.listing import TenantListings
from adapters.models.registry import TenantModels
from domain.models.provider import Provider
from handlers.ports.models import ListedModel, Listing, ModelError
from tests.chat_servers import LOOPBACK, Behaviour, Exchange, faulty_server, hangs, in_clear, provider


async def listed(
    behaviour: Behaviour, kind: str = "openai", *keys: str, ending: str = "", within_s: float = 5.0
) -> tuple[dict[str, Listing | ModelError], list[Exchange], str]:
    """The lists of a server for each key, the requests that it got, and its address."""
    async with faulty_server(behaviour) as server:

        async def registered(tenant: str, name: str) -> Provider:
            return provider(server.url.removesuffix("/v1") + ending, *keys, kind=kind)

        models = TenantModels(registered, in_clear, LOOPBACK)
        found = await TenantListings(models.clients, within_s).get("acme", "lab")
        await models.close()
        return dict(found), server.requests, server.url.removeprefix("http://").removesuffix("/v1")


def answers(body: object, status: int = 200, **headers: str) -> Behaviour:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(status, body, {name.replace("_", "-"): value for name, value in headers.items()})

    return answer


OPENAI = {
    "data": [
        {"id": "gpt-small", "object": "model"},
        {"id": "served-by-vllm", "max_model_len": 16_384},
        {"id": "at-openrouter", "context_length": 128_000, "top_provider": {"max_completion_tokens": 8192}},
        {"id": "at-groq", "context_window": 32_768, "max_completion_tokens": 4096},
        {"id": "llama.gguf", "meta": {"n_ctx_train": 8192, "n_ctx": 2048}},
        {"id": "text-embedding-3-small"},
        {"id": "bge-reranker-v2", "type": "rerank"},
        {"id": "whisper-1", "context_window": True},
        {"id": "tts-1", "context_window": -1},
        {"id": "gpt-small"},
        {"id": "x" * 300},
    ]
}

KINDS: list[tuple[str, str, str, dict[str, str], Any, list[ListedModel]]] = [
    (
        "openai",
        "/v1",
        "/v1/models",
        {"authorization": "Bearer key"},
        OPENAI,
        [
            ListedModel("gpt-small"),
            ListedModel("served-by-vllm", None, 16_384),
            ListedModel("at-openrouter", None, 128_000, 8192),
            ListedModel("at-groq", None, 32_768, 4096),
            ListedModel("llama.gguf", None, 2048),
            ListedModel("text-embedding-3-small", "embedding"),
            ListedModel("bge-reranker-v2", "rerank"),
            ListedModel("whisper-1", "transcription"),
            ListedModel("tts-1", "speech"),
        ],
    ),
    (
        "openai",
        "/openai/v1?api-version=preview",
        "/openai/v1/models?api-version=preview",
        {"api-key": "key"},
        {"data": None},
        [],
    ),
    (
        "openai",
        "/v1/chat/completions",
        "/v1/models",
        {},
        [{"id": "at-together", "type": "chat"}],
        [ListedModel("at-together", "chat")],
    ),
    ("openai_responses", "/v1", "/v1/models", {}, {"data": []}, []),
    (
        "ollama",
        "",
        "/api/tags",
        {},
        {"models": [{"name": "qwen3:8b"}, {"name": "minilm", "details": {"families": ["bert"]}}]},
        [ListedModel("qwen3:8b"), ListedModel("minilm", "embedding")],
    ),
    ("ollama", "/v1", "/api/tags", {}, {"models": []}, []),
    (
        "anthropic",
        "/v1",
        "/v1/models?limit=1000",
        {"x-api-key": "key", "anthropic-version": "2023-06-01"},
        {"data": [{"id": "claude", "max_input_tokens": 200_000, "max_tokens": 64_000}]},
        [ListedModel("claude", "chat", 200_000, 64_000)],
    ),
    (
        "gemini",
        "",
        "/v1beta/models?pageSize=1000",
        {"x-goog-api-key": "key"},
        {
            "models": [
                {
                    "name": "models/flash",
                    "inputTokenLimit": 1_000_000,
                    "outputTokenLimit": 8192,
                    "supportedGenerationMethods": ["generateContent"],
                },
                {"name": "models/embed", "supportedGenerationMethods": ["embedContent"]},
            ]
        },
        [ListedModel("flash", "chat", 1_000_000, 8192), ListedModel("embed", "embedding")],
    ),
]


@pytest.mark.parametrize(("kind", "ending", "target", "headers", "body", "models"), KINDS)
async def test_each_kind_lists_its_models(
    kind: str, ending: str, target: str, headers: dict[str, str], body: Any, models: list[ListedModel]
) -> None:
    found, [request], address = await listed(answers(body), kind, "key", ending=ending)
    listing = found["k0"]
    assert isinstance(listing, Listing)
    assert listing.models == models
    assert listing.server == address
    assert request.target == target
    assert {name: request.headers.get(name) for name in headers} == headers


async def test_a_server_without_a_key_gets_none() -> None:
    found, [request], _ = await listed(answers({"data": []}), ending="/v1")
    assert isinstance(found[""], Listing)
    assert "authorization" not in request.headers


async def test_each_credential_is_tried() -> None:
    async def refuses_one(exchange: Exchange) -> None:
        bad = exchange.headers["authorization"] == "Bearer bad"
        await exchange.answer(401 if bad else 200, {"data": [{"id": "small"}], "error": "bad"})

    found, _, _ = await listed(refuses_one, "openai", "bad", "good")
    refused, listing = found["k0"], found["k1"]
    assert isinstance(refused, ModelError)
    assert refused.code == "unauthorized"
    assert "bad" not in refused.reason
    assert isinstance(listing, Listing)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        *((401, "unauthorized"), (403, "unauthorized"), (402, "payment_required"), (404, "not_found")),
        *((429, "rate_limited"), (500, "server_error"), (503, "server_error"), (400, "bad_request")),
        (302, "bad_request"),
    ],
)
async def test_a_refusal_is_an_error_that_never_repeats_the_key(status: int, code: str) -> None:
    found, _, _ = await listed(answers({"error": "not sk-0123456789"}, status), "openai", "sk-0123456789")
    error = found["k0"]
    assert isinstance(error, ModelError)
    assert error.code == code
    assert "0123456789" not in error.reason
    assert str(status) in error.reason


@pytest.mark.parametrize("body", ["<html>", "[1]", '{"models": []}', '{"data": [{}]}', '{"data": 7}', "null"])
async def test_anything_else_is_no_list(body: str) -> None:
    found, _, _ = await listed(answers(body))
    error = found[""]
    assert isinstance(error, ModelError)
    assert error.code == "server_error"


async def test_silence_ends() -> None:
    found, _, _ = await listed(hangs, within_s=0.05)
    error = found[""]
    assert isinstance(error, ModelError)
    assert error.code == "timeout"


async def test_no_address_is_called_that_may_not_be() -> None:
    async def registered(tenant: str, name: str) -> Provider:
        return provider("http://127.0.0.1:9/v1", "key")

    models = TenantModels(registered, in_clear, Egress())
    found = await TenantListings(models.clients).get("acme", "lab")
    error = found["k0"]
    assert isinstance(error, ModelError)
    assert error.code == "unreachable"


async def test_a_provider_that_is_not_registered_has_no_list() -> None:
    async def registered(tenant: str, name: str) -> None:
        return None

    with pytest.raises(ModelError) as caught:
        await TenantListings(TenantModels(registered, in_clear, LOOPBACK).clients).get("acme", "lab")
    assert caught.value.code == "not_found"


async def test_the_limits_of_a_key_are_known_after_an_answer() -> None:
    async with faulty_server(answers({"data": []}, x_ratelimit_limit_requests="600")) as server:

        async def registered(tenant: str, name: str) -> Provider:
            return provider(server.url, "key")

        models = TenantModels(registered, in_clear, LOOPBACK)
        listings = TenantListings(models.clients)
        assert await listings.limits("acme", "lab") == {}
        await listings.get("acme", "lab")
        assert await listings.limits("acme", "lab") == {"requests_per_minute": 600}
        await models.close()


def test_limits_are_read_from_headers() -> None:
    headers = {"x-ratelimit-limit-requests": "600", "x-ratelimit-limit-tokens": "many"}
    assert limits(headers) == {"requests_per_minute": 600}
    assert limits({"anthropic-ratelimit-input-tokens-limit": "50000"}) == {"input_tokens_per_minute": 50_000}
    assert limits({}) == {}
