"""The turn of an agent: rounds of a model call and the calls of tools that it asks for, until there is an answer.

The log is its scratchpad: another attempt reads the rounds that were made, and goes on where they end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from domain.chat.app import AgentSettings, Configuration
from domain.chat.conversation import Message, StrategyChange
from domain.tools.tool_call import ToolCall as Recorded
from handlers.abilities import Abilities
from handlers.cause import Cause
from handlers.models.choose import Choose
from handlers.models.model_calls import Chat, ModelCalls
from handlers.models.prompt import MESSAGE_TOKENS, Draft, Record, estimate, plain
from handlers.ports.models import ChatModel, ChatRequest, ModelError, Tool, ToolCall
from handlers.ports.strategies import Strategies
from handlers.repository import Repository
from handlers.tools import strategies
from handlers.tools.offer import Offer, Offered
from handlers.tools.plugin_turn import PluginTurn
from handlers.tools.spending import Spending
from handlers.tools.strategies import STRATEGIES, Name, Read, Round
from handlers.tools.tool_calls import Made, ToolCalls, observation
from handlers.tools.turn import Held, Said, Turn, identified, must_be_known, settings_of

STEP = "agent"
"""Steps of the model calls of an agent, as `agent:<round>:<strategy>`."""

MOST_FAULTS = 2
"""Answers that break the form of a strategy before the turn takes the next one."""

SHORTEST_RESULT = 200
"""Tokens that a result must have room for; where there is less, the model must answer."""

RECALLED, MOST_RECALLED = 500, 50
"""Tokens of the result of a call of an earlier turn, and the maximum number of such calls in a prompt."""


@dataclass(frozen=True, slots=True)
class Agent:
    repository: Repository
    calls: ModelCalls
    choose: Choose[ChatModel]
    offer: Offer
    tools: ToolCalls
    abilities: Abilities
    plugins: Strategies | None = None

    async def __call__(self, turn: Turn) -> Said:
        """Raises: ModelError, Held, Rejection, Unavailable."""
        tenant = turn.cause.metadata.tenant
        offered = await self.offer(tenant, turn.configuration)
        settings = settings_of(turn.configuration)
        spending = Spending(self.repository, self.choose, tenant, settings)
        if not all(each.has_own_schema for each in offered.values()):
            self.tools.schemas.prepare(tenant)
        if settings["strategy"] == "plugin":
            return await PluginTurn(self.calls, self.tools, self.plugins, turn, offered, spending)()
        strategy = await self._first(tenant, turn.configuration) if offered else "tools"
        return await _Run(self, turn, settings, offered, strategy, spending)()

    async def recall(
        self, tenant: str, configuration: Configuration, history: Mapping[str, Message]
    ) -> dict[str, list[Draft]]:
        """The calls of earlier turns with their results, by message. Raises: Unavailable."""
        made = {message: tool_calls(turn) for message, turn in history.items()}
        newest = [id for each in made.values() for id in each][:MOST_RECALLED]
        calls = await self.repository.all(Recorded, tenant, newest) if newest else {}
        strategy = STRATEGIES[await self._first(tenant, configuration)]
        return {
            message: [draft for id in ids if id in calls for draft in strategy.messages(_recalled(calls[id]))]
            for message, ids in made.items()
            if any(id in calls for id in ids)
        }

    async def _first(self, tenant: str, configuration: Configuration) -> Name:
        """The strategy that a turn begins with. Raises: Unavailable."""
        model = configuration["model"]
        able = await self.abilities.of(tenant, model["provider"], model["name"])
        return strategies.first(settings_of(configuration)["strategy"], able)


@dataclass(slots=True)
class _Run:
    """One attempt at a turn."""

    agent: Agent
    turn: Turn
    settings: AgentSettings
    offered: Mapping[str, Offered]
    strategy: Name
    spending: Spending
    rounds: list[Round] = field(default_factory=list)
    faults: int = 0
    made: list[Made] = field(default_factory=list)
    drafts: list[Draft] = field(default_factory=list)
    """The rounds, in the form of the strategy."""
    tools: Sequence[Tool] = field(init=False)
    room: int = field(init=False)
    """Tokens that are left for rounds and their results, by a careful estimate."""

    def __post_init__(self) -> None:
        self.tools = [each.tool for each in self.offered.values()]
        model = self.turn.configuration["model"]
        tools = sum(estimate(str(tool)) for tool in self.tools)
        self.room = model["context_window"] - model["max_tokens"] - self.turn.prompt.prompt_tokens - tools

    async def __call__(self) -> Said:
        while True:
            reason = self._must_answer()
            chat = await self._ask(last=bool(reason))
            read = self._read(chat, last=bool(reason) and not chat.recalled)
            await self.spending.count(chat)
            if read.fault:
                await self._fault(chat, read)
            elif not read.calls:
                reason = reason if self.rounds else ""
                return Said(chat, read.said, not self.offered, self.spending.usage, self.made, reason)
            else:
                await self._call(chat, read)

    def _must_answer(self) -> str:
        """Why this round is the last one, without tools; empty where it need not be."""
        if not self.offered:
            return "no_tools"
        if reason := self.spending.limit(len(self.rounds) + 1):
            return reason
        return "context_full" if self.rounds and self.room < SHORTEST_RESULT else ""

    async def _ask(self, *, last: bool) -> Chat:
        """Make the model call of the next round, in the strategy that an earlier attempt made it with.

        Raises: ModelError, Unavailable.
        """
        number, cause = len(self.rounds) + 1, self.turn.cause
        if cause.attempt > 1:
            steps = {_step(number, each.name): each.name for each in STRATEGIES.values()}
            cause = await self.agent.calls.take_over(cause, *steps)
            made = [name for step, name in steps.items() if step in cause.completed]
            self._take(made[-1] if made else self.strategy)
        while True:
            chat = self._chat(cause, number, last=last)
            try:
                await self._listen(chat)
                return chat
            except ModelError as error:
                if self.strategy != "tools" or last or error.code not in ("unsupported", "bad_request"):
                    raise
                await self._fall(number, f"The server refused a request with tools: {error.reason}")

    async def _listen(self, chat: Chat) -> None:
        """Without tools, all text is the answer, and is shown while it arrives; else it may be a thought."""
        if not self.offered:
            await self.turn.speak(chat)
            return
        async for _ in chat.texts():
            pass

    def _chat(self, cause: Cause, number: int, *, last: bool) -> Chat:
        strategy, prompt, model = STRATEGIES[self.strategy], self.turn.prompt, self.turn.configuration["model"]
        tools = self.tools
        first, below = prompt.messages[0], strategy.below(tools, last) if tools else ""
        written = [*prompt.messages, *(draft.message for draft in self.drafts)]
        recorded = [*prompt.record.messages, *(draft.recorded for draft in self.drafts)]
        if below:
            part = plain(f"\n\n{below}")
            written[0] = first._replace(content=first.content + part.text)
            opening = prompt.record.messages[0]
            assert "pieces" in opening
            recorded[0] = {**opening, "pieces": [*opening["pieces"], part.piece]}
        request = ChatRequest(
            model=model["name"],
            messages=written,
            max_tokens=model["max_tokens"],
            parameters=model["parameters"],
            context_window=model["context_window"],
        )
        if tools:
            request = strategy.apply(request, tools, last)
        course = self.agent.choose(cause.metadata.tenant, model, request)
        return self.agent.calls.chat(
            cause, course, request, Record(recorded, prompt.record.passages), step=_step(number, self.strategy)
        )

    def _read(self, chat: Chat, *, last: bool) -> Read:
        """Raises: ModelError `invalid_answer` when the last round has no answer."""
        read = STRATEGIES[self.strategy].read(chat.said, chat.tool_calls)
        if not last:
            return read
        if read.fault or (read.calls and not read.said.strip()):
            why = read.fault or f"It calls {read.calls[0].name!r}, which it may not."
            raise ModelError("invalid_answer", f"The last round of the agent gave no answer: {why}")
        return Read(read.said)

    async def _fault(self, chat: Chat, read: Read) -> None:
        """Show the model how its answer breaks the form; the second time, take the next strategy."""
        self._add(Round(self.strategy, read, (), chat.state))
        await self.turn.show({"type": "thought", "text": read.said, "fault": read.fault})
        self.faults += 1
        if self.faults >= MOST_FAULTS:
            await self._fall(len(self.rounds) + 1, read.fault)

    async def _fall(self, number: int, reason: str) -> None:
        """Raises: ModelError `invalid_answer` when there is no other strategy."""
        following = strategies.following(self.strategy)
        if following is None:
            raise ModelError("invalid_answer", f"The model keeps to no form of an agent: {reason}")
        change = StrategyChange(round=number, before=self.strategy, strategy=following, reason=reason[:1000])
        await self.turn.change(change)
        self._take(following)
        self.faults = 0

    def _take(self, strategy: Name) -> None:
        """Take this strategy, and write the rounds so far in its form."""
        if strategy != self.strategy:
            self.strategy, rounds, drafts = strategy, self.rounds, self.drafts
            self.room += _tokens(drafts)
            self.rounds, self.drafts = [], []
            for each in rounds:
                self._add(each)

    def _add(self, made: Round) -> None:
        drafts = STRATEGIES[self.strategy].messages(made)
        self.rounds.append(made)
        self.drafts += drafts
        self.room -= _tokens(drafts)

    async def _call(self, chat: Chat, read: Read) -> None:
        """Make the calls of a round. Raises: Held, ModelError `tool_lost`, Unavailable."""
        number, turn = len(self.rounds) + 1, self.turn
        if read.said:
            await turn.show({"type": "thought", "text": read.said, "round": number})
        asked = identified(read.calls, number)
        await turn.show_calls(number, asked)
        made = await self.agent.tools(turn.task(chat.id, number), asked, self.offered)
        await turn.show_results(number, made)
        if waiting := [each.id for each in made if not each.call.ended]:  # held, or released just now
            raise Held(waiting)
        must_be_known(self.settings, made)
        self._remember(chat, read, asked, made)
        if self.strategy != "react" and made and all(each.fault for each in made):
            self.faults += 1
            if self.faults >= MOST_FAULTS and strategies.following(self.strategy):
                await self._fall(number + 1, made[0].call.reason)

    def _remember(self, chat: Chat, read: Read, asked: Sequence[ToolCall], made: Sequence[Made]) -> None:
        self.spending.called(asked)
        self.made += made
        room = max(self.room // len(made), SHORTEST_RESULT)
        observed = [each.observed.within(room) for each in made]
        self._add(Round(self.strategy, read._replace(calls=tuple(asked)), observed, chat.state))


def _tokens(drafts: Sequence[Draft]) -> int:
    """Tokens of messages, by a careful estimate."""
    said = sum(estimate(draft.message.content) + MESSAGE_TOKENS for draft in drafts)
    return said + sum(estimate(call.name + call.arguments) for draft in drafts for call in draft.tool_calls)


def tool_calls(turn: Message) -> list[str]:
    """The tool calls of an earlier turn."""
    return [part["id"] for part in turn.get("parts", ()) if part["type"] == "tool_call"]


def _recalled(call: Recorded) -> Round:
    """A call of an earlier turn, as a round of its own."""
    asked = ToolCall(call.id.replace("-", "")[-9:], call.name, call.arguments)
    observed = observation(call, asked).within(RECALLED)
    return Round("tools", Read("", [asked]), [observed])


def _step(number: int, strategy: str) -> str:
    return f"{STEP}:{number}:{strategy}"
