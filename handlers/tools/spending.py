"""The tokens and the cost of the rounds of an agent, and their limits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from domain.chat.app import AgentSettings
from domain.chat.conversation import Usage
from domain.models.model_call import ModelCall
from handlers.models.arguments import arguments_of
from handlers.models.choose import Choose
from handlers.models.model_calls import Chat
from handlers.ports.models import ChatModel, ToolCall
from handlers.repository import Repository

SAME_CALLS = 3
"""Rounds in a row with the same calls after which the model must answer."""


@dataclass(slots=True)
class Spending:
    repository: Repository
    choose: Choose[ChatModel]
    tenant: str
    settings: AgentSettings
    usage: Usage = field(default_factory=lambda: Usage(prompt_tokens=0, completion_tokens=0, estimated=False))
    cost: float = 0.0
    same: int = 0
    before: list[str] = field(default_factory=list)
    """The calls of the last round, as text."""

    def limit(self, round: int) -> str:
        """The limit by which this round is the last one; empty for none."""
        spent = self.usage["prompt_tokens"] + self.usage["completion_tokens"]
        if round >= self.settings["rounds"]:
            return "max_rounds"
        if self.settings["tokens"] is not None and spent >= self.settings["tokens"]:
            return "max_tokens"
        if self.settings["cost"] is not None and self.cost >= self.settings["cost"]:
            return "max_cost"
        return "repetition" if self.same >= SAME_CALLS else ""

    def called(self, asked: Sequence[ToolCall]) -> None:
        """Note the calls of a round."""
        calls = sorted(f"{call.name} {_same(call.arguments)}" for call in asked)
        self.same = self.same + 1 if calls == self.before else 1
        self.before = calls

    async def count(self, chat: Chat) -> None:
        """Add the tokens of a round, and what they cost."""
        assert chat.usage is not None
        self.usage = Usage(
            prompt_tokens=self.usage["prompt_tokens"] + chat.usage["prompt_tokens"],
            completion_tokens=self.usage["completion_tokens"] + chat.usage["completion_tokens"],
            estimated=self.usage["estimated"] or chat.usage["estimated"],
        )
        if self.settings["cost"] is None:
            return
        call = await self.repository.get(ModelCall, self.tenant, chat.id)
        known = await self.choose.known(self.tenant, call.provider, call.model) if call else None
        self.cost += (known.cost(chat.usage) if known else None) or 0.0


def _same(arguments: str) -> str:
    """The text of arguments, equal for equal ones."""
    try:
        return json.dumps(arguments_of(arguments), sort_keys=True)
    except ValueError:
        return arguments
