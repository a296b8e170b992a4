"""Kinds of servers of chat models, by the protocol that they speak."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from adapters.models.anthropic import Anthropic
from adapters.models.chat_server import ChatServer
from adapters.models.gemini import Gemini
from adapters.models.ollama import Ollama
from adapters.models.openai_compatible import ChatCompletions
from adapters.models.openai_responses import Responses

KINDS: dict[str, Callable[..., ChatServer]] = {
    "openai": partial(ChatServer, ChatCompletions),
    "openai_responses": partial(ChatServer, Responses),
    "ollama": partial(ChatServer, Ollama),
    "anthropic": partial(ChatServer, Anthropic),
    "gemini": partial(ChatServer, Gemini),
}
"""Each makes a client of (egress, tenant, base URL, key, patience, outages); the last three have defaults."""
