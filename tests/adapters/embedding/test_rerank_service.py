"""The built-in reranker, and its service: requests that are refused, wait, or lose their server."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from adapters.embedding.cross_encoder import CrossEncoderEngine, Scored
from adapters.embedding.rerank_service import NatsReranker, rerank_subject, serve
from handlers.ports.models import ModelError
from tests.rerank_server import once_served

QUERY = "Who built the weir?"
TEXTS = ["The weir was built by Agnes.", "Cows graze."]


class Held(CrossEncoderEngine):
    """An engine that waits for a signal, and fails on request."""

    def __init__(self, name: str, error: Exception | None = None) -> None:
        self.name = name
        self.identity = f"{name}/held"
        self.error = error
        self.go = threading.Event()
        self.began = threading.Event()

    def score(self, query: str, texts: Sequence[str]) -> Scored:
        self.began.set()
        assert self.go.wait(10)
        if self.error:
            raise self.error
        return Scored([1.0] * len(texts), 7)


@pytest.fixture
def engine() -> Iterator[Held]:
    """A name of its own for each test, so that no service of another answers."""
    held = Held(f"model-{uuid4()}")
    yield held
    held.go.set()


@pytest.fixture
async def nc(nats_url: str) -> AsyncIterator[Client]:
    nc = await nats.connect(nats_url)
    yield nc
    await nc.close()


@asynccontextmanager
async def serving(
    nats_url: str, engine: CrossEncoderEngine, *, waiting: int = 100
) -> AsyncIterator[asyncio.Task[None]]:
    nc = await nats.connect(nats_url)
    service = asyncio.create_task(serve(nc, engine, waiting=waiting))
    await once_served(nc, engine.name)
    yield service
    service.cancel()
    with suppress(asyncio.CancelledError):
        await service
    await nc.close()


async def refusal(reranker: NatsReranker, texts: Sequence[str] = TEXTS) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await reranker.rerank("", QUERY, texts)
    return caught.value


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"query": 7, "texts": []}', b'{"query": "", "texts": [7]}', b"[]", b"\xff"]
)
async def test_a_broken_request_is_refused(nats_url: str, nc: Client, engine: Held, body: bytes) -> None:
    async with serving(nats_url, engine):
        reply = await nc.request(rerank_subject(engine.name), body)
        assert (reply.headers or {})["Headrace-Status"] == "bad_request"


async def test_without_a_service_it_is_unreachable_at_once(nc: Client, engine: Held) -> None:
    assert (await refusal(NatsReranker(nc, engine.name))).code == "unreachable"


async def test_a_service_that_is_too_slow_is_not_waited_for(nats_url: str, nc: Client, engine: Held) -> None:
    async with serving(nats_url, engine):
        assert (await refusal(NatsReranker(nc, engine.name, patience=0.2))).code == "timeout"
        engine.go.set()


async def test_a_full_queue_refuses_requests(nats_url: str, nc: Client, engine: Held) -> None:
    reranker = NatsReranker(nc, engine.name)
    async with serving(nats_url, engine, waiting=3):
        waiting = asyncio.create_task(reranker.rerank("", QUERY, TEXTS * 4))
        await asyncio.to_thread(engine.began.wait, 10)
        assert (await refusal(reranker)).code == "rate_limited"
        engine.go.set()
        assert (await waiting).scores == [1.0] * 8
        assert (await reranker.rerank("", QUERY, TEXTS)).model == engine.identity


async def test_work_that_fails_is_an_error_and_no_more(nats_url: str, nc: Client, engine: Held) -> None:
    engine.error = MemoryError("no room")
    engine.go.set()
    async with serving(nats_url, engine):
        error = await refusal(NatsReranker(nc, engine.name))
        assert (error.code, error.reason) == ("server_error", "MemoryError: no room")
        engine.error = None
        assert (await NatsReranker(nc, engine.name).rerank("", QUERY, TEXTS)).scores == [1.0, 1.0]


async def test_scores_that_are_no_numbers_are_no_answer(nats_url: str, nc: Client, engine: Held) -> None:
    async def lies(message: Msg) -> None:
        await nc.publish(
            message.reply, b'{"scores": [NaN, 1], "tokens": 1, "identity": "x"}', headers={"Headrace-Status": "ok"}
        )

    await nc.subscribe(rerank_subject(engine.name), cb=lies)
    assert (await refusal(NatsReranker(nc, engine.name))).code == "server_error"


async def test_a_service_that_stops_tells_those_who_wait(nats_url: str, nc: Client, engine: Held) -> None:
    async with serving(nats_url, engine) as service:
        waiting = asyncio.create_task(refusal(NatsReranker(nc, engine.name)))
        await asyncio.to_thread(engine.began.wait, 10)
        service.cancel()
        assert (await waiting).code == "rate_limited"
        engine.go.set()


def test_batches_and_number_types_change_little(lexical_model: str) -> None:
    texts = [f"{TEXTS[number % 2]} {'It was long ago. ' * (number % 40)}" for number in range(40)]
    exact = CrossEncoderEngine(lexical_model, dtype="float32", device="cpu", batch=100_000).score(QUERY, texts)
    small = CrossEncoderEngine(lexical_model, dtype="float32", device="cpu", batch=64).score(QUERY, texts)
    assert small.scores == pytest.approx(exact.scores, abs=1e-5)
    assert small.tokens == exact.tokens > 40 * 10
    rough = CrossEncoderEngine(lexical_model, dtype="bfloat16", device="cpu").score(QUERY, texts)
    assert rough.scores == pytest.approx(exact.scores, abs=0.03)
    assert CrossEncoderEngine(lexical_model, device="cpu").score(QUERY, []) == Scored([], 0)


def test_a_model_of_several_classes_is_none(lexical_model: str, tmp_path: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    shutil.copytree(lexical_model, tmp_path / "classes", ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    sizes: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 8, "num_labels": 3}
    config = BertConfig(**sizes, num_hidden_layers=1, num_attention_heads=1, vocab_size=30_522)
    BertForSequenceClassification(config).save_pretrained(str(tmp_path / "classes"))
    with pytest.raises(ValueError, match="3 numbers"):
        CrossEncoderEngine(str(tmp_path / "classes"), device="cpu")
    with pytest.raises(FileNotFoundError):
        CrossEncoderEngine(str(tmp_path / "nowhere"))
