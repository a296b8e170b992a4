"""Runs the embedding models, and the reranker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from adapters import reranking
from adapters.cross_encoder import CrossEncoderEngine
from adapters.embedding import serve
from adapters.sentence_transformers import Engine
from ops.house import House


async def begin(house: House) -> Awaitable[object]:
    settings = house.settings
    engines = [
        Engine(
            model,
            dtype=settings.embedding_dtype,
            device=settings.embedding_device,
            backend=settings.embedding_backend,
        )
        for model in settings.all_embedding_models
    ]
    services = [serve(house.nc, engine) for engine in engines]
    if settings.rerank_model:
        reranker = CrossEncoderEngine(
            settings.rerank_model, dtype=settings.embedding_dtype, device=settings.embedding_device
        )
        services.append(reranking.serve(house.nc, reranker))
    return asyncio.gather(*services)
