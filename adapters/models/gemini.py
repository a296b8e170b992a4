"""Google's Gemini: `streamGenerateContent`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from adapters.models.chat_server import Sent
from adapters.models.chunk import Chunk, name_of, storable
from adapters.models.faults import Fault, ServerError
from adapters.models.openai_request import encoded
from adapters.models.server import ModelServer
from adapters.models.token_usage import usage_in
from adapters.models.tool_calls import CallPiece
from handlers.models.arguments import arguments_of
from handlers.ports.models import ChatMessage, ChatRequest, ToolCall

NAMES = {
    "top_p": "topP",
    "top_k": "topK",
    "stop": "stopSequences",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "logprobs": "responseLogprobs",
    "top_logprobs": "logprobs",
}
"""Names of the generation's settings, by those of OpenAI."""

FIELDS = frozenset(("safetySettings", "cachedContent", "labels", "serviceTier"))
"""Parameters that are no settings of the generation."""

STATE = "parts"
"""The parts of an answer with signatures, which the server wants back as they were."""

_VERSION = re.compile(r"/v[0-9][a-z0-9]*\Z")
_MODEL = re.compile(r"[^A-Za-z0-9._/-]")


class Gemini:
    PATH = "/models"
    OWN = frozenset(("contents", "systemInstruction", "tools", "toolConfig", "maxOutputTokens", "model", "stream"))

    def __init__(self, base_url: str) -> None:
        path, mark, query = base_url.partition("?")
        root = path.rstrip("/").removesuffix(self.PATH).removesuffix("/openai")
        self.base_url = f"{root if _VERSION.search(root) else f'{root}/v1beta'}{mark}{query}"

    def headers(self, key: str) -> Mapping[str, str]:
        return {"x-goog-api-key": key} if key else {}

    def refusal(self, request: ChatRequest) -> Fault | None:
        if _MODEL.search(request.model) or ".." in request.model:
            return Fault("bad_request", f"{request.model!r} is not the name of a Gemini model.")
        return None

    def sent(self, request: ChatRequest) -> Sent:
        given = {name: value for name, value in request.parameters.items() if value is not None}
        settings = {NAMES.get(name, name): value for name, value in given.items() if name not in FIELDS}
        if isinstance(settings.get("stopSequences"), str):
            settings["stopSequences"] = [settings["stopSequences"]]
        settings["maxOutputTokens"] = request.max_tokens
        if request.schema is not None:
            settings |= {"responseMimeType": "application/json", "responseJsonSchema": request.schema}
        system = [{"text": message.content} for message in request.messages if message.role == "system"]
        body: dict[str, Any] = {
            **{name: value for name, value in given.items() if name in FIELDS},
            "contents": _contents(request.messages),
            "generationConfig": settings,
            **({"systemInstruction": {"parts": system}} if system else {}),
            **_tools(request),
        }
        model = request.model.removeprefix("models/")
        return Sent(body, f"{self.PATH}/{model}:streamGenerateContent?alt=sse")

    def learns(self, sent: Sent, fault: Fault) -> bool:
        return False

    def reader(self, request: ChatRequest, sent: Sent) -> GeminiReader:
        return GeminiReader()


def _tools(request: ChatRequest) -> dict[str, Any]:
    if not request.tools:
        return {}
    declared = [
        {"name": tool.name, "description": tool.description, "parametersJsonSchema": tool.parameters}
        for tool in request.tools
    ]
    modes = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
    config: dict[str, Any] = {"mode": modes.get(request.tool_choice, "ANY")}
    if request.tool_choice not in modes:
        config["allowedFunctionNames"] = [request.tool_choice]
    return {"tools": [{"functionDeclarations": declared}], "toolConfig": {"functionCallingConfig": config}}


