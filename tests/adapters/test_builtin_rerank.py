"""Hits in a better order by the built-in reranker, which workers serve on NATS, and the records of that."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from nats.aio.client import Client

from adapters.embedding.cross_encoder import CrossEncoderEngine
from adapters.embedding.rerank_service import serve
from domain.models.model_call import ModelCall
from tests.handlers.retrieval.test_rerank import BUILTIN, HITS, QUERY, Library
from tests.rerank_server import once_served


@pytest.fixture
async def served(nc: Client, lexical_model: str) -> AsyncIterator[str]:
    """The path of the built-in model, which is served."""
    service = asyncio.create_task(serve(nc, CrossEncoderEngine(lexical_model, device="cpu")))
    await once_served(nc, lexical_model)
    yield lexical_model
    service.cancel()
    with suppress(asyncio.CancelledError):
        await service


async def test_the_best_hits_are_put_into_the_order_of_the_models_scores(nc: Client, tenant: str, served: str) -> None:
    library = Library(nc, tenant, served)
    reranked = await library.rerank(library.cause, BUILTIN, QUERY, HITS)
    assert [each.id for each in reranked.hits] == ["valve", "weir", "cows"]
    assert reranked.hits[0].score > 0.8 > 0.2 > reranked.hits[1].score
    assert (reranked.code, reranked.reason) == (None, None)
    assert (await library.rerank(library.cause, BUILTIN, QUERY, [])).hits == []


async def test_the_call_is_recorded_with_the_scores(nc: Client, tenant: str, served: str) -> None:
    library = Library(nc, tenant, served)
    reranked = await library.rerank(library.cause, BUILTIN, QUERY, HITS)
    requested, completed = await library.recorded()
    assert (requested.kind, requested.provider, requested.model, requested.server) == (
        "rerank",
        "builtin",
        "lexical-2",
        "",
    )
    assert (requested.cause_noun, requested.cause_id, requested.attempt) == ("message", library.cause.id, 1)
    assert requested.request == {"query": QUERY, "segments": ["weir", "cows", "valve"]}
    assert isinstance(completed, ModelCall.Completed)
    scores = {each.id: each.score for each in reranked.hits}
    assert json.loads(completed.response) == [scores["weir"], scores["cows"], scores["valve"]]
    assert str(completed.response_model).startswith("lexical-2/torch/")
    assert (completed.usage["estimated"], completed.usage["completion_tokens"]) == (False, 0)
    assert completed.usage["prompt_tokens"] > 3 * 10
    assert completed.duration_ms > 0


async def test_no_worker_serves_the_built_in_one(nc: Client, tenant: str) -> None:
    library = Library(nc, tenant, "not/served")
    assert (await library.rerank(library.cause, BUILTIN, QUERY, HITS)).code == "unreachable"
    _, failed = await library.recorded()
    assert isinstance(failed, ModelCall.Failed)
