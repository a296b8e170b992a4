"""Answers to the calls back of plugins of Dify: its messages as those of Headrace, and back."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from adapters.plugins.dify import Answers, CallBackRefused, declared
from adapters.plugins.uploads import Uploads
from domain.log import Metadata
from handlers.ports.log import Unavailable
from handlers.ports.models import ChatMessage, Delta, ModelError, Tool, ToolCall
from handlers.ports.plugins import EnabledPlugin
from handlers.ports.tools import AskedModel, CallBacks, Output, Refused, Result
from handlers.tools.storage import Storage

PRICES = (
    *("prompt_unit_price", "prompt_price_unit", "prompt_price", "total_price"),
    *("completion_unit_price", "completion_price_unit", "completion_price"),
)
"""Prices in the tokens of an answer, which plugins of Dify expect; they are zero."""

PERMISSIONS = {
    "llm": "model.llm",
    "system_summary": "model.llm",
    "tool": "tool",
    "storage": "storage",
    "upload_file": "",
}
"""The permission that the manifest must ask for, by the type of a call back; empty for none."""

SUMMARIZE = "Summarize the text of the user, in its language, and add nothing to it."

Address = Callable[[str, str], str]
"""Makes an address for a file with this name and media type."""


class Asking(NamedTuple):
    """A request to a plugin: its calls of models and tools, the metadata of its cause, and the place of its files."""

    plugin: EnabledPlugin
    backs: CallBacks
    cause: Metadata
    take: Callable[[Output], None]


@dataclass(frozen=True, slots=True)
class Answering:
    """Answers calls back of plugins: with the storage of theirs, and with addresses for files where they have a proxy,
    None where not."""

    storage: Storage
    uploads: Uploads | None

    @contextmanager
    def to(self, asking: Asking) -> Iterator[Answers]:
        """The answers to the calls back of one request to a plugin, as long as it is open."""
        with self.uploads.session(asking.plugin.tenant, asking.take) if self.uploads else nullcontext() as address:
            yield lambda kind, asked: self._answer(asking, address, kind, asked)

    async def _answer(
        self, asking: Asking, address: Address | None, kind: str, asked: dict[str, Any]
    ) -> AsyncGenerator[dict[str, Any]]:
        if kind not in PERMISSIONS:
            raise CallBackRefused(f"Headrace answers no calls back of type {kind}.")
        if (needed := PERMISSIONS[kind]) and needed not in declared(asking.plugin)["permissions"]:
            raise CallBackRefused(f"The manifest of the plugin does not ask for the permission {needed}.")
        try:
            match kind:
                case "llm":
                    async with aclosing(_llm(asking.backs, asked)) as pieces:
                        async for piece in pieces:
                            yield piece
                case "system_summary":
                    yield {"summary": await _summary(asking.backs, asked)}
                case "tool":
                    yield await _tool(asking.backs, asked)
                case "storage":
                    yield {"data": await self._stored(asking, asked)}
                case _:
                    yield {"url": _address(address, asked)}
        except Refused as refused:
            raise CallBackRefused(str(refused)) from None
        except ModelError as error:
            raise CallBackRefused(f"{error.code}: {error.reason}") from None
        except Unavailable as error:
            raise CallBackRefused(f"unreachable: {error}") from None

    async def _stored(self, asking: Asking, asked: Mapping[str, Any]) -> Any:
        """The answer to a call of the storage. Raises: CallBackRefused; Refused, Unavailable."""
        key, place = str(asked.get("key", "")), (asking.plugin.name, asking.cause)
        match asked.get("opt"):
            case "get":
                value = await self.storage.get(*place, key)
                if value is None:
                    raise CallBackRefused(f"The storage has no value {key[:100]!r}.")
                return value.hex()
            case "exist":
                return await self.storage.exists(*place, key)
            case "set":
                try:
                    data = bytes.fromhex(str(asked.get("value", "")))
                except ValueError:
                    raise CallBackRefused("The value must be hexadecimal.") from None
                await self.storage.set(*place, key, data, declared(asking.plugin)["storage"])
                return "ok"
            case "del":
                await self.storage.delete(*place, key)
                return "ok"
        raise CallBackRefused("The storage answers get, set, del and exist.")


def _address(address: Address | None, asked: Mapping[str, Any]) -> str:
    """The address that a file can be uploaded to. Raises: CallBackRefused."""
    if address is None:
        raise CallBackRefused("A file can be uploaded only by the proxy, which needs namespaces on this machine.")
    name = str(asked.get("filename") or "file")[:255]
    try:
        return address(name, str(asked.get("mimetype") or "application/octet-stream")[:255])
    except ValueError as error:
        raise CallBackRefused(str(error)) from None


async def _llm(backs: CallBacks, asked: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any]]:
    """The pieces of the answer of a model. Raises: CallBackRefused; Refused, ModelError, Unavailable."""
    parameters = dict(_mapping(asked.get("completion_params")))
    wanted = parameters.pop("max_tokens", None)
    if stop := asked.get("stop"):
        parameters["stop"] = stop
    messages = [_message(_mapping(each)) for each in _list(asked.get("prompt_messages"))]
    if not messages:
        raise CallBackRefused("The call back has no messages.")
    tools = [
        Tool(str(each.get("name")), str(each.get("description")), dict(_mapping(each.get("parameters"))))
        for each in map(_mapping, _list(asked.get("tools")))
    ]
    model = str(asked.get("model", ""))
    most = wanted if isinstance(wanted, int) and 0 < wanted <= 1_000_000 else None
    provider = str(asked.get("provider", "")).rpartition("/")[2]
    async with aclosing(backs.model(AskedModel(provider, model, messages, tools, parameters, most))) as deltas:
        async for delta in deltas:
            if delta.text or delta.finish_reason:
                yield _piece(model, delta)


async def _summary(backs: CallBacks, asked: Mapping[str, Any]) -> str:
    """The summary of a text by the model of the app. Raises: CallBackRefused; Refused, ModelError, Unavailable."""
    text, wanted = str(asked.get("text") or ""), str(asked.get("instruction") or "")
    messages = [ChatMessage("system", f"{SUMMARIZE} {wanted}".strip()), ChatMessage("user", text)]
    said = ""
    async with aclosing(backs.model(AskedModel("", "", messages, (), {}, None))) as deltas:
        async for delta in deltas:
            said += delta.text
    return said


async def _tool(backs: CallBacks, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The result of a tool. Raises: Refused, Unavailable."""
    toolset = str(asked.get("provider", "")).rpartition("/")[2]
    arguments = dict(_mapping(asked.get("tool_parameters")))
    return _said(await backs.tool(toolset, str(asked.get("tool", "")), arguments))