def _contents(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Messages without those of the system; all results of tools that follow each other are one."""
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    sent: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "system" or not (parts := _parts(message, names)):
            continue
        role = "model" if message.role == "assistant" else "user"
        if sent and sent[-1]["role"] == role:
            sent[-1]["parts"] += parts
        else:
            sent.append({"role": role, "parts": parts})
    return sent


def _parts(message: ChatMessage, names: Mapping[str, str]) -> list[dict[str, Any]]:
    if message.role == "assistant" and message.state and STATE in message.state:
        return list(message.state[STATE])
    files = [
        {"inlineData": {"mimeType": attachment.media_type, "data": encoded(attachment)}}
        for attachment in message.attachments
    ]
    if message.role == "tool":
        response = {"name": names.get(message.tool_call_id, ""), "response": {"result": message.content}}
        return [{"functionResponse": {"id": message.tool_call_id, **response}}, *files]
    text = [{"text": message.content}] if message.content else []
    calls = [
        {"functionCall": {"id": call.id, "name": call.name, "args": _object(call.arguments)}}
        for call in message.tool_calls
    ]
    return [*text, *files, *calls]


def _object(arguments: str) -> dict[str, Any]:
    try:
        return arguments_of(arguments)
    except ValueError:
        return {"invalid": arguments}


class GeminiReader:
    def __init__(self) -> None:
        self._parts: list[dict[str, Any]] = []
        self._calls = 0

    def read(self, data: Any, name: str) -> Chunk:
        candidates = data.get("candidates") or []
        blocked = (data.get("promptFeedback") or {}).get("blockReason")
        if blocked and not candidates:
            raise ServerError({"code": "content_filter", "message": f"the prompt was blocked: {blocked}."})
        candidate = candidates[0] if candidates else {}
        parts = (candidate.get("content") or {}).get("parts") or []
        for part in parts:
            self._keep(part)
        return Chunk(
            "".join(storable(part.get("text") or "") for part in parts if not part.get("thought")),
            "".join(storable(part.get("text") or "") for part in parts if part.get("thought")),
            name_of(candidate.get("finishReason")),
            usage_in(data),
            name_of(data.get("responseId")),
            name_of(data.get("modelVersion")),
            [self._call(part["functionCall"]) for part in parts if "functionCall" in part],
            _logprobs(candidate.get("logprobsResult") or {}),
        )

    def _keep(self, part: dict[str, Any]) -> None:
        """Keep a part as it goes back; plain texts that follow each other are one."""
        last = self._parts[-1] if self._parts else {}
        if part.keys() <= {"text", "thought"} and last.keys() == part.keys():
            last["text"] += part["text"]
        else:
            self._parts.append(dict(part))

    def _call(self, call: Any) -> CallPiece:
        """Every call comes whole."""
        self._calls += 1
        return CallPiece(self._calls, name_of(call.get("id")) or "", name_of(call["name"]) or "", call.get("args"))

    def state(self, calls: Sequence[ToolCall], extra: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        """Signatures go back with the parts that had them; calls get the ids that their results will name."""
        if not any("thoughtSignature" in part for part in self._parts):
            return None
        ids = iter(call.id for call in calls)
        for part in self._parts:
            if "functionCall" in part and (id := next(ids, None)):
                part["functionCall"] = {**part["functionCall"], "id": id}
        return {STATE: [part for part in self._parts if not part.get("thought")]}

    async def flaw(self, at: ModelServer) -> Fault | None:
        return None


def _logprobs(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    chosen = [_token(each) for each in found.get("chosenCandidates") or []]
    others = [[_token(each) for each in top.get("candidates") or []] for top in found.get("topCandidates") or []]
    others += [[]] * (len(chosen) - len(others))
    return [{**token, **({"top_logprobs": top} if top else {})} for token, top in zip(chosen, others, strict=False)]


def _token(each: Mapping[str, Any]) -> dict[str, Any]:
    return {"token": storable(each.get("token") or ""), "logprob": float(each.get("logProbability") or 0.0)}
