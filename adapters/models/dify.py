"""Models of a provider in a package of Dify: chat models, embedding models and rerankers.

The address of such a provider is `plugin://PLUGIN/PROVIDER`, its key a JSON object with the fields of the form of its
credentials.
"""

from __future__ import annotations

import asyncio
import base64
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import numpy as np
import orjson

from adapters.models.chunk import storable, storable_json
from adapters.models.reasoning import Splitter
from adapters.models.server import PATIENCE, Patience
from adapters.models.token_usage import MOST, usage_of
from adapters.models.withheld import Pieces, Withheld
from adapters.plugins.dify import DifyError, DifyPlugins, Session, models_of
from domain.tools.dify import ModelProvider
from handlers.chat.empty_answer import empty
from handlers.ports.models import (
    ChatMessage,
    ChatRequest,
    ChatUsage,
    Delta,
    Embeddings,
    ListedModel,
    ModelError,
    Reranking,
    Rest,
    ToolCall,
)
from handlers.ports.plugins import EnabledPlugin, PluginFailed

CODES = (
    ("Authorization", "unauthorized", False),
    ("Credential", "unauthorized", False),
    ("RateLimit", "rate_limited", True),
    ("ServerUnavailable", "overloaded", True),
    ("Connection", "unreachable", True),
    ("Timeout", "timeout", True),
    ("BadRequest", "bad_request", False),
    ("TooLarge", "too_large", False),
)
"""Error codes by parts of the names of exceptions, and whether another try is worth it."""

OF_PLUGINS = {"died": ("broken_off", True), "timeout": ("timeout", True), "suspended": ("provider_unavailable", False)}

DIFY_TYPES = {"chat": "llm", "embedding": "text-embedding", "rerank": "rerank"}

Open = Callable[[], Awaitable[DifyPlugins]]
"""The plugins of this process, whose hosts start with the first call."""


