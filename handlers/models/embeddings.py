"""Embedding models, of the workers and of providers, and their recorded calls."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Protocol, TypeAlias

from domain.embedding import EmbeddingModel, of_provider
from domain.knowledge.segments import Segment
from handlers.cause import Cause
from handlers.models.choose import Choose, Way
from handlers.models.filters import Texts
from handlers.models.model_calls import ModelCalls, Recorded, most_tokens
from handlers.models.prompt import likely
from handlers.ports.documents import Embedder, EmbeddingModels, Segmenter, Vectors
from handlers.ports.index import changed
from handlers.ports.models import ChatUsage, ModelError, RemoteEmbedder

Input: TypeAlias = "str | Sequence[int]"
"""A text as a model takes it: its characters, or its token ids."""

BATCH = 32
"""Maximum number of texts in a request to a provider: servers of text-embeddings-inference take no more by default."""

LONGEST = 2_000
"""Maximum number of characters of a text that a provider embeds, as a model of the workers reads 254 tokens."""

PROBE = "dimension"
"""The text that is embedded to learn the length of a model's vectors."""

LATER = frozenset({"provider_unavailable", "rate_limited", "overloaded"})
"""Codes of errors that end by themselves, besides those that are worth another try at once."""

PATIENT = 30
"""Number of attempts at a document or an index after which an error that might end by itself fails it."""

PATIENCE = timedelta(hours=1)
"""Age of an edit or an annotation, likewise."""


def is_later(error: ModelError) -> bool:
    """True if the model may answer a later attempt."""
    return error.passing or error.code in LATER


def waits(error: ModelError, since: datetime) -> bool:
    """True if a small piece of work, begun at that time, waits for the model."""
    return is_later(error) and datetime.now(UTC) - since < PATIENCE


class Embedding(Protocol):
    """An embedding model, ready for use."""

    @property
    def segmenter(self) -> Segmenter:
        """Splits texts for it."""
        ...

    @property
    def identity(self) -> str:
        """Vectors of different identities are not comparable."""
        ...

    def input(self, text: str) -> Input: ...

    def inputs(self, segments: Sequence[Segment], model: str) -> Sequence[Input]:
        """The texts of segments that were split for `model`."""
        ...

    def knows(self, text: str) -> float:
        """The share of a query that the model knows, 0 to 1: the vector of an unknown one says nothing."""
        ...

    async def dimension(self, cause: Cause, step: str) -> int:
        """The length of its vectors, by a recorded call where it must be asked for. Raises: ModelError, Unavailable."""
        ...

    async def embed(
        self, cause: Cause, step: str, inputs: Sequence[Input], *, urgent: bool = False
    ) -> tuple[Vectors, Coroutine[Any, Any, None]]:
        """Return the vectors, and a coroutine that records the end of the call: await it before the work that it serves
        ends.

        Raises: ModelError, of a provider; Unavailable.
        """
        ...


@dataclass(frozen=True, slots=True)
class OfWorkers:
    calls: ModelCalls
    segmenter: Segmenter
    embedder: Embedder

    @property
    def identity(self) -> str:
        return self.embedder.identity

    def input(self, text: str) -> Input:
        return self.segmenter.tokenize(text)

    def inputs(self, segments: Sequence[Segment], model: str) -> Sequence[Input]:
        """Segments for another model are tokenized again, and cut at this one's longest input."""
        if model == self.segmenter.model:
            return [segment.token_ids for segment in segments]
        return [self.segmenter.tokenize(segment.content) for segment in segments]

    def knows(self, text: str) -> float:
        return self.segmenter.known(text)

    async def dimension(self, cause: Cause, step: str) -> int:
        return self.embedder.dimension

    async def embed(
        self, cause: Cause, step: str, inputs: Sequence[Input], *, urgent: bool = False
    ) -> tuple[Vectors, Coroutine[Any, Any, None]]:
        token_ids = [each for each in inputs if not isinstance(each, str)]
        return await self.calls.embed(cause, step, self.embedder, token_ids, urgent=urgent)


@dataclass(frozen=True, slots=True)
class OfProvider:
    """A model of a provider, for which texts are split as for the default one of the workers."""

    calls: ModelCalls
    segmenter: Segmenter
    tenant: str
    chosen: EmbeddingModel
    choose: Choose[RemoteEmbedder]

    @property
    def identity(self) -> str:
        return f"{self.chosen['provider']}/{self.chosen['model']}"

    def input(self, text: str) -> Input:
        return text[:LONGEST]

    def inputs(self, segments: Sequence[Segment], model: str) -> Sequence[Input]:
        return [segment.content[:LONGEST] for segment in segments]

    def knows(self, text: str) -> float:
        return 1.0

    async def dimension(self, cause: Cause, step: str) -> int:
        return int((await self._embed(cause, step, [PROBE])).shape[1])

    async def embed(
        self, cause: Cause, step: str, inputs: Sequence[Input], *, urgent: bool = False
    ) -> tuple[Vectors, Coroutine[Any, Any, None]]:
        return await self._embed(cause, step, [str(each) for each in inputs]), asyncio.sleep(0)

    async def _embed(self, cause: Cause, step: str, texts: Sequence[str]) -> Vectors:
        """By as many requests as are needed, whose ends are recorded when this returns."""
        import numpy as np  # most roles hold no vectors

        numbers = count(1)
        batches = [texts[first : first + BATCH] for first in range(0, len(texts), BATCH)]
        found = [await self._request(cause, step, batch, numbers) for batch in batches]
        for vectors in found:
            if vectors.shape[1] != found[0].shape[1]:
                raise changed(self.identity, found[0].shape[1], vectors.shape[1])
        return np.concatenate(found)

    async def _request(self, cause: Cause, step: str, texts: Sequence[str], numbers: Iterator[int]) -> Vectors:
        tokens = sum(map(likely, texts))

        async def send(way: Way[RemoteEmbedder], call: Recorded, given: Texts) -> Vectors:
            made = await way.client.embed(way.model, given["texts"])
            call.usage, call.estimated = made.usage or ChatUsage(tokens, 0), made.usage is None
            call.response_model = made.model
            return made.vectors

        return await self.calls.tried(
            cause,
            step,
            self.choose.of(self.tenant, self.chosen["provider"], self.chosen["model"], tokens),
            send,
            kind="embedding",
            texts={"texts": list(texts)},
            request=lambda _: {"texts": len(texts), "tokens": tokens},
            most=sum(map(most_tokens, texts)),
            numbers=numbers,
        )


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The embedding models by their full names: those of the workers, and those of providers."""

    calls: ModelCalls
    models: EmbeddingModels
    choose: Choose[RemoteEmbedder]

    @property
    def default(self) -> str:
        """The model of the workers that counts where none was chosen."""
        return self.models.default

    @property
    def segmenter(self) -> Segmenter:
        """The one of the default model."""
        return self.models.segmenter

    async def get(self, name: str) -> Embedding:
        """The model of this full name. Raises: Unavailable when it is one of workers and none runs it."""
        if found := of_provider(name):
            return OfProvider(self.calls, self.segmenter, *found, self.choose)
        return OfWorkers(self.calls, *await self.models.get(name))
