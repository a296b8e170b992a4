"""Messages, tools and schemas of a request, in the form of OpenAI's chat completions."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import Any

from handlers.ports.models import Attachment, ChatMessage, ChatRequest, Tool

AUDIO = {"audio/mpeg": "mp3", "audio/mp3": "mp3", "audio/wav": "wav", "audio/x-wav": "wav", "audio/wave": "wav"}
"""Names of formats by media type; others go by the part after the slash."""


def asked(request: ChatRequest, id_of: Callable[[str], str] = str) -> dict[str, Any]:
    """The part of a body that the request sets; `id_of` gives the id of a call of a tool as the server takes it."""
    fields: dict[str, Any] = {"messages": [_message(message, id_of) for message in request.messages]}
    if request.tools:
        fields["tools"] = [{"type": "function", "function": tool._asdict()} for tool in request.tools]
        fields["tool_choice"] = choice(request.tool_choice)
        if fields["tool_choice"] == "auto":
            del fields["tool_choice"]
    if request.schema is not None:
        fields["response_format"] = {"type": "json_schema", "json_schema": named_schema(request.schema)}
    return fields


def choice(wanted: str) -> Any:
    return wanted if wanted in ("auto", "none", "required") else {"type": "function", "function": {"name": wanted}}


def named_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema with a name; it is strict where it keeps to what strict servers take."""
    return {"name": "answer", "schema": schema, **({"strict": True} if is_strict(schema) else {})}


def is_strict(schema: object) -> bool:
    """True if every object in a schema requires all of its properties and allows no others."""
    if isinstance(schema, list):
        return all(map(is_strict, schema))
    if not isinstance(schema, dict):
        return True
    properties = schema.get("properties", {})
    if (schema.get("type") == "object" or properties) and (
        schema.get("additionalProperties") is not False or set(schema.get("required", ())) != set(properties)
    ):
        return False
    return all(is_strict(each) for name, each in schema.items() if name not in ("enum", "const", "default", "examples"))


def short_id(id: str) -> str:
    """An id of nine letters and digits, as templates of Mistral want it."""
    return id if len(id) == 9 and id.isalnum() else hashlib.sha256(id.encode()).hexdigest()[:9]


def data_url(attachment: Attachment) -> str:
    return f"data:{attachment.media_type};base64,{encoded(attachment)}"


def encoded(attachment: Attachment) -> str:
    return base64.b64encode(attachment.data).decode()


def tool_schema(tool: Tool) -> dict[str, Any]:
    return {"type": "object", "properties": {}, **tool.parameters}


def _message(message: ChatMessage, id_of: Callable[[str], str]) -> dict[str, Any]:
    """A message without files goes as text alone, since servers without images refuse lists."""
    sent: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.attachments:
        text = [{"type": "text", "text": message.content}] if message.content else []
        sent["content"] = [*text, *map(_part, message.attachments)]
    if message.role == "tool":
        sent["tool_call_id"] = id_of(message.tool_call_id)
    if message.tool_calls:
        state = message.state or {}
        extra: Sequence[Mapping[str, Any]] = state.get("tool_calls", ())
        sent = {"content": None, **state.get("message", {}), "role": "assistant"}
        if message.content:
            sent["content"] = message.content
        sent["tool_calls"] = [
            {
                **more,
                "id": id_of(call.id),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call, more in zip(message.tool_calls, [*extra, *repeat({}, len(message.tool_calls))], strict=False)
        ]
    return sent


def _part(attachment: Attachment) -> dict[str, Any]:
    match attachment.kind:
        case "image":
            detail = {"detail": attachment.detail} if attachment.detail else {}
            return {"type": "image_url", "image_url": {"url": data_url(attachment), **detail}}
        case "audio":
            kind = AUDIO.get(attachment.media_type, attachment.media_type.partition("/")[2])
            return {"type": "input_audio", "input_audio": {"data": encoded(attachment), "format": kind}}
        case "document":
            name = attachment.name or "document"
            return {"type": "file", "file": {"filename": name, "file_data": data_url(attachment)}}
