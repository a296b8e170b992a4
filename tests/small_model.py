"""A real language model for tests: SmolLM2 behind llama.cpp's server, started at its first use.

`small_model` reads 4,096 tokens, `narrow_model` 256. Both are there for a fallback from one server to another.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from adapters.models.chat_server import ChatServer
from adapters.models.kinds import KINDS
from handlers.ports.models import ChatMessage, ChatRequest
from ops.servers.model import NAME, EmbeddedModel
from tests.chat_servers import LOOPBACK

TEXT = "The oil boom lies in the blue box at the gatehouse and is 28 metres long."
QUESTION = "How long is the oil boom?"
STEADY: dict[str, Any] = {"temperature": 0}
"""Parameters with which the same request has the same answer."""


@pytest.fixture(scope="session")
async def small_model(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedModel]:
    async with EmbeddedModel(tmp_path_factory.mktemp("small")) as server:
        yield server


@pytest.fixture(scope="session")
async def narrow_model(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedModel]:
    async with EmbeddedModel(tmp_path_factory.mktemp("narrow"), window=256) as server:
        yield server


def client_of(server: EmbeddedModel, key: str | None = None) -> ChatServer:
    return KINDS["openai"](LOOPBACK, "default", server.url, server.key if key is None else key)


def request(question: str = QUESTION, max_tokens: int = 60, **more: Any) -> ChatRequest:
    """A question about `TEXT`; `parameters` are added to those that make it steady."""
    parameters = STEADY | more.pop("parameters", {})
    instructions = f"Answer the question in one sentence, with the words of the text.\n\n{TEXT}"
    messages = [ChatMessage("system", instructions), ChatMessage("user", question)]
    return ChatRequest(NAME, messages, max_tokens, parameters, **more)
