"""Reranks hits: a model that reads the question with each of them says how well it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from domain.chat.app import RerankSettings
from handlers.models.model_calls import ModelCalls
from handlers.ports.index import Hit
from handlers.ports.models import ModelError, Rerankers
from handlers.work.cause import Cause


@dataclass(frozen=True, slots=True)
class Reranked:
    """The hits that the reranker was given, by its scores, which are theirs now.

    Where it failed, `code` and `reason` say why, and all hits are as they were.
    """

    hits: list[Hit]
    code: str | None = None
    reason: str | None = None


class Rerank:
    def __init__(self, calls: ModelCalls, rerankers: Rerankers) -> None:
        self._calls = calls
        self._rerankers = rerankers

    async def __call__(self, cause: Cause, how: RerankSettings, query: str, hits: Sequence[Hit]) -> Reranked:
        """The best `top_n` of the hits, reranked by a call that is on record; equals stay in their order.

        Raises: Unavailable, when the call could not be put on record.
        """
        first = list(hits[: how["top_n"]])
        if not first:
            return Reranked([])
        try:
            reranker, model = await self._rerankers.get(cause.metadata.tenant, how["provider"], how["model"])
            texts = [text_of(hit) for hit in first]
            scores = await self._calls.rerank(
                cause, how["provider"], reranker, model, query, [hit.id for hit in first], texts
            )
        except ModelError as error:
            return Reranked(list(hits), error.code, error.reason)
        scored = [replace(hit, score=score) for hit, score in zip(first, scores, strict=True)]
        return Reranked(sorted(scored, key=lambda hit: -hit.score))


def text_of(hit: Hit) -> str:
    """A segment as the reranker reads it: under its heading, a question with its answer."""
    return "\n\n".join(filter(None, (hit.heading, hit.content, hit.answer)))
