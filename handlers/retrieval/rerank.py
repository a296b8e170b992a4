"""Reranks hits by a model that scores each of them with the question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from domain.chat.app import RerankSettings
from handlers.cause import Cause
from handlers.models.model_calls import ModelCalls
from handlers.ports.index import Entry, Hit
from handlers.ports.models import ModelError, Rerankers


@dataclass(frozen=True, slots=True)
class Reranked:
    """The hits that the reranker was given, best first, with its scores.

    On failure, `code` and `reason` are set and all hits are unchanged.
    """

    hits: list[Hit]
    code: str | None = None
    reason: str | None = None


class Rerank:
    def __init__(self, calls: ModelCalls, rerankers: Rerankers) -> None:
        self._calls = calls
        self._rerankers = rerankers

    async def __call__(self, cause: Cause, how: RerankSettings, query: str, hits: Sequence[Hit]) -> Reranked:
        """Rerank the best `top_n` of the hits by a recorded call; equals keep their order.

        Raises: Unavailable, when the call could not be recorded.
        """
        first = list(hits[: how["top_n"]])
        if not first:
            return Reranked([])
        try:
            reranker, model = await self._rerankers.get(cause.metadata.tenant, how["provider"], how["model"])
            texts = [text_of(hit.entry) for hit in first]
            scores = await self._calls.rerank(
                cause, how["provider"], reranker, model, query, [hit.id for hit in first], texts
            )
        except ModelError as error:
            return Reranked(list(hits), error.code, error.reason)
        scored = [replace(hit, score=score) for hit, score in zip(first, scores, strict=True)]
        return Reranked(sorted(scored, key=lambda hit: -hit.score))


def text_of(entry: Entry) -> str:
    """A segment as the reranker reads it: under its heading, a question with its answer."""
    return "\n\n".join(filter(None, (entry.heading, entry.content, entry.answer)))
