"""Ports of chat models and rerankers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from domain.chat.app import ModelSettings


class ChatMessage(NamedTuple):
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What is asked of a chat model; `passages` are the retrieved texts that the system message also holds, for a model
    that reads them apart."""

    model: str
    messages: list[ChatMessage]
    max_tokens: int
    parameters: dict[str, Any] = field(default_factory=dict)
    passages: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ChatUsage:
    """Tokens as the server counts them: all of prompt and answer, and what of them it read from its cache, wrote into
    it, or spent on reasoning (None where it does not say); `raw` is what it sent, as JSON."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    raw: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer; all but its text comes with the last: the server's own id of the answer, and its own name
    of the model, as well."""

    text: str = ""
    finish_reason: str | None = None
    usage: ChatUsage | None = None
    response_id: str | None = None
    model: str | None = None


class ModelError(Exception):
    """A chat model that did not answer: `code` is one of `unreachable`, `timeout`, `server_error`, `broken_off`,
    `rate_limited`, `unauthorized`, `bad_request`, `context_length_exceeded`, `not_found`, `too_large`."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class ChatModel(Protocol):
    @property
    def server(self) -> str:
        """Where it answers, as `host:port`; empty for a model within the process."""
        ...

    def stream(self, request: ChatRequest) -> AsyncGenerator[Delta]:
        """The answer as it comes. Tries again by itself while nothing has arrived and the error may pass.

        Raises: ModelError.
        """
        ...


class ChatModels(Protocol):
    async def get(self, tenant: str, model: ModelSettings) -> ChatModel:
        """The client of a model; the provider's newest address and key are used.

        Raises: ModelError `not_found` when the provider is not registered, or was removed.
        """
        ...


@dataclass(frozen=True, slots=True)
class Reranking:
    """How well each text answers the query, in the order in which the texts were given: the higher, the better, and
    from 0 to 1 where the model gives probabilities. The rest is as in `Delta`."""

    scores: list[float]
    usage: ChatUsage | None = None
    response_id: str | None = None
    model: str | None = None


class Reranker(Protocol):
    """A model that reads a query and a text together."""

    @property
    def server(self) -> str:
        """Where it answers, as `host:port`; empty for one that workers serve."""
        ...

    async def rerank(self, model: str, query: str, texts: Sequence[str]) -> Reranking:
        """A finite score for every text; what does not fit into the model is cut. Nobody waits long for it: what is
        away is `unreachable`. Raises: ModelError.
        """
        ...


class Rerankers(Protocol):
    async def get(self, tenant: str, provider: str, model: str | None) -> tuple[Reranker, str]:
        """The reranker of a provider, and the name of its model; None is that of the built-in one.

        Raises: ModelError `not_found` when the provider is not registered, or has no such model.
        """
        ...
