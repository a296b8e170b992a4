"""Runs the embedding model."""

from __future__ import annotations

from collections.abc import Awaitable

from adapters.embedding import serve
from adapters.sentence_transformers import Engine
from ops.house import House


async def begin(house: House) -> Awaitable[None]:
    settings = house.settings
    engine = Engine(settings.embedding_model, dtype=settings.embedding_dtype, device=settings.embedding_device)
    return serve(house.nc, engine)
