"""Agents in nodes: the turn of an agent, with the tools that the node names."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, cast

from domain.chat.app import AgentSettings, Configuration, ModelSettings, ToolChoice
from domain.chat.conversation import StrategyChange, Truncation
from domain.tools.tool_call import ToolCall
from domain.workflows.needs import last_part
from domain.workflows.node_type import Trouble, mapping, sequence, text, whole
from domain.workflows.requests import AgentRequest, ToolAnswer
from domain.workflows.run import RecordedCall
from handlers.models.model_calls import Chat
from handlers.models.prompt import MESSAGE_TOKENS, Prompt, Record, estimate, literal
from handlers.ports.models import ChatMessage
from handlers.tools.agent import Agent
from handlers.tools.tool_calls import Numbers
from handlers.tools.turn import Held, Said, Turn
from handlers.workflows.execution import Execution
from handlers.workflows.model import ANSWER, OWN, WINDOW
from handlers.workflows.run_files import made
from handlers.workflows.tool import SETTINGS

STRATEGIES: Final[Mapping[str, str]] = {
    "function_calling": "tools",
    "function_call": "tools",
    "react": "react",
}
"""Strategies by their names in files of Dify; others are chosen by the model's abilities."""

ROUNDS: Final = 5
"""Rounds of a node that states no number."""


@dataclass(frozen=True, slots=True)
class RunAgent:
    agent: Agent

    async def __call__(self, execution: Execution) -> ToolAnswer | Trouble:
        """Raises: ModelError, Rejection; Unavailable."""
        request: AgentRequest = execution.request
        model = mapping(request.parameters.get("model"))
        if not model:
            return Trouble("The agent has no model.")
        settings = await self._settings(execution, model)
        prompt = await self._prompt(execution, request)
        configuration = cast(
            "Configuration",
            {"number": 0, "model": settings, "datasets": [], "features": {"agent": _agent(request)}},
        )
        started = execution.around.started

        async def speak(chat: Chat) -> None:
            async with aclosing(chat.texts()) as texts:
                async for said in texts:
                    await execution.say("text", execution.around.secrets.withheld(said))

        turn = Turn(
            execution.cause,
            started.conversation or "",
            configuration,
            prompt,
            Numbers(),
            started.timestamp.isoformat(),
            started.user,
            speak,
            _unseen,
            _unseen,
        )
        try:
            return _answer(execution, await self.agent(turn))
        except Held:
            return Trouble("A tool asks the user, which a node of a run cannot wait for; ask by a form before it.")

    async def _settings(self, execution: Execution, model: Mapping[str, Any]) -> ModelSettings:
        provider, name = last_part(model.get("provider")), text(model.get("model") or model.get("name"))
        known = await self.agent.choose.known(execution.tenant, provider, name)
        window = known.context_window or WINDOW
        given = mapping(model.get("completion_params"))
        return ModelSettings(
            provider=provider,
            name=name,
            max_tokens=whole(given.get("max_tokens"), min(ANSWER, window // 2)),
            context_window=window,
            parameters={each: value for each, value in given.items() if each not in OWN and value is not None},
        )

    async def _prompt(self, execution: Execution, request: AgentRequest) -> Prompt:
        turns = await execution.around.history() if request.memory else []
        turns = turns[-request.memory.window :] if request.memory and request.memory.window else turns
        messages = [ChatMessage("system", text(request.parameters.get("instruction")))]
        for question, answer in turns:
            messages += [ChatMessage("user", question), ChatMessage("assistant", answer)]
        messages.append(ChatMessage("user", text(request.parameters.get("query"))))
        record = Record([literal(each, {}) for each in messages], {})
        tokens = sum(estimate(each.content) + MESSAGE_TOKENS for each in messages)
        return Prompt(messages, record, [], Truncation(segments=0, messages=0), tokens)


def _agent(request: AgentRequest) -> AgentSettings:
    named = map(mapping, sequence(request.parameters.get("tools")))
    tools = [
        ToolChoice(
            toolset=last_part(each.get("provider_name") or each.get("provider_id")),
            tools=[text(each.get("tool_name"))],
            approve="never",
            digest=None,
        )
        for each in named
        if each.get("enabled") is not False
    ]
    strategy = STRATEGIES.get(request.strategy.lower(), "auto")
    rounds = max(1, whole(request.parameters.get("maximum_iterations"), ROUNDS))
    return AgentSettings(**{**SETTINGS, "strategy": strategy, "tools": tools, "rounds": rounds})


def _answer(execution: Execution, said: Said) -> ToolAnswer:
    usage = said.usage
    tokens = usage["prompt_tokens"] + usage["completion_tokens"]
    if said.chat:
        execution.took(said.chat.id, tokens)
    execution.made += [RecordedCall(noun=ToolCall.TOPIC, id=each.id) for each in said.made]
    counted = {name: usage[name] for name in ("prompt_tokens", "completion_tokens")} | {"total_tokens": tokens}
    parts = [*said.files, *(part for each in said.made for part in each.call.parts)]
    files = [
        made(part["digest"], part["size"], part.get("name") or None, part["media_type"])
        for part in parts
        if "digest" in part and "media_type" in part
    ]
    values = tuple(part["value"] for part in parts if part.get("type") == "json" and "value" in part)
    answer = execution.around.secrets.withheld(said.answer)
    return ToolAnswer(answer, tuple(files), values, {"usage": counted})


async def _unseen(frame: dict[str, Any] | StrategyChange) -> None:
    """Frames of runs are those of their steps."""
