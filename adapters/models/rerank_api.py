"""Rerankers behind a server with `POST /rerank`: in the form of Jina, Cohere, vLLM and Infinity, or of TEI."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Sequence
from typing import Any

import httpx2
import orjson

from adapters.egress.client import Egress
from adapters.models.chunk import name_of
from adapters.models.faults import Fault
from adapters.models.server import ModelServer, Patience
from adapters.models.token_usage import read_by
from handlers.ports.models import Reranking
from handlers.ports.outages import Outages

RERANK = "/rerank"

PATIENCE = Patience(first_token=10)
"""A short limit: a user waits for the answer, which can do without reranking."""

MOST_BYTES = 4 * 2**20
"""Maximum size of an answer, in bytes: servers may repeat the texts in it."""


class RerankApi:
    """The rerankers of one server. It learns if the server takes `texts` (as TEI) instead of `documents`."""

    def __init__(
        self,
        egress: Egress,
        tenant: str,
        base_url: str,
        key: str = "",
        patience: Patience = PATIENCE,
        outages: Outages | None = None,
    ) -> None:
        """Raises: ModelError `unreachable` when the base URL is invalid."""
        self._at = ModelServer(egress, tenant, base_url, key, patience, RERANK, outages)
        self.server, self.close = self._at.name, self._at.close
        self.rest = self._at.rest
        self._patience = patience
        self._takes_texts = False

    async def rerank(self, model: str, query: str, texts: Sequence[str]) -> Reranking:
        body: dict[str, Any] = {}

        def send() -> Awaitable[httpx2.Response]:
            nonlocal body
            body = self._body(model, query, texts)
            return self._at.post(body)

        return await self._at.ask(
            send, lambda answer: read(answer, len(texts)), MOST_BYTES, lambda fault: self._learns(body, fault)
        )

    def _body(self, model: str, query: str, texts: Sequence[str]) -> dict[str, Any]:
        if self._takes_texts:
            return {"query": query, "texts": list(texts), "truncate": True}
        return {"model": model, "query": query, "documents": list(texts), "top_n": len(texts)}

    def _learns(self, body: dict[str, Any], fault: Fault) -> bool:
        """True if the server requires `texts`, which it gets from now on."""
        asks = "texts" not in body and fault.code == "bad_request" and re.search(r"missing field .?texts", fault.said)
        self._takes_texts = self._takes_texts or bool(asks)
        return bool(asks)


def read(body: str, count: int) -> Reranking:
    """The scores of `count` texts in a server's answer. Raises: ValueError when it has another form or lacks one."""
    answer = orjson.loads(body)
    said = answer if isinstance(answer, dict) else {}
    results = answer if isinstance(answer, list) else said.get("results")
    if not isinstance(results, list):
        raise ValueError("an answer without results.")
    scores: dict[int, float] = {}
    for result in results:
        index, score = _scored(result)
        if not 0 <= index < count or index in scores:
            raise ValueError(f"a result with index {index}, of {count} texts.")
        scores[index] = score
    if len(scores) != count:
        raise ValueError(f"results for {len(scores)} of {count} texts.")
    return Reranking(
        scores=[scores[index] for index in range(count)],
        usage=read_by(said),
        response_id=name_of(said.get("id")),
        model=name_of(said.get("model")),
    )


def _scored(result: object) -> tuple[int, float]:
    found = result if isinstance(result, dict) else {}
    index, score = found.get("index"), found.get("relevance_score", found.get("score"))
    if isinstance(index, bool) or not isinstance(index, int):
        raise ValueError("a result without an index.")
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        raise ValueError(f"a result without a score, at index {index}.")
    return index, float(score)
