"""Port of strategies of agents that are programs outside of this process."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import NamedTuple, Protocol

from domain.chat.app import ModelSettings, PluginStrategy
from handlers.cause import Cause
from handlers.ports.models import ChatMessage, Tool
from handlers.ports.tools import CallBacks, Output


class OfferedTool(NamedTuple):
    """A tool that a strategy may call, by a name that is unique among them."""

    toolset: str
    tool: Tool


class Brief(NamedTuple):
    """The parts of a turn that a strategy is given; `rounds` are the calls of models that it may make."""

    cause: Cause
    conversation: str
    strategy: PluginStrategy
    instructions: str
    query: str
    history: Sequence[ChatMessage]
    model: ModelSettings
    tools: Sequence[OfferedTool]
    rounds: int
    user: str


class Strategies(Protocol):
    def run(self, brief: Brief, backs: CallBacks) -> AsyncGenerator[str | Output]:
        """Yield the texts and files that a strategy gives, in their order; closed before its end, it is given up.

        Raises: ModelError, Unavailable.
        """
        ...


def named(model: ModelSettings) -> tuple[str, str]:
    """Provider and model of an app, as a strategy names them; those of a route, which chooses both."""
    return model["provider"] or "route", model["name"] or model.get("route", "")
