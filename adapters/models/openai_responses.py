"""OpenAI's Responses, for servers that offer some models there only."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from adapters.models.chat_server import Sent
from adapters.models.chunk import Chunk, logprobs_in, name_of, storable
from adapters.models.faults import Fault, ServerError
from adapters.models.openai_compatible import azure_headers
from adapters.models.openai_request import AUDIO, choice, data_url, encoded, is_strict, named_schema
from adapters.models.server import ModelServer
from adapters.models.token_usage import usage_of
from adapters.models.tool_calls import CallPiece
from handlers.ports.models import Attachment, ChatMessage, ChatRequest, ToolCall

ENCRYPTED = "reasoning.encrypted_content"
LOGPROBS = "message.output_text.logprobs"

ABOUT_IT = re.compile("encrypted|include", re.IGNORECASE)
"""Words of a server that refuses to send encrypted reasoning."""

STATE = "reasoning"
"""The items of reasoning, which the server wants back before the calls that they led to."""


class Responses:
    """Nothing is stored at the server: reasoning comes encrypted, and goes back with the results of tools."""

    PATH = "/responses"
    OWN = frozenset(("model", "input", "stream", "max_output_tokens", "store", "previous_response_id", "background"))

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self._takes_encrypted = True

    def headers(self, key: str) -> Mapping[str, str]:
        return azure_headers(self.base_url, key)

    def refusal(self, request: ChatRequest) -> Fault | None:
        return None

    def sent(self, request: ChatRequest) -> Sent:
        given = {name: value for name, value in request.parameters.items() if value is not None}
        included = [*given.pop("include", ()), *([LOGPROBS] if "top_logprobs" in given else [])]
        if self._takes_encrypted:
            included.append(ENCRYPTED)
        if effort := given.pop("reasoning_effort", None):
            given["reasoning"] = {**given.get("reasoning", {}), "effort": effort}
        body: dict[str, Any] = {
            **given,
            "model": request.model,
            "input": [item for message in request.messages for item in _items(message)],
            "max_output_tokens": request.max_tokens,
            "store": False,
            "stream": True,
            **({"include": included} if included else {}),
        }
        if request.tools:
            body["tools"] = [
                {"type": "function", **tool._asdict(), "strict": is_strict(tool.parameters)} for tool in request.tools
            ]
            wanted = choice(request.tool_choice)
            body["tool_choice"] = wanted if isinstance(wanted, str) else {"type": "function", **wanted["function"]}
        if request.schema is not None:
            body["text"] = {**given.get("text", {}), "format": {"type": "json_schema", **named_schema(request.schema)}}
        return Sent(body)

    def learns(self, sent: Sent, fault: Fault) -> bool:
        """True if the server or the model has no encrypted reasoning."""
        refused = fault.code in ("bad_request", "unsupported", "server_error")
        learns = refused and ENCRYPTED in sent.body.get("include", ()) and bool(ABOUT_IT.search(fault.said))
        self._takes_encrypted = self._takes_encrypted and not learns
        return learns

    def reader(self, request: ChatRequest, sent: Sent) -> ResponsesReader:
        return ResponsesReader()


def _items(message: ChatMessage) -> list[dict[str, Any]]:
    if message.role == "tool":
        return [{"type": "function_call_output", "call_id": message.tool_call_id, "output": message.content}]
    items: list[dict[str, Any]] = [*(message.state or {}).get(STATE, ())]
    if message.attachments:
        text = [{"type": "input_text", "text": message.content}] if message.content else []
        items.append({"role": message.role, "content": [*text, *map(_part, message.attachments)]})
    elif message.content or not message.tool_calls:
        items.append({"role": message.role, "content": message.content})
    items += [
        {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments}
        for call in message.tool_calls
    ]
    return items


def _part(attachment: Attachment) -> dict[str, Any]:
    match attachment.kind:
        case "image":
            return {"type": "input_image", "image_url": data_url(attachment), "detail": attachment.detail or "auto"}
        case "audio":
            kind = AUDIO.get(attachment.media_type, attachment.media_type.partition("/")[2])
            return {"type": "input_audio", "input_audio": {"data": encoded(attachment), "format": kind}}
        case "document":
            return {"type": "input_file", "filename": attachment.name or "document", "file_data": data_url(attachment)}


class ResponsesReader:
    def __init__(self) -> None:
        self._reasoning: list[dict[str, Any]] = []

    def read(self, data: Any, name: str) -> Chunk:
        if data.get("object") == "response":  # an answer that is not streamed
            return self._whole(data)
        match data["type"]:
            case "response.output_text.delta":
                return Chunk(storable(data["delta"]), logprobs=logprobs_in(data.get("logprobs")))
            case "response.refusal.delta":
                return Chunk(storable(data["delta"]))
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                return Chunk(reasoning=storable(data["delta"]))
            case "response.output_item.added":
                return Chunk(calls=self._calls(data.get("output_index"), {**data["item"], "arguments": ""}))
            case "response.function_call_arguments.delta":
                return Chunk(calls=[CallPiece(data.get("output_index"), "", "", storable(data["delta"]))])
            case "response.output_item.done":
                return self._done(data["item"])
            case "response.completed" | "response.incomplete":
                return self._end(data["response"])
            case "response.failed":
                raise ServerError((data["response"].get("error")) or {"message": "the response failed."})
            case _:
                return Chunk()

    def _calls(self, index: object, item: Any) -> list[CallPiece]:
        if item.get("type") != "function_call":
            return []
        place = index if isinstance(index, int) else None
        return [CallPiece(place, name_of(item.get("call_id")) or "", name_of(item["name"]) or "", item["arguments"])]

    def _done(self, item: Any) -> Chunk:
        if item.get("type") == "reasoning":
            self._reasoning.append(item)
        return Chunk()

    def _end(self, response: Any) -> Chunk:
        reason = (response.get("incomplete_details") or {}).get("reason")
        return Chunk(
            finish=name_of(reason) or name_of(response.get("status")) or "completed",
            usage=usage_of(response.get("usage")),
            id=name_of(response.get("id")),
            model=name_of(response.get("model")),
            done=True,
        )

    def _whole(self, response: Any) -> Chunk:
        if error := response.get("error"):
            raise ServerError(error)
        text, thought, calls = "", "", list[CallPiece]()
        for index, item in enumerate(response["output"]):
            self._done(item)
            calls += self._calls(index, item)
            parts = item.get("content") or ()
            if item.get("type") == "message":
                text += "".join(storable(part.get("text") or part.get("refusal") or "") for part in parts)
            elif item.get("type") == "reasoning":
                thought += "".join(storable(part.get("text") or "") for part in (*(item.get("summary") or ()), *parts))
        return self._end(response)._replace(text=text, reasoning=thought, calls=calls)

    def state(self, calls: Sequence[ToolCall], extra: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        items = [item for item in self._reasoning if item.get("encrypted_content")]
        return {STATE: items} if calls and items else None

    async def flaw(self, at: ModelServer) -> Fault | None:
        return None
