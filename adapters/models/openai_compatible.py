"""Chat completions: the wire format of OpenAI, of Azure, and of most servers of models."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from adapters.models.chat_server import Sent
from adapters.models.chunk import REASONING, Chunk, delta_of, storable
from adapters.models.faults import Fault
from adapters.models.openai_request import asked, short_id
from adapters.models.server import ModelServer, bearer
from handlers.ports.models import ChatRequest, ToolCall

DEPLOYMENTS = "/openai/deployments"
"""Path of Azure's addresses; a base URL may end in it, and the model is the deployment then."""

NINE = re.compile(r"tool.?call.?id.{0,200}\b(?:9|nine)\b", re.IGNORECASE | re.DOTALL)
"""Words of a server that wants ids of nine letters and digits."""


def azure_headers(base_url: str, key: str) -> dict[str, str]:
    """Azure takes keys by a header of its own."""
    path, _, query = base_url.partition("?")
    is_azure = "api-version=" in query or f"{DEPLOYMENTS}/" in f"{path}/"
    return {"api-key": key} if key and is_azure else bearer(key)


def deployed(base_url: str, model: str, path: str) -> str:
    """The path of a request for a model, which is a deployment where the base URL has these."""
    return f"/{model}{path}" if base_url.partition("?")[0].rstrip("/").endswith(DEPLOYMENTS) else path


class ChatCompletions:
    """Fields that the server refuses (`stream_options`, `max_tokens`) are omitted then."""

    PATH = "/chat/completions"
    OWN = frozenset(("model", "messages", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens"))

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self._counts_usage = True
        self._limit = "max_tokens"
        self._short_ids = False

    def headers(self, key: str) -> Mapping[str, str]:
        return azure_headers(self.base_url, key)

    def refusal(self, request: ChatRequest) -> Fault | None:
        return None

    def sent(self, request: ChatRequest) -> Sent:
        body = {
            **{name: value for name, value in request.parameters.items() if value is not None},
            "model": request.model,
            **asked(request, short_id if self._short_ids else str),
            self._limit: request.max_tokens,
            "stream": True,
            **({"stream_options": {"include_usage": True}} if self._counts_usage else {}),
        }
        return Sent(body, deployed(self.base_url, request.model, self.PATH))

    def learns(self, sent: Sent, fault: Fault) -> bool:
        if fault.code not in ("bad_request", "server_error"):  # some servers answer 500 to it
            return False
        if "stream_options" in sent.body and re.search("stream_?options|include_?usage", fault.said, re.IGNORECASE):
            self._counts_usage = False
            return True
        if "max_tokens" in sent.body and "max_completion_tokens" in fault.said:
            self._limit = "max_completion_tokens"
            return True
        ids = [call["id"] for message in sent.body["messages"] for call in message.get("tool_calls", ())]
        if NINE.search(fault.said) and any(id != short_id(id) for id in ids):
            self._short_ids = True
            return True
        return False

    def reader(self, request: ChatRequest, sent: Sent) -> CompletionReader:
        return CompletionReader()


class CompletionReader:
    def __init__(self) -> None:
        self._message: dict[str, Any] = {}

    def read(self, data: Any, name: str) -> Chunk:
        chunk = Chunk.of(data)
        if data.get("choices"):
            self._keep(delta_of(data["choices"][0]))
        return chunk

    def _keep(self, delta: Mapping[str, Any]) -> None:
        """Keep the fields of reasoning, and whether the server writes an empty content as a text."""
        if delta.get("content") == "":
            self._message["content"] = ""
        for name in REASONING:
            value, known = delta.get(name), self._message.get(name)
            if isinstance(value, str) and value:
                self._message[name] = f"{known or ''}{storable(value)}"
            elif isinstance(value, list) and value:
                self._message[name] = [*(known or ()), *value]

    def state(self, calls: Sequence[ToolCall], extra: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        """DeepSeek wants its reasoning back with the results of tools, and refuses it without."""
        if not calls or not (self._message or any(extra)):
            return None
        return {"message": self._message, "tool_calls": list(extra)}

    async def flaw(self, at: ModelServer) -> Fault | None:
        return None
