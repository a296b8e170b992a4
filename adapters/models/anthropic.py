"""Anthropic's Messages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from adapters.models.chat_server import Sent
from adapters.models.chunk import Chunk, name_of, storable
from adapters.models.faults import Fault
from adapters.models.openai_request import encoded, tool_schema
from adapters.models.server import ModelServer
from adapters.models.token_usage import usage_of
from adapters.models.tool_calls import CallPiece
from handlers.models.arguments import arguments_of
from handlers.ports.models import Attachment, ChatMessage, ChatRequest, ToolCall

VERSION = "2023-06-01"

ANSWER = "structured_answer"
"""The tool by which a model gives an answer that keeps to a schema."""

WRAPPED = "value"
"""The property that holds arguments whose schema has a choice at its top, which the server refuses."""

CHOICES = frozenset(("oneOf", "anyOf", "allOf"))

STATE = "content"
"""The blocks of an answer with signed reasoning, which the server wants back as they were."""


class Anthropic:
    PATH = "/v1/messages"
    OWN = frozenset(("model", "messages", "system", "max_tokens", "stream", "tools", "tool_choice"))

    def __init__(self, base_url: str) -> None:
        path, mark, query = base_url.partition("?")
        self.base_url = f"{path.rstrip('/').removesuffix(self.PATH).removesuffix('/v1')}{mark}{query}"

    def headers(self, key: str) -> Mapping[str, str]:
        return {"anthropic-version": VERSION, **({"x-api-key": key} if key else {})}

    def refusal(self, request: ChatRequest) -> Fault | None:
        if any(it.kind == "audio" for message in request.messages for it in message.attachments):
            return Fault("unsupported", "Anthropic's models take images and documents, but no audio.")
        return None

    def sent(self, request: ChatRequest) -> Sent:
        given = {name: value for name, value in request.parameters.items() if value is not None}
        if stop := given.pop("stop", None):
            given["stop_sequences"] = [stop] if isinstance(stop, str) else stop
        system = "\n\n".join(message.content for message in request.messages if message.role == "system")
        body: dict[str, Any] = {
            **given,
            "model": request.model,
            "max_tokens": request.max_tokens,
            "messages": _messages(request.messages, _wrapped(request)),
            "stream": True,
            **({"system": system} if system else {}),
            **_tools(request, thinks=_thinks(given)),
        }
        return Sent(body)

    def learns(self, sent: Sent, fault: Fault) -> bool:
        return False

    def reader(self, request: ChatRequest, sent: Sent) -> AnthropicReader:
        return AnthropicReader(_wrapped(request))


def _thinks(parameters: Mapping[str, Any]) -> bool:
    thinking = parameters.get("thinking")
    return isinstance(thinking, dict) and thinking.get("type") != "disabled"


def _tools(request: ChatRequest, *, thinks: bool) -> dict[str, Any]:
    """Tools, and the schema as a tool that must be called; a model that thinks cannot be forced to call one."""
    tools = [_tool(tool.name, tool.description, tool_schema(tool)) for tool in request.tools]
    choice: dict[str, Any] | None = None
    match request.tool_choice:
        case "auto":
            pass
        case "none":
            choice = {"type": "none"}
        case "required":
            choice = {"type": "any"}
        case name:
            choice = {"type": "tool", "name": name}
    if request.schema is not None:
        tools.append(_tool(ANSWER, "Give the answer by calling this tool, and by nothing else.", request.schema))
        choice = (
            {"type": "any"} if request.tools and request.tool_choice != "none" else {"type": "tool", "name": ANSWER}
        )
        choice = {"type": "auto"} if thinks else choice
    return {"tools": tools, **({"tool_choice": choice} if choice else {})} if tools else {}


def _tool(name: str, description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    if _has_choice(schema):
        schema = {"type": "object", "properties": {WRAPPED: schema}, "required": [WRAPPED]}
    return {"name": name, "description": description, "input_schema": schema}


def _has_choice(schema: Mapping[str, Any]) -> bool:
    return bool(CHOICES & schema.keys()) or schema.get("type", "object") != "object"


def _wrapped(request: ChatRequest) -> set[str]:
    """The tools whose arguments are wrapped in one property."""
    schemas = {tool.name: tool_schema(tool) for tool in request.tools} | {ANSWER: request.schema or {}}
    return {name for name, schema in schemas.items() if _has_choice(schema)}


def _messages(messages: Sequence[ChatMessage], wrapped: set[str]) -> list[dict[str, Any]]:
    """Messages without those of the system; all results of tools that follow each other are one."""
    sent: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "system" or not (blocks := _blocks(message, wrapped)):
            continue
        role = "assistant" if message.role == "assistant" else "user"
        if sent and sent[-1]["role"] == role:
            sent[-1]["content"] += blocks
        else:
            sent.append({"role": role, "content": blocks})
    return sent


def _blocks(message: ChatMessage, wrapped: set[str]) -> list[dict[str, Any]]:
    """The blocks of a message; empty texts are refused."""
    if message.role == "assistant" and message.state and STATE in message.state:
        return list(message.state[STATE])
    blocks = [*map(_file, message.attachments)]
    if message.content.strip():
        blocks.append({"type": "text", "text": message.content})
    if message.role == "tool":
        return [{"type": "tool_result", "tool_use_id": message.tool_call_id, "content": blocks}]
    for call in message.tool_calls:
        given = _object(call.arguments)
        given = {WRAPPED: given} if call.name in wrapped else given
        blocks.append({"type": "tool_use", "id": call.id, "name": call.name, "input": given})
    return blocks


def _object(arguments: str) -> dict[str, Any]:
    try:
        return arguments_of(arguments)
    except ValueError:
        return {"invalid": arguments}


def _file(attachment: Attachment) -> dict[str, Any]:
    source = {"type": "base64", "media_type": attachment.media_type, "data": encoded(attachment)}
    if attachment.kind == "image":
        return {"type": "image", "source": source}
    if attachment.media_type.startswith("text/"):
        source = {"type": "text", "media_type": "text/plain", "data": attachment.data.decode(errors="replace")}
    return {"type": "document", "source": source, **({"title": attachment.name} if attachment.name else {})}


def _goes_back(block: Mapping[str, Any]) -> bool:
    if block["type"] == "text":
        return bool(block.get("text", "").strip())
    return block.get("name") != ANSWER


class AnthropicReader:
    """The answer's blocks come one after another, each in pieces."""

    def __init__(self, wrapped: set[str]) -> None:
        self._wrapped = wrapped
        self._usage: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._inputs: dict[int, str] = {}
        self._ended: set[int] = set()

    def read(self, data: Any, name: str) -> Chunk:
        match data["type"]:
            case "message_start":
                message = data["message"]
                self._usage |= message.get("usage") or {}
                return Chunk(id=name_of(message.get("id")), model=name_of(message.get("model")))
            case "content_block_start":
                return self._start(data["index"], dict(data["content_block"]))
            case "content_block_delta":
                return self._delta(data["index"], data["delta"])
            case "content_block_stop":
                return self._end(data["index"])
            case "message_delta":
                self._usage |= {name: value for name, value in (data.get("usage") or {}).items() if value is not None}
                return Chunk(finish=name_of(data["delta"].get("stop_reason")), usage=usage_of(self._usage))
            case "message_stop":
                return Chunk(done=True)
            case "message":  # an answer that is not streamed
                return self._whole(data)
            case _:
                return Chunk()

    def _whole(self, data: Any) -> Chunk:
        chunks = []
        for index, block in enumerate(data["content"]):
            chunks += [self._start(index, dict(block)), self._end(index)]
        return Chunk(
            "".join(chunk.text for chunk in chunks),
            "".join(chunk.reasoning for chunk in chunks),
            name_of(data.get("stop_reason")),
            usage_of(data.get("usage")),
            name_of(data.get("id")),
            name_of(data.get("model")),
            [call for chunk in chunks for call in chunk.calls],
            done=True,
        )

    def _start(self, index: int, block: dict[str, Any]) -> Chunk:
        self._blocks[index], self._inputs[index] = block, ""
        return Chunk(
            storable(block.get("text") or "") if block["type"] == "text" else "", storable(block.get("thinking") or "")
        )

    def _delta(self, index: int, delta: Any) -> Chunk:
        block = self._blocks[index]
        match delta["type"]:
            case "text_delta":
                block["text"] = block.get("text", "") + delta["text"]
                return Chunk(storable(delta["text"]))
            case "thinking_delta":
                block["thinking"] = block.get("thinking", "") + delta["thinking"]
                return Chunk(reasoning=storable(delta["thinking"]))
            case "signature_delta":
                block["signature"] = block.get("signature", "") + delta["signature"]
            case "input_json_delta":
                self._inputs[index] += delta["partial_json"]
                if block["name"] == ANSWER:
                    return Chunk("" if ANSWER in self._wrapped else storable(delta["partial_json"]))
                return Chunk(calls=[self._call(index, "")])
        return Chunk()

    def _end(self, index: int) -> Chunk:
        """The call of a tool: its arguments are read when all of them are there."""
        block = self._blocks[index]
        if block["type"] != "tool_use" or index in self._ended:
            return Chunk()
        self._ended.add(index)
        arguments: object = self._inputs[index] or block.get("input") or {}
        if isinstance(arguments, str):
            try:
                arguments = block["input"] = arguments_of(arguments)
            except ValueError:
                block["input"] = {"invalid": arguments}
        if block["name"] in self._wrapped and isinstance(arguments, dict):
            arguments = arguments.get(WRAPPED, arguments)
        if block["name"] == ANSWER:
            was_said = self._inputs[index] and ANSWER not in self._wrapped
            return Chunk("" if was_said else storable(json.dumps(arguments, ensure_ascii=False)))
        return Chunk(calls=[self._call(index, arguments)])

    def _call(self, index: int, arguments: object) -> CallPiece:
        block = self._blocks[index]
        return CallPiece(index, name_of(block["id"]) or "", name_of(block["name"]) or "", arguments)

    def state(self, calls: Sequence[ToolCall], extra: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        """Signed reasoning goes back with the results of tools, before the calls that it led to."""
        blocks = [block for _, block in sorted(self._blocks.items()) if _goes_back(block)]
        thought = any(block["type"] in ("thinking", "redacted_thinking") for block in blocks)
        return {STATE: blocks} if calls and thought else None

    async def flaw(self, at: ModelServer) -> Fault | None:
        return None
