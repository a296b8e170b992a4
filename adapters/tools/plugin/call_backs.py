"""Answers to the calls back of tools of Dify: a chat model is called by a recorded call, whose cause is the tool's."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from adapters.plugins.dify import Answers, CallBackRefused, declared
from domain.chat.app import ModelSettings
from handlers.cause import Cause
from handlers.models.choose import Choose
from handlers.models.model_calls import Chat, ModelCalls
from handlers.models.prompt import Record, literal
from handlers.ports.log import Unavailable
from handlers.ports.models import ChatMessage, ChatModel, ChatRequest, ModelError, Tool, ToolCall
from handlers.ports.plugins import EnabledPlugin
from handlers.ports.tools import Invocation

STEP = "llm"
"""The series of the calls of models that a tool makes."""

MOST_CALLS = 50
"""Maximum number of calls of models that a call of a tool makes."""

TOKENS = 1024
"""Tokens reserved for an answer where the tool names no number."""

LONGEST = 1_000_000
"""Maximum length of an answer, in characters."""


PRICES = (
    *("prompt_unit_price", "prompt_price_unit", "prompt_price", "total_price"),
    *("completion_unit_price", "completion_price_unit", "completion_price"),
)
"""Prices in the tokens of an answer, which tools of Dify expect; they are zero."""


def within(cause: Cause, call: str) -> Cause:
    """The cause of the calls that a call of a tool makes itself."""
    return cause.within(f"tool:{call}")


@dataclass(frozen=True, slots=True)
class CallBacks:
    calls: ModelCalls
    choose: Choose[ChatModel]

    def of(self, plugin: EnabledPlugin, invocation: Invocation) -> Answers:
        """The answers to the calls back of one call of a tool."""
        numbers = itertools.count()

        async def answers(kind: str, asked: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
            if kind != "llm":
                raise CallBackRefused(f"Headrace answers no calls back of type {kind}.")
            if "model.llm" not in declared(plugin)["permissions"]:
                raise CallBackRefused("The manifest of the plugin does not ask for the permission model.llm.")
            if (number := next(numbers)) >= MOST_CALLS:
                raise CallBackRefused(f"A call of a tool makes at most {MOST_CALLS} calls of models.")
            try:
                async for piece in self._llm(invocation, f"{STEP}:{number}", asked):
                    yield piece
            except ModelError as error:
                raise CallBackRefused(f"{error.code}: {error.reason}") from None
            except Unavailable as error:
                raise CallBackRefused(f"unreachable: {error}") from None

        return answers

    async def _llm(self, invocation: Invocation, step: str, asked: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """The pieces of the answer of a model. Raises: CallBackRefused, ModelError, Unavailable."""
        parameters = dict(_mapping(asked.get("completion_params")))
        wanted = parameters.pop("max_tokens", None)
        if stop := asked.get("stop"):
            parameters["stop"] = stop
        window = invocation.configuration["model"]["context_window"]
        model = ModelSettings(
            provider=str(asked.get("provider", "")).rpartition("/")[2],
            name=str(asked.get("model", "")),
            max_tokens=wanted if isinstance(wanted, int) and 0 < wanted <= 1_000_000 else TOKENS,
            context_window=window,
            parameters=parameters,
        )
        messages = [_message(_mapping(each)) for each in _list(asked.get("prompt_messages"))]
        if not messages:
            raise CallBackRefused("The call back has no messages.")
        tools = [
            Tool(str(each.get("name")), str(each.get("description")), dict(_mapping(each.get("parameters"))))
            for each in map(_mapping, _list(asked.get("tools")))
        ]
        request = ChatRequest(
            model["name"], messages, model["max_tokens"], parameters, tools=tools, context_window=window
        )
        record = Record([literal(each, {"from": "plugin", "tool_call": invocation.id}) for each in messages], {})
        course = self.choose(invocation.tenant, model, request)
        chat = self.calls.chat(within(invocation.cause, invocation.id), course, request, record, step=step)
        async with aclosing(chat.texts()) as texts:
            async for text in texts:
                if len(chat.said) > LONGEST:
                    raise CallBackRefused(f"The answer has more than {LONGEST:,} characters.")
                if text:
                    yield _piece(model["name"], text)
        yield _piece(model["name"], "", chat)


def _piece(model: str, text: str, chat: Chat | None = None) -> dict[str, Any]:
    """A piece of an answer as Dify's tools read it; the last has the tokens and the calls of tools."""
    message: dict[str, Any] = {"role": "assistant", "content": text, "tool_calls": []}
    delta: dict[str, Any] = {"index": 0, "message": message, "usage": None, "finish_reason": None}
    if chat:
        message["tool_calls"] = [
            {"id": each.id, "type": "function", "function": {"name": each.name, "arguments": each.arguments}}
            for each in chat.tool_calls
        ]
        prompt, completion = (chat.usage["prompt_tokens"], chat.usage["completion_tokens"]) if chat.usage else (0, 0)
        prices = dict.fromkeys(PRICES, "0")
        counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        delta |= {
            "usage": {**counts, **prices, "currency": "USD", "latency": 0.0},
            "finish_reason": chat.finish_reason or "stop",
        }
    return {"model": model, "prompt_messages": [], "system_fingerprint": None, "delta": delta}


def _message(given: Mapping[str, Any]) -> ChatMessage:
    """A message of Dify's; files in it are refused. Raises: CallBackRefused."""
    role, content = str(given.get("role")), given.get("content")
    if role == "developer":
        role = "system"
    if role not in ("system", "user", "assistant", "tool"):
        raise CallBackRefused(f"A message has the role {role[:50]!r}.")
    if isinstance(content, list):
        parts = [_mapping(each) for each in content]
        if any(part.get("type") != "text" for part in parts):
            raise CallBackRefused("Headrace answers no calls back with files.")
        content = "".join(str(part.get("data", "")) for part in parts)
    calls = [
        ToolCall(str(each.get("id")), str(function.get("name")), str(function.get("arguments")))
        for each in map(_mapping, _list(given.get("tool_calls")))
        for function in [_mapping(each.get("function"))]
    ]
    return ChatMessage(
        role,  # type: ignore[arg-type]  # one of these
        content if isinstance(content, str) else "",
        tool_calls=calls,
        tool_call_id=str(given.get("tool_call_id") or ""),
    )


def _list(value: object) -> Iterable[Any]:
    return value if isinstance(value, list) else ()


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