def _said(result: Result) -> dict[str, Any]:
    """A result as plugins of Dify read it: a text, or the JSON that it is."""
    values = [part["value"] for part in result.parts]
    if len(values) == 1 and isinstance(values[0], dict | list) and _is(values[0], result.text):
        return {"type": "json", "message": {"json_object": values[0]}, "meta": None}
    return {"type": "text", "message": {"text": result.text}, "meta": None}


def _is(value: object, text: str) -> bool:
    return orjson.dumps(value).decode() == text.strip()


def _piece(model: str, given: Delta) -> dict[str, Any]:
    """A piece of an answer as Dify's plugins read it; the last has the tokens and the calls of tools."""
    message: dict[str, Any] = {"role": "assistant", "content": given.text, "tool_calls": []}
    delta: dict[str, Any] = {"index": 0, "message": message, "usage": None, "finish_reason": given.finish_reason}
    if given.finish_reason:
        message["tool_calls"] = [
            {"id": each.id, "type": "function", "function": {"name": each.name, "arguments": each.arguments}}
            for each in given.tool_calls
        ]
        prompt, completion = (given.usage.prompt_tokens, given.usage.completion_tokens) if given.usage else (0, 0)
        prices = dict.fromkeys(PRICES, "0")
        counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        delta["usage"] = {**counts, **prices, "currency": "USD", "latency": 0.0}
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


def message_of(message: ChatMessage) -> dict[str, Any]:
    """A message as Dify's plugins read it."""
    found: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        found["tool_calls"] = [
            {"id": each.id, "type": "function", "function": {"name": each.name, "arguments": each.arguments}}
            for each in message.tool_calls
        ]
    return {**found, "tool_call_id": message.tool_call_id} if message.role == "tool" else found


def _list(value: object) -> Iterable[Any]:
    return value if isinstance(value, list) else ()


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
