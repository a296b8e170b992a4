"""Runs the embedding models, and the reranker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from adapters.embedding import rerank_service
from adapters.embedding.cross_encoder import CrossEncoderEngine
from adapters.embedding.engine import Engine
from adapters.embedding.service import serve
from ops.wiring import Wiring


async def begin(wiring: Wiring) -> Awaitable[object]:
    settings = wiring.settings
    engines = [
        Engine(
            model,
            dtype=settings.embedding_dtype,
            device=settings.embedding_device,
            backend=settings.embedding_backend,
        )
        for model in settings.all_embedding_models
    ]
    services = [serve(wiring.nc, engine) for engine in engines]
    if settings.rerank_model:
        reranker = CrossEncoderEngine(
            settings.rerank_model, dtype=settings.embedding_dtype, device=settings.embedding_device
        )
        services.append(rerank_service.serve(wiring.nc, reranker))
    return asyncio.gather(*services)
