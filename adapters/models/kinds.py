"""Kinds of servers of models, by the protocol that they speak."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from adapters.models.anthropic import Anthropic
from adapters.models.audio_api import SpeechApi, TranscriptionApi
from adapters.models.chat_server import ChatServer
from adapters.models.embedding_api import EmbeddingApi, GeminiEmbeddings, OllamaEmbeddings, OpenAIEmbeddings
from adapters.models.filter_api import FilterApi
from adapters.models.gemini import Gemini
from adapters.models.ollama import Ollama
from adapters.models.openai_compatible import ChatCompletions
from adapters.models.openai_responses import Responses
from adapters.models.rerank_api import RerankApi

KINDS: dict[str, Callable[..., ChatServer]] = {
    "openai": partial(ChatServer, ChatCompletions),
    "openai_responses": partial(ChatServer, Responses),
    "ollama": partial(ChatServer, Ollama),
    "anthropic": partial(ChatServer, Anthropic),
    "gemini": partial(ChatServer, Gemini),
}
"""Clients of chat models. Each is made of (egress, tenant, base URL, key, patience, outages); the last three have
defaults. So are the clients below."""

EMBEDDERS: dict[str, Callable[..., EmbeddingApi]] = {
    "openai": partial(EmbeddingApi, OpenAIEmbeddings),
    "openai_responses": partial(EmbeddingApi, OpenAIEmbeddings),
    "ollama": partial(EmbeddingApi, OllamaEmbeddings),
    "gemini": partial(EmbeddingApi, GeminiEmbeddings),
}
"""Clients of embedding models; Anthropic has none."""

TRANSCRIBERS: dict[str, Callable[..., TranscriptionApi]] = {
    "openai": TranscriptionApi,
    "openai_responses": TranscriptionApi,
}
"""Clients of models that turn speech into text."""

RERANKERS: dict[str, Callable[..., RerankApi]] = dict.fromkeys(KINDS, RerankApi)
"""Clients of rerankers, which have no protocol of their own: a server of any kind may have them."""

FILTERS: dict[str, Callable[..., FilterApi]] = dict.fromkeys(KINDS, FilterApi)
"""Clients of filters, likewise."""

SPEAKERS: dict[str, Callable[..., SpeechApi]] = {"openai": SpeechApi, "openai_responses": SpeechApi}
"""Clients of models that turn text into speech."""
