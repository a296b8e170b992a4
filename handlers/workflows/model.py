"""Calls of chat models by nodes: with memory, files, tools and structured answers, streamed as they come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from domain.chat.app import ModelSettings
from domain.models.abilities import SENSES
from domain.workflows import prompt
from domain.workflows.lenient_json import first_object
from domain.workflows.needs import last_part
from domain.workflows.nodes.llm import Spoken
from domain.workflows.requests import Message, ModelAnswer, ModelRequest
from domain.workflows.values import File
from handlers.abilities import Abilities
from handlers.cause import Cause
from handlers.models.attachments import stored
from handlers.models.choose import Choose, Known
from handlers.models.model_calls import Chat, ModelCalls
from handlers.models.prompt import MESSAGE_TOKENS, Record, estimate, file_tokens, literal
from handlers.ports.files import Fetch, NotFetched
from handlers.ports.models import Attachment, ChatMessage, ChatModel, ChatRequest, ModelError, Tool, ToolCall
from handlers.workflows.execution import Execution
from handlers.workflows.run_files import read

STEP, BY_TEXT = "chat", "chat:text"
"""The step of the call, and of another one without tools."""

WINDOW, ANSWER = 8192, 4096
"""Tokens of a model whose context is not known, and the most that are reserved for an answer, where a node does not
say."""

LARGEST: Final = 15 * 2**20
"""Maximum bytes of a file that a model is sent."""

OWN: Final = frozenset({"max_tokens", "response_format", "json_schema", "stop"})
"""Parameters that are fields of a request."""

KINDS: Final[Mapping[str, Any]] = {"image": "image", "audio": "audio", "document": "document"}


@dataclass(frozen=True, slots=True)
class CallModel:
    calls: ModelCalls
    choose: Choose[ChatModel]
    abilities: Abilities
    fetch: Fetch

    async def __call__(self, execution: Execution) -> ModelAnswer:
        """Raises: ModelError, TooLarge, Erased; Unavailable."""
        request: ModelRequest = execution.request
        cause = execution.cause
        if cause.attempt > 1:
            cause = await self.calls.take_over(cause, STEP, BY_TEXT)
        provider = last_part(request.provider)
        able = await self.abilities.of(execution.tenant, provider, request.model)
        if request.otherwise and (able.get("tools") is False or BY_TEXT in cause.completed):
            return await self._call(execution, cause, request.otherwise, able, BY_TEXT)
        try:
            return await self._call(execution, cause, request, able, STEP)
        except ModelError as error:
            if request.otherwise is None or error.code not in ("unsupported", "bad_request"):
                raise
            return await self._call(execution, cause, request.otherwise, able, BY_TEXT)

    async def _call(
        self, execution: Execution, cause: Cause, request: ModelRequest, able: Mapping[str, bool], step: str
    ) -> ModelAnswer:
        provider = last_part(request.provider)
        known = await self.choose.known(execution.tenant, provider, request.model)
        window = known.context_window or WINDOW
        most = int(request.parameters.get("max_tokens") or min(ANSWER, window // 2))
        takes = [kind for kind in KINDS if able.get(kind, kind in SENSES)]
        turns = await execution.around.history() if request.memory else []
        parameters = {**request.parameters, "max_tokens": most}
        request = prompt.put_together(
            prompt.seen(replace(request, parameters=parameters), takes), turns, _tokens, window
        )
        sent = [await self._message(execution, each) for each in request.messages]
        secrets = execution.around.secrets
        record = Record([literal(each, {}) for each in sent], {})
        settings = ModelSettings(
            provider=provider, name=request.model, max_tokens=most, context_window=window, parameters=_plain(request)
        )
        asked = ChatRequest(
            model=request.model,
            messages=[each._replace(content=secrets.revealed(each.content)) for each in sent],
            max_tokens=most,
            parameters=_plain(request),
            tools=[Tool(each["name"], each["description"], dict(each["parameters"])) for each in request.tools],
            tool_choice=request.tools[0]["name"] if len(request.tools) == 1 else "auto",
            schema=dict(request.schema) if request.schema else None,
            context_window=known.context_window or 0,
        )
        chat = self.calls.chat(cause, self.choose(execution.tenant, settings, asked), asked, record, step=step)
        await self._listen(execution, chat, streams=request.streams)
        return _answer(execution, chat, known, structured=request.schema is not None)

    async def _listen(self, execution: Execution, chat: Chat, *, streams: bool) -> None:
        """Hear the answer, and stream what of it is certain."""
        spoken = Spoken() if execution.call.node.data.get("reasoning_format") == "separated" else None
        shown = ""
        try:
            async with aclosing(chat.texts()) as texts:
                async for _ in texts:
                    if streams and chat.said.startswith(shown):
                        new, shown = chat.said[len(shown) :], chat.said
                        await _say(execution, spoken.take(new) if spoken else new)
        finally:
            tokens = chat.usage["prompt_tokens"] + chat.usage["completion_tokens"] if chat.usage else 0
            execution.took(chat.id, tokens)
        if streams and spoken:
            await _say(execution, spoken.rest())

    async def _message(self, execution: Execution, message: Message) -> ChatMessage:
        files = [await self._attachment(execution, file, message.detail) for file in message.files]
        calls = [ToolCall(each["id"], each["name"], each["arguments"]) for each in message.calls]
        role = cast("Any", message.role)
        return ChatMessage(role, message.text, tuple(files), tuple(calls), message.call_id or "")

    async def _attachment(self, execution: Execution, file: File, detail: str) -> Attachment:
        """A file, stored. Raises: ModelError; Erased; Unavailable."""
        try:
            fetched = await read(execution, self.fetch, file, LARGEST)
        except NotFetched as error:
            raise ModelError(error.code, f"The file {file.filename} was not fetched: {error.reason}") from None
        kind = KINDS.get(file.type, "document")
        shown = detail if kind == "image" else ""
        media_type = fetched.media_type or "application/octet-stream"
        attachment = Attachment(kind, media_type, fetched.data, file.filename or "", shown)
        return await stored(execution.around.files, execution.tenant, execution.person, attachment)


async def _say(execution: Execution, text: str) -> None:
    if text:
        await execution.say("text", execution.around.secrets.withheld(text))


def _plain(request: ModelRequest) -> dict[str, Any]:
    """The parameters that are passed on to the model."""
    plain = {name: value for name, value in request.parameters.items() if name not in OWN and value is not None}
    return {**plain, "stop": list(request.stop)} if request.stop else plain


def _tokens(messages: Sequence[Message]) -> int:
    """The tokens of messages, by a careful estimate."""
    files = sum(file_tokens(file.type, max(file.size, 0)) for message in messages for file in message.files)
    return files + sum(estimate(message.text) + MESSAGE_TOKENS for message in messages)


def _answer(execution: Execution, chat: Chat, known: Known, *, structured: bool) -> ModelAnswer:
    withheld = execution.around.secrets.withheld
    text = withheld(chat.said)
    calls = tuple({"name": call.name, "arguments": withheld(call.arguments)} for call in chat.tool_calls)
    assert chat.usage is not None
    usage: dict[str, Any] = {name: chat.usage[name] for name in ("prompt_tokens", "completion_tokens")}
    usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
    if (price := known.cost(chat.usage)) is not None:
        usage |= {"total_price": f"{price:.7f}", "currency": "USD"}
    found = first_object(text) if structured else None
    return ModelAnswer(text, usage, chat.finish_reason, calls, found, withheld(chat.reasoning))
