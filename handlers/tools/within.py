"""The calls that a call of a tool makes itself: of chat models, and of tools that its agent may call."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import orjson

from domain.chat.app import ModelSettings
from domain.log import commit_id
from domain.tools.tool_call import ToolCall
from handlers.cause import Cause
from handlers.models.choose import Choose
from handlers.models.model_calls import Chat, ModelCalls
from handlers.models.prompt import Record, literal
from handlers.ports.models import ChatModel, ChatRequest, ChatUsage, Delta
from handlers.ports.models import ToolCall as Asked
from handlers.ports.strategies import named
from handlers.ports.tools import AskedModel, Refused, Result
from handlers.tools.offer import Offered
from handlers.tools.tool_calls import Made, Task, ToolCalls

STEP = "llm"
"""The series of the calls of models that a tool makes."""

MOST_CALLS = 50
"""Maximum number of calls of models that a call of a tool makes, and of calls of tools."""

DEEPEST = 3
"""Maximum number of tools that call each other in a row."""

TOKENS = 1024
"""Tokens reserved for an answer where a plugin names no number."""

LONGEST = 1_000_000
"""Maximum length of an answer, in characters."""


@dataclass(slots=True)
class CallsWithin:
    """The calls of one call of a tool, as CallBacks."""

    models: ModelCalls
    choose: Choose[ChatModel]
    tools: ToolCalls
    task: Task
    id: str
    offered: Mapping[str, Offered]
    made: Iterator[int] = field(default_factory=itertools.count)
    called: Iterator[int] = field(default_factory=itertools.count)

    @property
    def cause(self) -> Cause:
        """Of what the call makes itself."""
        return self.task.cause.within(self.id)

    async def lose(self) -> None:
        """As Within."""
        await self.models.take_over(self.cause, series=[STEP])
        for attempt in range(1, self.task.cause.attempt):
            ids = [self._id(attempt, number) for number in range(MOST_CALLS)]
            known = await self.tools.repository.all(ToolCall, self.cause.metadata.tenant, ids)
            await self.tools.lose(self.cause, [id for id, call in known.items() if not call.ended])

    async def model(self, asked: AskedModel) -> AsyncGenerator[Delta]:
        if (number := next(self.made)) >= MOST_CALLS:
            raise Refused(f"A call of a tool makes at most {MOST_CALLS} calls of models.")
        cause, settings = self.cause, settings_of(asked, self.task.configuration["model"])
        request = ChatRequest(
            settings["name"],
            list(asked.messages),
            settings["max_tokens"],
            asked.parameters,
            tools=asked.tools,
            context_window=settings["context_window"],
        )
        record = Record([literal(each, {"from": "plugin", "tool_call": self.id}) for each in asked.messages], {})
        course = self.choose(cause.metadata.tenant, settings, request)
        chat = self.models.chat(cause, course, request, record, step=f"{STEP}:{number}")
        async with aclosing(chat.texts()) as texts:
            async for text in texts:
                if len(chat.said) > LONGEST:
                    raise Refused(f"The answer has more than {LONGEST:,} characters.")
                yield Delta(text)
        yield end_of(chat)

    async def tool(self, toolset: str, tool: str, arguments: dict[str, Any]) -> Result:
        offered = self.offered.get(name_of(self.offered, toolset, tool))
        if offered is None or offered.toolset != toolset:
            raise Refused(f"The agent of the app has no tool {tool[:100]!r} in a toolset {toolset[:100]!r}.")
        if offered.waits:
            raise Refused(f"A call of {tool} waits for a person, which a call within another one cannot.")
        if self.cause.prefix.count("tool:") > DEEPEST:
            raise Refused(f"At most {DEEPEST} tools may call each other in a row.")
        if (number := next(self.called)) >= MOST_CALLS:
            raise Refused(f"A call of a tool makes at most {MOST_CALLS} calls of tools.")
        task = self.task._replace(cause=self.cause, within=self.id)
        asked = Asked(f"call{number:05d}", offered.name, orjson.dumps(arguments).decode())
        id = self._id(task.cause.attempt, number)
        made = await self.tools.make(task, number, id, asked, self.offered, None)
        if not made.call.ended:
            await self.tools.cancel(self.cause, [id])
            raise Refused(f"{tool} asks the user, which a call within another one cannot.")
        return result_of(made, made.observed.text)

    def _id(self, attempt: int, number: int) -> str:
        return commit_id(self.id, f"tool:{attempt}:{number}")


@dataclass(frozen=True, slots=True)
class CallWithin:
    """Has calls of tools make calls themselves, as ToolCalls asks for."""

    models: ModelCalls
    choose: Choose[ChatModel]

    def __call__(self, tools: ToolCalls, task: Task, id: str, offered: Mapping[str, Offered]) -> CallsWithin:
        return CallsWithin(self.models, self.choose, tools, task, id, offered)


def settings_of(asked: AskedModel, own: ModelSettings) -> ModelSettings:
    """The app's `own` model, or another one of the tenant, as a plugin names it."""
    if (asked.provider, asked.model) in (named(own), ("", "")):
        return {**own, "parameters": asked.parameters, "max_tokens": asked.max_tokens or own["max_tokens"]}
    return ModelSettings(
        provider=asked.provider,
        name=asked.model,
        max_tokens=asked.max_tokens or TOKENS,
        context_window=own["context_window"],
        parameters=asked.parameters,
    )


def end_of(chat: Chat) -> Delta:
    """The last piece of an answer: the tokens, and the calls of tools."""
    used = chat.usage
    tokens = ChatUsage(used["prompt_tokens"], used["completion_tokens"]) if used else None
    return Delta("", chat.finish_reason or "stop", tokens, tool_calls=chat.tool_calls)


def result_of(made: Made, text: str) -> Result:
    """The result of a call, as a plugin is given it."""
    return Result(text, parts=[part for part in made.call.parts if part["type"] == "json"])


def name_of(offered: Mapping[str, Offered], toolset: str, tool: str) -> str:
    """The name that a tool of a toolset is offered by; that of the tool where it is not offered."""
    return next(
        (name for name, each in offered.items() if (each.toolset, each.definition["name"]) == (toolset, tool)), tool
    )
