"""The lists of models that servers give: a path and a reader for each kind."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from adapters.models.chat_server import ChatServer
from adapters.models.dify import DifyModels
from adapters.models.registry import Clients
from handlers.ports.models import ListedModel, Listing, ModelError

WITHIN_S = 15.0
"""Maximum wait for a list, in seconds."""

LONGEST_NAME = 255
"""Maximum length of the name of a model, in characters."""

LARGEST = 100_000_000
"""Largest number of tokens that is believed."""


class List(NamedTuple):
    """The list of one kind of server: its `path`, and how a model is `read`; a list is an array, or a JSON object with
    the array under the name `models`."""

    path: str
    models: str
    read: Callable[[dict[str, Any]], ListedModel]


class TenantListings:
    """As the port, by the clients of chat models."""

    def __init__(self, clients: Clients[ChatServer | DifyModels], within_s: float = WITHIN_S) -> None:
        self._clients = clients
        self._within_s = within_s

    async def get(self, tenant: str, provider: str) -> Mapping[str, Listing | ModelError]:
        kind, every = await self._clients.every(tenant, provider)
        clients = {each["name"]: client for each, client in every}
        answers = await asyncio.gather(*(self._ask(kind, client) for client in clients.values()))
        return dict(zip(clients, answers, strict=True))

    async def limits(self, tenant: str, provider: str) -> Mapping[str, int]:
        _, every = await self._clients.every(tenant, provider)
        return next((client.limits for _, client in every if client.limits), {})

    async def _ask(self, kind: str, client: ChatServer | DifyModels) -> Listing | ModelError:
        began = time.perf_counter()
        try:
            if isinstance(client, DifyModels):
                models = await client.listed()
            else:
                of = LISTS[kind]
                models = _read(of, await client.document(of.path, self._within_s), client.server)
        except ModelError as error:
            return error
        return Listing(client.server, models, round((time.perf_counter() - began) * 1000, 3))


def _read(of: List, body: bytes, where: str) -> Sequence[ListedModel]:
    """The models, each once. Raises: ModelError for another structure."""
    try:
        data = orjson.loads(body)
        entries = data if isinstance(data, list) else data[of.models] or []
        found = [of.read(entry) for entry in entries]
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise ModelError("server_error", f"{where} answers with something that is no list of models.") from None
    fit = [each for each in found if 0 < len(each.name) <= LONGEST_NAME and each.name.isprintable()]
    return list({each.name: each for each in fit}.values())


def _openai(entry: dict[str, Any]) -> ListedModel:
    """OpenAI, vLLM, llama.cpp, LM Studio, Groq, Mistral, OpenRouter and Together give different facts."""
    best, meta = entry.get("top_provider") or {}, entry.get("meta") or {}
    windows = *(entry.get(name) for name in _WINDOWS), best.get("context_length"), meta.get("n_ctx")
    outputs = entry.get("max_completion_tokens"), entry.get("max_output_tokens"), best.get("max_completion_tokens")
    name = str(entry["id"])
    return ListedModel(name, _TYPES.get(str(entry.get("type"))) or _type(name), _first(windows), _first(outputs))


_WINDOWS = ("max_model_len", "context_window", "context_length", "max_context_length")

_TYPES = {"chat": "chat", "llm": "chat", "vlm": "chat", "language": "chat"}
_TYPES |= dict.fromkeys(("embedding", "embeddings"), "embedding") | {"rerank": "rerank", "moderation": "moderation"}

_NAMED = {
    "embedding": re.compile(r"embed|\bbge-(?!reranker)|\be5-"),
    "rerank": re.compile(r"rerank"),
    "transcription": re.compile(r"whisper|transcribe"),
    "speech": re.compile(r"\btts\b"),
    "moderation": re.compile(r"moderation"),
}


def _type(name: str) -> str | None:
    """The type of a model by its name, where that tells."""
    return next((kind for kind, pattern in _NAMED.items() if pattern.search(name.lower())), None)


def _ollama(entry: dict[str, Any]) -> ListedModel:
    families = (entry.get("details") or {}).get("families") or ()
    name = str(entry.get("name") or entry["model"])
    return ListedModel(name, "embedding" if any("bert" in str(each) for each in families) else _type(name))


def _anthropic(entry: dict[str, Any]) -> ListedModel:
    window, output = entry.get("max_input_tokens"), entry.get("max_tokens")
    return ListedModel(str(entry["id"]), "chat", _first([window]), _first([output]))


def _gemini(entry: dict[str, Any]) -> ListedModel:
    does = entry.get("supportedGenerationMethods") or ()
    kind = "chat" if "generateContent" in does else "embedding" if "embedContent" in does else None
    window, output = entry.get("inputTokenLimit"), entry.get("outputTokenLimit")
    return ListedModel(str(entry["name"]).removeprefix("models/"), kind, _first([window]), _first([output]))


def _first(numbers: Sequence[object]) -> int | None:
    """The first that is a number of tokens."""
    return next((each for each in numbers if type(each) is int and 0 < each <= LARGEST), None)


LISTS = {
    "openai": List("/models", "data", _openai),
    "openai_responses": List("/models", "data", _openai),
    "ollama": List("/api/tags", "models", _ollama),
    "anthropic": List("/v1/models?limit=1000", "data", _anthropic),
    "gemini": List("/models?pageSize=1000", "models", _gemini),
}