class DifyModels:
    """The models of one provider with one set of credentials; what they say has stars in place of the secrets."""

    def __init__(self, plugins: Open, tenant: str, base_url: str, key: str, patience: Patience = PATIENCE) -> None:
        """Raises: ModelError `unauthorized`, `unreachable`."""
        self._plugins = plugins
        self._tenant = tenant
        name, _, self._provider = base_url.removeprefix("plugin://").partition("/")
        if not base_url.startswith("plugin://") or not name:
            raise ModelError("unreachable", f"{base_url[:200]} is no address like plugin://PLUGIN/PROVIDER.")
        self._name = name
        self._patience = patience
        try:
            given = orjson.loads(key) if key else {}
        except orjson.JSONDecodeError:
            given = None
        if not isinstance(given, dict):
            raise ModelError("unauthorized", "The key is no JSON object with the fields of the form of credentials.")
        self._given: dict[str, Any] = given
        self._secrets = [each for each in given.values() if isinstance(each, str)]
        self.server = f"plugin:{name}"
        self.limits: dict[str, int] = {}

    def rest(self) -> Rest | None:
        return None

    async def close(self) -> None:
        """Its process ends with the hosts."""

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """As the port."""
        parameters = dict(request.parameters)
        stop = parameters.pop("stop", None)
        if request.max_tokens:
            parameters.setdefault("max_tokens", request.max_tokens)
        if request.schema:
            parameters |= {"response_format": "json_schema", "json_schema": orjson.dumps(request.schema).decode()}
        tools = [tool._asdict() for tool in request.tools] if request.tool_choice != "none" else []
        data = {
            "prompt_messages": [_message(each) for each in request.messages],
            "model_parameters": parameters,
            "stop": [stop] if isinstance(stop, str) else stop,
            "tools": tools or None,
            "stream": True,
        }
        answer = _Answer(self._secrets)
        async with aclosing(self._pieces("invoke_llm", "chat", request.model, data)) as pieces:
            async for piece in pieces:
                if delta := answer.take(piece):
                    yield delta
        yield answer.last()

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """As the port."""
        data = {"texts": list(texts), "input_type": "document"}
        answer = await self._one("invoke_text_embedding", "embedding", model, data)
        try:
            vectors = np.asarray(answer["embeddings"], dtype=np.float32)
        except (KeyError, ValueError, TypeError):
            vectors = np.empty((0, 0), dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
            raise ModelError("server_error", f"{self._name} gave something that is no vector for each text.")
        counted = _mapping(answer.get("usage"))
        number = counted.get("total_tokens")
        usage = ChatUsage(number, 0) if isinstance(number, int) and 0 < number < MOST else None
        return Embeddings(vectors, usage, _text(answer.get("model")))

    async def rerank(self, model: str, query: str, texts: Sequence[str]) -> Reranking:
        """As the port."""
        data = {"query": query, "docs": list(texts), "score_threshold": None, "top_n": len(texts)}
        answer = await self._one("invoke_rerank", "rerank", model, data)
        docs = answer.get("docs")
        scores: dict[int, float] = {}
        for doc in docs if isinstance(docs, list) else []:
            index, score = _mapping(doc).get("index"), _mapping(doc).get("score")
            if isinstance(index, int) and isinstance(score, int | float) and math.isfinite(score):
                scores[index] = float(score)
        if scores.keys() != set(range(len(texts))):
            raise ModelError("server_error", f"{self._name} gave scores for {len(scores)} of {len(texts)} texts.")
        return Reranking([scores[index] for index in range(len(texts))], model=_text(answer.get("model")))

    async def listed(self) -> Sequence[ListedModel]:
        """The predefined models, once the credentials are found valid. Raises: ModelError."""
        plugin, provider = await self._of()
        if provider["credentials"]:
            data = {
                "type": "model",
                "action": "validate_provider_credentials",
                "provider": provider["name"],
                "credentials": self._credentials(provider),
            }
            plugins = await self._plugins()
            try:
                async with asyncio.timeout(self._patience.first_token):
                    await plugins.one(plugin, data, Session())
            except TimeoutError:
                raise ModelError("timeout", f"{self._name} did not check the credentials in time.") from None
            except (DifyError, PluginFailed) as error:
                raise self._error(error) from None
        served = [each for each in provider["models"] if each["type"] in DIFY_TYPES and not each["deprecated"]]
        return [ListedModel(each["name"], each["type"], each["context_window"], each["max_output"]) for each in served]

    async def _one(self, action: str, kind: str, model: str, data: Mapping[str, Any]) -> dict[str, Any]:
        async with aclosing(self._pieces(action, kind, model, data)) as pieces:
            async for piece in pieces:
                return piece
        raise ModelError("server_error", f"{self._name} gave no result.")

    async def _pieces(
        self, action: str, kind: str, model: str, data: Mapping[str, Any]
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The pieces of a result, within the time limits. Raises: ModelError."""
        plugin, provider = await self._of()
        whole = {
            "type": "model",
            "action": action,
            "provider": provider["name"],
            "model_type": DIFY_TYPES[kind],
            "model": model,
            "credentials": self._credentials(provider),
            **data,
        }
        now, begun = asyncio.get_running_loop().time, False
        deadline, limit = now() + self._patience.total, now() + self._patience.first_token
        plugins = await self._plugins()
        try:
            async with aclosing(plugins.stream(plugin, whole, Session())) as pieces:
                while True:
                    async with asyncio.timeout_at(min(limit, deadline)):
                        piece = await anext(pieces, None)
                    if piece is None:
                        return
                    yield piece
                    begun, limit = True, now() + self._patience.between_tokens
        except TimeoutError:
            waited = self._patience.between_tokens if begun else self._patience.first_token
            raise ModelError("timeout", f"{self._name} said nothing for {waited:g} s.", passing=not begun) from None
        except (DifyError, PluginFailed) as error:
            raise self._error(error) from None

    async def _of(self) -> tuple[EnabledPlugin, ModelProvider]:
        """Raises: ModelError."""
        try:
            plugins = await self._plugins()
            plugin = await plugins.plugin(self._tenant, self._name)
            return plugin, models_of(plugin, self._provider)
        except PluginFailed as error:
            raise self._error(error) from None

    def _credentials(self, provider: ModelProvider) -> dict[str, Any]:
        fields = [*provider["credentials"], *provider["of_models"]]
        return {**{each["name"]: each["default"] for each in fields if each["default"] is not None}, **self._given}

    def _error(self, error: DifyError | PluginFailed) -> ModelError:
        if isinstance(error, PluginFailed):
            code, passing = OF_PLUGINS.get(error.code, ("not_found", False))
            return ModelError(code, error.reason, passing=passing)
        found = next((each for each in CODES if each[0] in error.type), ("", "server_error", False))
        reason = Withheld(self._secrets).text(f"{error.type}: {error.message}")
        return ModelError(found[1], reason[:1000], passing=found[2])


class _Answer:
    """An answer as it comes."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._splitter = Splitter()
        self._withheld = [Pieces(secret) for secret in secrets]
        self._calls: list[dict[str, str]] = []
        self._usage: ChatUsage | None = None
        self._finish: str | None = None
        self._model: str | None = None
        self._opaque: Any = None
        self._said = False

    def take(self, piece: Mapping[str, Any]) -> Delta | None:
        """The part of a piece that is new."""
        delta = _mapping(piece.get("delta")) or piece
        message = _mapping(delta.get("message"))
        self._model = _text(piece.get("model")) or self._model
        self._finish = _text(delta.get("finish_reason")) or self._finish
        if counted := _mapping(delta.get("usage")):
            self._usage = _usage(counted) or self._usage
        if message.get("opaque_body") is not None:
            self._opaque = storable_json(message["opaque_body"])
        for call in message.get("tool_calls") or ():
            self._call(_mapping(call))
        text = storable(_content(message.get("content")))
        for each in self._withheld:
            text = each(text)
        said, thought = self._splitter.feed(text)
        unsaid, self._splitter.unsaid = self._splitter.unsaid, False
        self._said = bool(said) or (self._said and not unsaid)
        return Delta(said, reasoning=thought, unsaid=unsaid) if said or thought or unsaid else None

    def last(self) -> Delta:
        """The rest, and what comes with it. Raises: ModelError, where there is no word and no call."""
        kept = ""
        for each in self._withheld:
            kept = each(kept) + each.rest()
        text, thought = self._splitter.feed(kept)
        more, further = self._splitter.end()
        calls = [
            ToolCall(call["id"] or f"call_{place}", call["name"], call["arguments"] or "{}")
            for place, call in enumerate(self._calls)
        ]
        if not (self._said or text or more or calls):
            raise empty(self._finish)
        return Delta(
            text + more,
            reasoning=thought + further,
            finish_reason=self._finish or ("tool_calls" if calls else "stop"),
            usage=self._usage,
            model=self._model,
            tool_calls=calls,
            state=None if self._opaque is None else {"opaque_body": self._opaque},
        )

    def _call(self, call: Mapping[str, Any]) -> None:
        """A whole call, or more of the arguments of the last one."""
        function, id = _mapping(call.get("function")), str(call.get("id") or "")
        name, arguments = str(function.get("name") or ""), str(function.get("arguments") or "")
        known = next((each for each in self._calls if id and each["id"] == id), None)
        if known is None and not name and self._calls:
            known = self._calls[-1]
        if known is None:
            self._calls.append({"id": id, "name": name, "arguments": arguments})
        else:
            known["name"] = known["name"] or name
            known["arguments"] += arguments


def _message(message: ChatMessage) -> dict[str, Any]:
    """A message as Dify's models take it."""
    found: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.attachments:
        text = [{"type": "text", "data": message.content}] if message.content else []
        found["content"] = [*text, *(_attachment(each) for each in message.attachments)]
    if message.tool_calls:
        found["tool_calls"] = [
            {"id": each.id, "type": "function", "function": {"name": each.name, "arguments": each.arguments}}
            for each in message.tool_calls
        ]
    if message.role == "tool":
        found["tool_call_id"] = message.tool_call_id
    if message.state and "opaque_body" in message.state:
        found["opaque_body"] = message.state["opaque_body"]
    return found


def _attachment(file: Any) -> dict[str, Any]:
    found = {
        "type": file.kind,
        "format": file.media_type.partition("/")[2],
        "base64_data": base64.b64encode(file.data).decode(),
        "mime_type": file.media_type,
        "filename": file.name,
    }
    return {**found, "detail": file.detail or "high"} if file.kind == "image" else found


def _content(content: object) -> str:
    """The text of a content, which may come in parts."""
    if isinstance(content, list):
        return "".join(str(each.get("data", "")) for each in map(_mapping, content) if each.get("type") == "text")
    return content if isinstance(content, str) else ""


def _usage(counted: Mapping[str, Any]) -> ChatUsage | None:
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    numbers = {name: counted[name] for name in names if isinstance(counted.get(name), int)}
    return usage_of(numbers) if any(numbers.values()) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
