"""The embedding models in use: their tokenizers and the services that run them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Self

from nats.aio.client import Client

from adapters.embedding.client import NatsEmbedder
from adapters.model_files import model_name
from adapters.sandbox.child import Sandbox
from adapters.segmenting.contained import ContainedSegmenter
from handlers.ports.documents import Embedding, Segmenter
from handlers.ports.log import Unavailable


class NatsEmbeddingModels:
    """Models by folder or hub name; the first is the default. Use it as a context manager."""

    def __init__(self, nc: Client, models: Sequence[str], sandbox: Sandbox) -> None:
        self._nc = nc
        self._sandbox = sandbox
        self._models = {model_name(model): model for model in models}
        self.default = model_name(models[0])
        self._open: dict[str, tuple[ContainedSegmenter, NatsEmbedder]] = {}
        self._close = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for name, model in self._models.items():
            segmenter = await self._close.enter_async_context(ContainedSegmenter(self._sandbox, model))
            embedder = NatsEmbedder(self._nc, model)
            self._close.push_async_callback(embedder.close)
            self._open[name] = segmenter, embedder
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close.aclose()

    @property
    def segmenter(self) -> Segmenter:
        segmenter, _ = self._open[self.default]
        return segmenter

    async def get(self, name: str) -> Embedding:
        if name not in self._open:
            raise Unavailable(f"The embedding model {name} is not among those that the settings name.")
        segmenter, embedder = self._open[name]
        await embedder.known()
        return Embedding(segmenter, embedder)
