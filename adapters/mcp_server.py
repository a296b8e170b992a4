"""Apps of a tenant as the tools of an MCP server, whatever its transport is."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, NamedTuple, Protocol

from jsonschema import Draft202012Validator
from mcp.server import Server, ServerRequestContext
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)

from adapters.jetstream.client import Client, Frame, NoOutcome, NotSent, Rejected, Unreachable
from domain.aggregate import new_id, sentence
from domain.chat.app import Variable
from domain.log import commit_id
from handlers.tools.app_arguments import CONVERSATION, QUERY, inputs, parameters, tool_name

PROGRESS_S = 0.2
"""Minimum interval between two notices of progress, in seconds."""

READ_S, PAUSE_S = 10.0, 0.2
"""Maximum time until the tables have an answer that the log has, and the interval between two looks, in seconds."""

SHOWN = 200
"""Characters of the answer so far that a notice of progress has."""

KEY = "headrace/idempotencyKey"
"""Entry of `_meta` by which a call is the same in another session."""

ANSWER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "answer": {"type": "string"},
        "citations": {
            "type": "array",
            "description": "Passages that the answer rests on",
            "items": {
                "type": "object",
                "properties": {
                    "position": {"type": "integer"},
                    "document": {"type": "string"},
                    "document_name": {"type": "string"},
                    "page": {"type": ["integer", "null"]},
                    "heading": {"type": ["string", "null"]},
                    "content": {"type": "string"},
                },
                "required": ["position", "document", "document_name", "page", "heading", "content"],
            },
        },
        "message": {"type": "string"},
        "conversation": {"type": "string", "description": "Give it to continue the conversation"},
    },
    "required": ["answer", "citations", "message", "conversation"],
}
"""JSON Schema of the result of a call."""

CITED: Sequence[str] = ANSWER["properties"]["citations"]["items"]["required"]


class SharedApp(NamedTuple):
    """An app that is offered as a tool."""

    id: str
    name: str
    description: str
    mode: str
    variables: Sequence[Variable]

    @property
    def arguments(self) -> dict[str, Any]:
        return parameters(self.variables, completion=self.mode == "completion", continues=True)


class Tables(Protocol):
    """The read model."""

    async def apps(self) -> Sequence[SharedApp]:
        """The apps that are offered now."""
        ...

    async def ended(self, message: str) -> Frame | None:
        """The last frame of an answer, with its words; None while it has not ended."""
        ...


@dataclass(frozen=True, slots=True)
class Caller:
    """The tenant's bus, and the end user whose questions the calls are. `session` is an id of the client's session."""

    client: Client
    user: str
    session: str
    patience: float = 300.0


def server(tables: Tables, caller: Caller) -> Server[Any]:
    """A server for one caller."""

    async def list_tools(context: Context, params: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=[_tool(name, shared) for name, shared in _named(await tables.apps()).items()])

    async def call_tool(context: Context, params: CallToolRequestParams) -> CallToolResult:
        try:
            if (shared := _named(await tables.apps()).get(params.name)) is None:
                return _failed("not_found", f"There is no tool {params.name!r}.")
            return await _Call(tables, caller, shared, context, params)()
        except Unreachable as error:
            return _failed("unreachable", str(error))

    return Server("headrace", version=version("headrace"), on_list_tools=list_tools, on_call_tool=call_tool)


Context = ServerRequestContext[Any, Any]


def _named(apps: Sequence[SharedApp]) -> dict[str, SharedApp]:
    """The apps by the names of their tools; of several with one name, all have the end of their id in it."""
    plain = [tool_name(shared.name) for shared in apps]
    return {
        f"{name}_{shared.id[-12:]}" if plain.count(name) > 1 else name: shared
        for name, shared in zip(plain, apps, strict=True)
    }


def _tool(name: str, shared: SharedApp) -> Tool:
    return Tool(
        name=name,
        title=shared.name,
        description=shared.description.strip() or f"Ask the app {shared.name!r}.",
        input_schema=shared.arguments,
        output_schema=ANSWER,
        annotations=ToolAnnotations(
            title=shared.name,
            read_only_hint=False,
            destructive_hint=shared.mode == "agent-chat",
            idempotent_hint=False,
            open_world_hint=shared.mode == "agent-chat",
        ),
    )


@dataclass(slots=True)
class _Call:
    """A question, by a command whose id follows from the request: a repeated one is the same message."""

    tables: Tables
    caller: Caller
    shared: SharedApp
    context: Context
    params: CallToolRequestParams
    text: str = ""
    shown_at: float = 0.0
    steps: int = 0

    async def __call__(self) -> CallToolResult:
        arguments = self.params.arguments or {}
        if fault := next(iter(Draft202012Validator(self.shared.arguments).iter_errors(arguments)), None):
            place = ".".join(map(str, fault.absolute_path)) or None
            return _failed("invalid_arguments", sentence(fault.message[:500], place))
        message, conversation = self._id(arguments), arguments.get(CONVERSATION)
        try:
            frame = await self._answer(arguments, message)
        except asyncio.CancelledError:
            await asyncio.shield(self._stop(conversation or message, message))
            raise
        except Rejected as rejected:
            return _failed(rejected.outcome["code"], str(rejected))
        except NotSent as error:
            return _failed(error.code, str(error))
        except NoOutcome as error:
            return _failed("timeout", str(error))
        return _result(frame, message, conversation or message)

    def _id(self, arguments: Mapping[str, Any]) -> str:
        meta: Mapping[str, Any] = self.context.meta or {}
        if isinstance(key := meta.get(KEY), str):
            return commit_id(self.shared.id, f"mcp:{self.caller.user}:{key}")
        asked = json.dumps([self.params.name, arguments], sort_keys=True)
        digest = hashlib.sha256(asked.encode()).hexdigest()
        return commit_id(self.caller.session, f"{self.context.request_id!r}:{digest}")

    async def _answer(self, arguments: Mapping[str, Any], message: str) -> Frame:
        """The last frame. Raises: Rejected, NotSent, NoOutcome, Unreachable."""
        if ended := await self.tables.ended(message):  # a repeated request
            return ended
        frame: Frame = {}
        asking = self.caller.client.ask(
            self.shared.id,
            arguments.get(QUERY, ""),
            conversation=arguments.get(CONVERSATION),
            inputs=inputs(self.shared.variables, arguments),
            user=self.caller.user,
            id=message,
            patience=self.caller.patience,
        )
        async with aclosing(asking) as frames:
            async for frame in frames:
                await self._show(frame)
        if frame.get("answer") or (frame["type"] == "failed" and frame.get("reason")):
            return frame
        return await self._read(message) or frame

    async def _read(self, message: str) -> Frame | None:
        """The last frame from the tables: one that came from the log has no words of people."""
        for _ in range(int(READ_S / PAUSE_S)):
            if found := await self.tables.ended(message):
                return found
            await asyncio.sleep(PAUSE_S)
        return None

    async def _show(self, frame: Frame) -> None:
        match frame:
            case {"type": "token", "text": text}:
                self.text += text
                if time.monotonic() - self.shown_at < PROGRESS_S:
                    return
                said = self.text[-SHOWN:]
            case {"type": "restarted"}:
                self.text = ""
                return
            case {"type": "tool", "name": name}:
                said = f"Calls {name}."
            case {"type": "held"}:
                said = "A call of a tool waits for a person."
            case _:
                return
        self.shown_at = time.monotonic()
        self.steps += 1
        await self.context.session.report_progress(self.steps, message=said)

    async def _stop(self, conversation: str, message: str) -> None:
        with suppress(NotSent, Unreachable):
            await self.caller.client.post("message.stop", {"conversation": conversation, "message": message}, new_id())


def _result(frame: Frame, message: str, conversation: str) -> CallToolResult:
    match frame:
        case {"type": "answered", "answer": answer}:
            citations = [{name: each[name] for name in CITED} for each in frame["citations"]]
            given = {"answer": answer, "citations": citations, "message": message, "conversation": conversation}
            return CallToolResult(content=[TextContent(type="text", text=answer)], structured_content=given)
        case {"type": "failed", "code": code, "reason": reason}:
            return _failed(code, reason)
    return _failed("stopped", "The answer was stopped.")


def _failed(code: str, reason: str) -> CallToolResult:
    return CallToolResult(
        content=[TextContent(type="text", text=f"{code}: {reason}")],
        structured_content={"error": {"code": code, "message": reason}},
        is_error=True,
    )
