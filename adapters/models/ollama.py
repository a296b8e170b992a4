"""Ollama's own protocol: its OpenAI-compatible address takes no window, and cuts prompts without a word."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import httpx2
import orjson

from adapters.models.chat_server import Sent
from adapters.models.chunk import Chunk, logprobs_in, name_of, storable
from adapters.models.faults import Fault, ServerError
from adapters.models.openai_request import encoded
from adapters.models.server import ModelServer, bearer
from adapters.models.token_usage import usage_in
from adapters.models.tool_calls import CallPiece
from handlers.models.arguments import arguments_of
from handlers.models.prompt import MESSAGE_TOKENS, estimate, likely
from handlers.ports.models import ChatMessage, ChatRequest, ToolCall

SMALLEST_WINDOW = 4096
"""Tokens. A window is this, or a power of two times this: another window loads the model again."""

KEEP_ALIVE = "30m"
"""Time for which the server keeps a model loaded after a call, unless the app says otherwise."""

FIELDS = frozenset(("think", "keep_alive", "format", "logprobs", "top_logprobs"))
"""Parameters that are no options."""


LOADED = "/api/ps"

LOOK_S = 2.0
"""Time to wait for the list of loaded models, in seconds."""


def window_for(request: ChatRequest) -> int:
    """The window to ask for, in tokens: that of the app, or one that the prompt fits, rounded up to a step."""
    texts = sum(estimate(message.content) + MESSAGE_TOKENS for message in request.messages)
    needed = request.context_window or texts + request.max_tokens
    window = SMALLEST_WINDOW
    while window < needed:
        window *= 2
    return window


class Ollama:
    PATH = "/api/chat"
    OWN = frozenset(("model", "messages", "stream", "tools", "num_ctx", "num_predict", "truncate", "shift"))

    def __init__(self, base_url: str) -> None:
        path, mark, query = base_url.partition("?")
        root = path.rstrip("/").removesuffix(self.PATH).removesuffix("/v1").removesuffix("/api")
        self.base_url = f"{root}{mark}{query}"
        self._windows: dict[tuple[str, int], int] = {}
        """The windows with which models are loaded, by the ones that were asked for."""

    def headers(self, key: str) -> Mapping[str, str]:
        return bearer(key)

    def refusal(self, request: ChatRequest) -> Fault | None:
        kinds = {attachment.kind for message in request.messages for attachment in message.attachments} - {"image"}
        return Fault("unsupported", f"Ollama takes images only, no {', '.join(sorted(kinds))}.") if kinds else None

    def sent(self, request: ChatRequest) -> Sent:
        given = {name: value for name, value in request.parameters.items() if value is not None}
        options = {**given.pop("options", {}), **{name: given[name] for name in given.keys() - FIELDS}}
        names = {call.id: call.name for message in request.messages for call in message.tool_calls}
        body: dict[str, Any] = {
            "keep_alive": KEEP_ALIVE,
            **{name: value for name, value in given.items() if name in FIELDS},
            "model": request.model,
            "messages": [_message(message, names) for message in request.messages],
            "stream": True,
            # Newer servers refuse a prompt that does not fit; older ones ignore the fields, and cut it.
            "truncate": False,
            "shift": False,
            "options": {**options, "num_ctx": window_for(request), "num_predict": request.max_tokens},
        }
        if request.tools and request.tool_choice != "none":
            body["tools"] = [{"type": "function", "function": tool._asdict()} for tool in request.tools]
        if request.schema is not None:
            body["format"] = request.schema
        return Sent(body)

    def learns(self, sent: Sent, fault: Fault) -> bool:
        return False

    def reader(self, request: ChatRequest, sent: Sent) -> OllamaReader:
        return OllamaReader(self, request, sent.body["options"]["num_ctx"])

    async def window(self, at: ModelServer, model: str, asked: int) -> int:
        """The window with which the server has loaded a model: one that is trained with less gets less.

        Versions that do not show it load what was asked for.
        """
        if (model, asked) not in self._windows:
            with suppress(ServerError, httpx2.HTTPError, TimeoutError, ValueError, AttributeError):
                async with asyncio.timeout(LOOK_S):
                    response = await at.get(LOADED)
                    try:
                        models = orjson.loads(await response.aread()).get("models") or ()
                    finally:
                        await response.aclose()
                for each in models:
                    length = each.get("context_length")
                    if each.get("model") in (model, f"{model}:latest") and isinstance(length, int) and length > 0:
                        self._windows[model, asked] = min(asked, length)
        return self._windows.get((model, asked), asked)


class OllamaReader:
    def __init__(self, wire: Ollama, request: ChatRequest, asked: int) -> None:
        self._wire = wire
        self._request = request
        self._asked = asked
        self._thinking = ""
        self._calls = 0
        self._counted: int | None = None

    def read(self, data: Any, name: str) -> Chunk:
        message, done = data.get("message") or {}, data.get("done") is True
        thinking = storable(message.get("thinking") or "")
        self._thinking += thinking
        usage = usage_in(data)
        if usage:
            self._counted = usage.prompt_tokens
        return Chunk(
            storable(message.get("content") or ""),
            thinking,
            (name_of(data.get("done_reason")) or "stop") if done else None,
            usage,
            model=name_of(data.get("model")),
            calls=[self._call(call) for call in message.get("tool_calls") or ()],
            logprobs=logprobs_in(data.get("logprobs")),
            done=done,
        )

    def _call(self, call: Any) -> CallPiece:
        """Every call comes whole, and mostly without an id."""
        self._calls += 1
        function = call["function"]
        return CallPiece(
            self._calls, name_of(call.get("id")) or "", name_of(function["name"]) or "", function.get("arguments")
        )

    def state(self, calls: Sequence[ToolCall], extra: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        return {"thinking": self._thinking} if calls and self._thinking else None

    async def flaw(self, at: ModelServer) -> Fault | None:
        """A prompt that was cut.

        A cut prompt fills the window; or its older messages were left out: then fewer tokens are counted than it
        likely has, and it likely has more than the window. A small count alone proves nothing, since some versions do
        not count what they have in their cache.
        """
        texts = sum(likely(message.content) for message in self._request.messages)
        if self._counted is None or texts <= self._counted < self._asked:
            return None
        window = await self._wire.window(at, self._request.model, self._asked)
        if self._counted < window and not self._counted < texts > window:
            return None
        return Fault(
            "truncated",
            f"{at.address} cut the prompt: it read {self._counted} tokens, with a window of {window}. Set "
            f"model.context_window to at most {window}, so that the prompt is made to fit.",
        )


def _message(message: ChatMessage, names: Mapping[str, str]) -> dict[str, Any]:
    sent: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.attachments:
        sent["images"] = [encoded(attachment) for attachment in message.attachments]
    if message.role == "tool":
        sent["tool_name"] = names.get(message.tool_call_id, "")
    if message.tool_calls:
        sent["tool_calls"] = [
            {"function": {"name": call.name, "arguments": _object(call.arguments)}} for call in message.tool_calls
        ]
        if message.state and "thinking" in message.state:
            sent["thinking"] = message.state["thinking"]
    return sent


def _object(arguments: str) -> dict[str, Any]:
    try:
        return arguments_of(arguments)
    except ValueError:
        return {"invalid": arguments}
