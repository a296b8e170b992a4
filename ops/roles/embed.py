"""Runs the embedding models."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from adapters.embedding import serve
from adapters.sentence_transformers import Engine
from ops.house import House


async def begin(house: House) -> Awaitable[object]:
    settings = house.settings
    engines = [
        Engine(model, dtype=settings.embedding_dtype, device=settings.embedding_device)
        for model in settings.all_embedding_models
    ]
    return asyncio.gather(*(serve(house.nc, engine) for engine in engines))
