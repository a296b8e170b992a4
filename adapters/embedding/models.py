"""The embedding models in use: their tokenizers and the services that run them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Self

from nats.aio.client import Client

from adapters.embedding.client import NatsEmbedder
from adapters.model_files import model_name
from adapters.segmenting.segmenter import TokenSegmenter
from handlers.ports.documents import Embedding
from handlers.ports.log import Unavailable


class NatsEmbeddingModels:
    """Models by folder or hub name; the first is the default. Use it as a context manager."""

    def __init__(self, nc: Client, models: Sequence[str]) -> None:
        self._nc = nc
        self._models = {model_name(model): model for model in models}
        self.default = model_name(models[0])
        self._open: dict[str, tuple[TokenSegmenter, NatsEmbedder]] = {}

    async def __aenter__(self) -> Self:
        for name, model in self._models.items():
            self._open[name] = TokenSegmenter(model), NatsEmbedder(self._nc, model)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(embedder.close() for _, embedder in self._open.values()))

    async def get(self, name: str) -> Embedding:
        if name not in self._open:
            raise Unavailable(f"The embedding model {name} is not among those that the settings name.")
        segmenter, embedder = self._open[name]
        await embedder.known()
        return Embedding(segmenter, embedder)
