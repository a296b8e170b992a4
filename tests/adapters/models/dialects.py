"""Answers of each kind of server, as a scripted one writes them."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

from adapters.models.chat_server import ChatServer
from adapters.models.kinds import KINDS
from adapters.models.server import Patience
from handlers.ports.models import ChatModel, ChatRequest, Delta, ModelError
from tests.chat_servers import LOOPBACK, Behaviour, Exchange, FaultyServer, faulty_server

KEY = "sk-live-3vKp+9/x2Qz7Lm=TtR"
PATIENCE = Patience(first_token=10, between_tokens=10, total=30)


def event(data: Any, name: str = "") -> str:
    return (f"event: {name}\n" if name else "") + f"data: {json.dumps(data)}\n\n"


class Dialect(Protocol):
    """Pieces of a stream: the tokens of each are 20 of the prompt and 5 of the answer."""

    kind: str
    target: str
    """The path of a request for the model `tiny`, with the base URL `http://host`."""

    def key(self, headers: dict[str, str]) -> str:
        """The key in the headers of a request."""
        return headers.get("authorization", "").removeprefix("Bearer ")

    def opening(self) -> str:
        return ""

    @abstractmethod
    def say(self, text: str) -> str: ...

    @abstractmethod
    def think(self, text: str) -> str: ...

    @abstractmethod
    def call(self, place: int, id: str, name: str, arguments: dict[str, Any]) -> str: ...

    @abstractmethod
    def end(self, *, cut: bool = False, calls: bool = False) -> str: ...

    @abstractmethod
    def error(self, message: str) -> str:
        """An error within the stream, which says that the server has too much to do."""
        ...

    def refusal(self, status: int, message: str) -> Any:
        """The body of an error."""
        return {"error": {"message": message, "type": "error", "code": status}}

    def streams(self, *pieces: str) -> Behaviour:
        async def behaviour(exchange: Exchange) -> None:
            await exchange.begin()
            for piece in filter(None, (self.opening(), *pieces)):
                await exchange.send(piece)
            await exchange.end()

        return behaviour


class Completions(Dialect):
    kind = "openai"
    target = "/chat/completions"

    def part(self, finish: str | None = None, **delta: Any) -> str:
        return event({"id": "a1", "model": "m1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    def say(self, text: str) -> str:
        return self.part(content=text)

    def think(self, text: str) -> str:
        return self.part(reasoning_content=text)

    def call(self, place: int, id: str, name: str, arguments: dict[str, Any]) -> str:
        text = json.dumps(arguments)
        first = {"index": place, "id": id, "type": "function", "function": {"name": name, "arguments": ""}}
        pieces = [{"index": place, "function": {"arguments": piece}} for piece in (text[:3], text[3:])]
        return "".join(self.part(tool_calls=[each]) for each in (first, *pieces))

    def end(self, *, cut: bool = False, calls: bool = False) -> str:
        used = {"choices": [], "usage": {"prompt_tokens": 20, "completion_tokens": 5}}
        return self.part("length" if cut else "tool_calls" if calls else "stop") + event(used) + "data: [DONE]\n\n"

    def error(self, message: str) -> str:
        return event({"error": {"message": message, "type": "overloaded_error"}})


class Responses(Dialect):
    kind = "openai_responses"
    target = "/responses"

    def opening(self) -> str:
        response: dict[str, Any] = {"id": "a1", "model": "m1", "status": "in_progress", "error": None, "output": []}
        return self.named("created", response=response)

    def named(self, name: str, **fields: Any) -> str:
        return event({"type": f"response.{name}", **fields}, f"response.{name}")

    def say(self, text: str) -> str:
        return self.named("output_text.delta", output_index=0, delta=text, logprobs=[])

    def think(self, text: str) -> str:
        return self.named("reasoning_summary_text.delta", output_index=0, delta=text)

    def call(self, place: int, id: str, name: str, arguments: dict[str, Any]) -> str:
        text = json.dumps(arguments)
        item = {"type": "function_call", "id": f"fc_{place}", "call_id": id, "name": name, "arguments": ""}
        pieces = [
            self.named("function_call_arguments.delta", output_index=place + 1, item_id=f"fc_{place}", delta=piece)
            for piece in (text[:3], text[3:])
        ]
        added = self.named("output_item.added", output_index=place + 1, item=item)
        done = self.named("output_item.done", output_index=place + 1, item={**item, "arguments": text})
        return added + "".join(pieces) + done

    def end(self, *, cut: bool = False, calls: bool = False) -> str:
        used = {"input_tokens": 20, "output_tokens": 5, "total_tokens": 25}
        response: dict[str, Any] = {"id": "a1", "model": "m1", "status": "completed", "usage": used}
        if cut:
            response |= {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
        return self.named(response["status"], response=response)

    def error(self, message: str) -> str:
        return event({"type": "error", "code": "overloaded", "message": message}, "error")


class Ollama(Dialect):
    kind = "ollama"
    target = "/api/chat"

    def line(self, **message: Any) -> str:
        body = {"model": "m1", "message": {"role": "assistant", "content": "", **message}, "done": False}
        return json.dumps(body) + "\n"

    def say(self, text: str) -> str:
        return self.line(content=text)

    def think(self, text: str) -> str:
        return self.line(thinking=text)

    def call(self, place: int, id: str, name: str, arguments: dict[str, Any]) -> str:
        return self.line(tool_calls=[{"function": {"name": name, "arguments": arguments}}])

    def end(self, *, cut: bool = False, calls: bool = False, prompt: int | None = 20) -> str:
        counted = {"eval_count": 5, **({"prompt_eval_count": prompt} if prompt is not None else {})}
        body = {"model": "m1", "message": {"role": "assistant", "content": ""}, "done": True}
        return json.dumps({**body, "done_reason": "length" if cut else "stop", **counted}) + "\n"

    def error(self, message: str) -> str:
        return json.dumps({"error": {"type": "overloaded_error", "message": message}}) + "\n"

    def refusal(self, status: int, message: str) -> Any:
        return {"error": message}

    def streams(self, *pieces: str) -> Behaviour:
        async def behaviour(exchange: Exchange) -> None:
            await exchange.begin("application/x-ndjson")
            for piece in pieces:
                await exchange.send(piece)
            await exchange.end()

        return behaviour


class Anthropic(Dialect):
    kind = "anthropic"
    target = "/v1/messages"

    def key(self, headers: dict[str, str]) -> str:
        assert headers["anthropic-version"] == "2023-06-01"
        return headers.get("x-api-key", "")

    def typed(self, type: str, **fields: Any) -> str:
        return event({"type": type, **fields}, type)

    def opening(self) -> str:
        message: dict[str, Any] = {"id": "a1", "model": "m1", "role": "assistant", "content": [], "stop_reason": None}
        return self.typed("message_start", message={**message, "usage": {"input_tokens": 20, "output_tokens": 1}})

    def block(self, index: int, block: dict[str, Any], *deltas: dict[str, Any]) -> str:
        return (
            self.typed("content_block_start", index=index, content_block=block)
            + self.typed("ping")
            + "".join(self.typed("content_block_delta", index=index, delta=delta) for delta in deltas)
            + self.typed("content_block_stop", index=index)
        )

    def say(self, text: str) -> str:
        return self.block(1, {"type": "text", "text": ""}, {"type": "text_delta", "text": text})

    def think(self, text: str) -> str:
        deltas = {"type": "thinking_delta", "thinking": text}, {"type": "signature_delta", "signature": "c2ln"}
        return self.block(0, {"type": "thinking", "thinking": "", "signature": ""}, *deltas)

    def call(self, place: int, id: str, name: str, arguments: dict[str, Any]) -> str:
        text = json.dumps(arguments)
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", text[:3], text[3:])]
        return self.block(2 + place, {"type": "tool_use", "id": id, "name": name, "input": {}}, *deltas)

    def end(self, *, cut: bool = False, calls: bool = False) -> str:
        reason = "max_tokens" if cut else "tool_use" if calls else "end_turn"
        delta = {"stop_reason": reason, "stop_sequence": None}
        return self.typed("message_delta", delta=delta, usage={"output_tokens": 5}) + self.typed("message_stop")

    def error(self, message: str) -> str:
        return self.typed("error", error={"type": "overloaded_error", "message": message})

    def refusal(self, status: int, message: str) -> Any:
        return {"type": "error", "error": {"type": "some_error", "message": message}, "request_id": "r"}


class Gemini(Dialect):
    kind = "gemini"
    target = "/v1beta/models/tiny:streamGenerateContent?alt=sse"

    def key(self, headers: dict[str, str]) -> str:
        return headers.get("x-goog-api-key", "")

    def parts(self, *parts: dict[str, Any], **fields: Any) -> str:
        candidate = {"content": {"role": "model", "parts": list(parts)}, "index": 0, **fields}
        used = {"promptTokenCount": 20, "totalTokenCount": 20}
        return event({"candidates": [candidate], "usageMetadata": used, "modelVersion": "m1", "responseId": "a1"})

    def say(self, text: str) -> str:
        return self.parts({"text": text})

    def think(self, text: str) -> str:
        return self.parts({"text": text, "thought": True})

    def call(self, place: int, id: str, name: str, arguments: dict[str, Any]) -> str:
        return self.parts({"functionCall": {"name": name, "args": arguments}, "thoughtSignature": "c2ln"})

    def end(self, *, cut: bool = False, calls: bool = False) -> str:
        used = {"promptTokenCount": 20, "candidatesTokenCount": 5, "totalTokenCount": 25}
        candidate = {"finishReason": "MAX_TOKENS" if cut else "STOP", "index": 0}
        return event({"candidates": [candidate], "usageMetadata": used, "modelVersion": "m1", "responseId": "a1"})

    def error(self, message: str) -> str:
        return event({"error": {"code": 503, "message": f"overloaded: {message}", "status": "UNAVAILABLE"}})

    def refusal(self, status: int, message: str) -> Any:
        return {"error": {"code": status, "message": message, "status": "SOME_STATUS"}}


DIALECTS: list[Dialect] = [Completions(), Responses(), Ollama(), Anthropic(), Gemini()]


@asynccontextmanager
async def model_of(
    dialect: Dialect, behaviour: Behaviour, patience: Patience = PATIENCE, key: str = KEY, base: str = ""
) -> AsyncIterator[tuple[ChatServer, FaultyServer]]:
    """A model at a server of this kind; `base` is the path of its base URL."""
    async with faulty_server(behaviour) as server:
        url = server.url.removesuffix("/v1") + base
        model = KINDS[dialect.kind](LOOPBACK, "default", url, key, patience)
        try:
            yield model, server
        finally:
            await model.close()


async def tried(model: ChatModel, asked: ChatRequest) -> list[Delta]:
    """The answer, at the third try at most: made again as handlers do, after a fault that passes."""
    for left in (2, 1, 0):
        try:
            return [delta async for delta in model.stream(asked)]
        except ModelError as error:
            if not (error.passing and left):
                raise
    raise AssertionError
