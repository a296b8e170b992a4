"""Embedding models behind a server of a provider."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import httpx2
import numpy as np
import orjson

from adapters.egress.client import Egress
from adapters.models.chunk import name_of
from adapters.models.gemini import Gemini
from adapters.models.ollama import KEEP_ALIVE, Ollama
from adapters.models.openai_compatible import azure_headers, deployed
from adapters.models.server import ModelServer, Patience
from adapters.models.token_usage import read_by
from handlers.ports.models import ChatUsage, Embeddings
from handlers.ports.outages import Outages

PATIENCE = Patience(first_token=60, total=300)

MOST_BYTES = 16 * 2**20
"""Maximum size of an answer, in bytes."""


class Wire(Protocol):
    """The wire format of a kind of server."""

    PATH: str

    def __init__(self, base_url: str) -> None: ...

    @property
    def base_url(self) -> str: ...

    def headers(self, key: str) -> Mapping[str, str]: ...

    def sent(self, model: str, texts: Sequence[str]) -> tuple[dict[str, Any], str]:
        """The body and the path of a request."""
        ...

    def read(self, answer: Mapping[str, Any]) -> tuple[list[Any], ChatUsage | None]:
        """The vectors in an answer, in the order of the texts. Raises: ValueError, TypeError, KeyError."""
        ...


class OpenAIEmbeddings:
    PATH = "/embeddings"

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url

    def headers(self, key: str) -> Mapping[str, str]:
        return azure_headers(self.base_url, key)

    def sent(self, model: str, texts: Sequence[str]) -> tuple[dict[str, Any], str]:
        body = {"model": model, "input": list(texts), "encoding_format": "float"}
        return body, deployed(self.base_url, model, self.PATH)

    def read(self, answer: Mapping[str, Any]) -> tuple[list[Any], ChatUsage | None]:
        by_index = {each.get("index", place): each["embedding"] for place, each in enumerate(answer["data"])}
        return [by_index[index] for index in range(len(answer["data"]))], read_by(dict(answer))


class OllamaEmbeddings:
    PATH = "/api/embed"

    def __init__(self, base_url: str) -> None:
        self.base_url = Ollama(base_url).base_url
        self.headers = Ollama(base_url).headers

    def sent(self, model: str, texts: Sequence[str]) -> tuple[dict[str, Any], str]:
        """Without `truncate: false`, a longer text is cut without an error."""
        return {"model": model, "input": list(texts), "truncate": False, "keep_alive": KEEP_ALIVE}, self.PATH

    def read(self, answer: Mapping[str, Any]) -> tuple[list[Any], ChatUsage | None]:
        counted = {"usage": {"prompt_tokens": answer.get("prompt_eval_count")}}
        return list(answer["embeddings"]), read_by(counted)


class GeminiEmbeddings:
    PATH = "/models"

    def __init__(self, base_url: str) -> None:
        self.base_url = Gemini(base_url).base_url
        self.headers = Gemini(base_url).headers

    def sent(self, model: str, texts: Sequence[str]) -> tuple[dict[str, Any], str]:
        name = f"models/{model.removeprefix('models/')}"
        requests = [{"model": name, "content": {"parts": [{"text": text}]}} for text in texts]
        return {"requests": requests}, f"/{name}:batchEmbedContents"

    def read(self, answer: Mapping[str, Any]) -> tuple[list[Any], ChatUsage | None]:
        counted = (answer.get("usageMetadata") or {}).get("promptTokenCount")
        return [each["values"] for each in answer["embeddings"]], read_by({"usage": {"prompt_tokens": counted}})


class EmbeddingApi:
    """The embedding models of one server."""

    def __init__(
        self,
        wire: Callable[[str], Wire],
        egress: Egress,
        tenant: str,
        base_url: str,
        key: str = "",
        patience: Patience = PATIENCE,
        outages: Outages | None = None,
    ) -> None:
        """Raises: ModelError `unreachable` when the base URL is invalid."""
        self._wire = wire(base_url)
        headers = self._wire.headers(key)
        self._at = ModelServer(egress, tenant, self._wire.base_url, key, patience, self._wire.PATH, outages, headers)
        self.server, self.close = self._at.name, self._at.close
        self.rest = self._at.rest

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """As the port."""
        body, path = self._wire.sent(model, texts)

        def send() -> Awaitable[httpx2.Response]:
            return self._at.post(body, path)

        return await self._at.ask(send, lambda answer: self._read(answer, len(texts)), MOST_BYTES)

    def _read(self, answer: str, count: int) -> Embeddings:
        """Raises: ValueError for an answer in another form, or without a vector for each text."""
        said = orjson.loads(answer)
        try:
            rows, usage = self._wire.read(said)
            vectors = np.array(rows, dtype=np.float64)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise ValueError("an answer without vectors.") from None
        if vectors.ndim != 2 or len(vectors) != count or not vectors.shape[1] or not np.isfinite(vectors).all():
            raise ValueError(f"vectors of shape {vectors.shape} for {count} texts.")
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit = (vectors / np.where(lengths == 0, 1, lengths)).astype(np.float32)
        return Embeddings(unit, usage, name_of(said.get("model")))
