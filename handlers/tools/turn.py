"""The turn of an agent: the message that it answers, and what comes of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from domain.chat.app import AgentSettings, Configuration
from domain.chat.conversation import StrategyChange, Usage
from handlers.cause import Cause
from handlers.models.model_calls import Chat
from handlers.models.prompt import Prompt
from handlers.ports.models import ModelError, ToolCall
from handlers.tools.tool_calls import Made, Numbers, Task


class Held(Exception):
    """Calls wait for a person."""

    def __init__(self, calls: Sequence[str]) -> None:
        super().__init__(f"{len(calls)} calls wait for a person.")
        self.calls = calls


@dataclass(frozen=True, slots=True)
class Turn:
    """The message that an agent answers. `numbers` has the passages in its prompt. `speak` streams an answer that is
    certain to be one, and `show` a live frame, of type `thought`, `tool`, `question` or `observation`; `change` records
    another strategy."""

    cause: Cause
    conversation: str
    configuration: Configuration
    prompt: Prompt
    numbers: Numbers
    at: str
    user: str
    speak: Callable[[Chat], Coroutine[Any, Any, None]]
    show: Callable[[dict[str, Any]], Awaitable[None]]
    change: Callable[[StrategyChange], Awaitable[None]]

    async def show_calls(self, round: int, asked: Sequence[ToolCall]) -> None:
        for call in asked:
            about = {"round": round, "name": call.name, "arguments": call.arguments, "id": call.id}
            await self.show({"type": "tool", **about})

    async def show_results(self, round: int, made: Sequence[Made]) -> None:
        for each in made:
            about = {"round": round, "call": each.id, "name": each.observed.call.name, "status": each.call.status}
            await self.show({"type": "observation", **about, "text": each.observed.text})

    def task(self, model_call: str, round: int) -> Task:
        """The turn as it calls the tools of a round, which this model call asked for."""
        configuration, settings = self.configuration, settings_of(self.configuration)
        resumed = self.cause.attempt > 1
        about = self.cause, self.conversation, configuration, settings, self.at, self.user, self.numbers
        return Task(*about, model_call, round, resumed, self.show)


class Said(NamedTuple):
    """The answer of an agent, by its last model call, None for none; and the calls and files that it made. `reason`
    says why the model had to answer, empty where it was done."""

    chat: Chat | None
    answer: str
    spoken: bool
    usage: Usage
    made: Sequence[Made]
    reason: str
    files: Sequence[dict[str, Any]] = ()


def settings_of(configuration: Configuration) -> AgentSettings:
    settings = configuration["features"]["agent"]
    assert settings is not None
    return settings


def identified(calls: Sequence[ToolCall], number: int) -> list[ToolCall]:
    """The calls of a round with ids: of nine letters and digits, as some servers ask for, where the model gave none."""
    return [each if each.id else each._replace(id=f"call{number:03d}{at:02d}") for at, each in enumerate(calls)]


def must_be_known(settings: AgentSettings, made: Sequence[Made]) -> None:
    """Raises: ModelError `tool_lost`, where an unknown outcome fails the message."""
    if settings["unknown"] == "fail" and any(each.call.code == "lost" for each in made):
        raise ModelError("tool_lost", "A worker died during a call of a tool: whether it did something is unknown.")
