"""Reranks hits by a model that scores each of them with the question."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from domain.chat.app import RerankSettings
from handlers.cause import Cause
from handlers.models.choose import Choose
from handlers.models.model_calls import ModelCalls
from handlers.models.prompt import likely
from handlers.ports.index import Entry, Hit
from handlers.ports.models import ModelError, Reranker

LIMIT_S = 20.0
"""Time limit of all tries, in seconds: a user waits for the answer, which can do without reranking."""


@dataclass(frozen=True, slots=True)
class Reranked:
    """The hits that the reranker was given, best first, with its scores.

    On failure, `code` and `reason` are set and all hits are unchanged.
    """

    hits: list[Hit]
    code: str | None = None
    reason: str | None = None


class Rerank:
    def __init__(
        self, calls: ModelCalls, choose: Choose[Reranker], builtin: str = "", limit_s: float = LIMIT_S
    ) -> None:
        """`builtin` is the name of the built-in model, empty when there is none."""
        self._calls = calls
        self._choose = choose
        self._builtin = builtin
        self._limit_s = limit_s

    async def __call__(self, cause: Cause, how: RerankSettings, query: str, hits: Sequence[Hit]) -> Reranked:
        """Rerank the best `top_n` of the hits by recorded calls; equals keep their order.

        Raises: Unavailable, when the call could not be recorded.
        """
        first = list(hits[: how["top_n"]])
        if not first:
            return Reranked([])
        try:
            texts = [text_of(hit.entry) for hit in first]
            tokens = len(texts) * likely(query) + sum(map(likely, texts))
            course = self._choose.of(cause.metadata.tenant, how["provider"], how["model"] or self._builtin, tokens)
            async with asyncio.timeout(self._limit_s):
                scores = await self._calls.rerank(cause, course, query, [hit.id for hit in first], texts)
        except ModelError as error:
            return Reranked(list(hits), error.code, error.reason)
        except TimeoutError:
            return Reranked(list(hits), "timeout", f"Reranking took longer than {self._limit_s:g} s.")
        scored = [replace(hit, score=score) for hit, score in zip(first, scores, strict=True)]
        return Reranked(sorted(scored, key=lambda hit: -hit.score))


def text_of(entry: Entry) -> str:
    """A segment as the reranker reads it: under its heading, a question with its answer."""
    return "\n\n".join(filter(None, (entry.heading, entry.content, entry.answer)))
