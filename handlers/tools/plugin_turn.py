"""A turn of an agent by the strategy of a plugin: what it calls back for is recorded as in any other turn.

Another attempt runs the strategy again from its beginning, and answers it from the log: its n-th call of a model gets
the answer of the n-th one before, and a call of a tool the result of the same call in that round.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, NoReturn

import orjson

from domain.log import commit_id
from domain.models.piece import InPieces, Piece
from domain.tools.tool_call import ToolCall
from handlers.cause import Cause
from handlers.models.model_calls import Chat, ModelCalls
from handlers.models.prompt import Record, estimate, literal
from handlers.ports.log import Unavailable
from handlers.ports.models import ChatMessage, ChatRequest, Delta, ModelError, Tool
from handlers.ports.models import ToolCall as Asked
from handlers.ports.strategies import Brief, OfferedTool, Strategies
from handlers.ports.tools import AskedModel, Refused, Result
from handlers.tools.offer import Offered
from handlers.tools.spending import Spending
from handlers.tools.tool_calls import Made, ToolCalls, asks
from handlers.tools.turn import Held, Said, Turn, identified, must_be_known
from handlers.tools.within import end_of, name_of, result_of, settings_of

STEP = "agent"
"""Steps of the model calls of a strategy, as `agent:<round>:plugin`."""

AT_ONCE = 16
"""Number of the calls of a round that are read from the log at a time."""

SHORTEST_RESULT = 200
"""Tokens that a result must have room for; where there is less, the model must answer."""


@dataclass(slots=True)
class _Round:
    """The calls of tools between two calls of a model: those of an earlier attempt that were not asked for again yet,
    by their places; the places that are taken; and what was asked for."""

    number: int
    model_call: str
    base: str
    known: dict[int, ToolCall] = field(default_factory=dict)
    taken: set[int] = field(default_factory=set)
    asked: list[Asked] = field(default_factory=list)

    def place(self, name: str, arguments: dict[str, Any]) -> tuple[int, ToolCall | None]:
        """The place of a call, and the call as an earlier attempt left it. Raises: ModelError `strategy_deviated`."""
        for position, call in self.known.items():
            if asks(call, name, arguments):
                return position, self.known.pop(position)
        self.must_be_asked_again(name)
        position = next(at for at in range(len(self.taken) + 1) if at not in self.taken)
        self.taken.add(position)
        return position, None

    def must_be_asked_again(self, name: str | None = None) -> None:
        """Raises: ModelError, where a call of an earlier attempt was not asked for again, and a new one might repeat
        what it did; of the tool with this name."""
        for call in self.known.values():
            if not call.idempotent and name in (None, call.name):
                raise ModelError(
                    "strategy_deviated",
                    f"An earlier attempt called {call.name}, which may have done something, and the strategy goes "
                    "another way now: nothing is called again.",
                )


@dataclass(slots=True)
class PluginTurn:
    """One attempt at a turn, which answers the calls back of the strategy."""

    models: ModelCalls
    tools: ToolCalls
    strategies: Strategies | None
    turn: Turn
    offered: Mapping[str, Offered]
    spending: Spending
    chat: Chat | None = None
    """The last call of a model."""
    text: str = ""
    """The words of the strategy since its last call of a tool."""
    thought: str = ""
    made: dict[tuple[int, int], Made] = field(default_factory=dict)
    files: list[dict[str, Any]] = field(default_factory=list)
    reason: str = ""
    failure: ModelError | None = None
    states: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    """State that servers get back with their calls of tools, by the ids of these."""
    pieces: dict[str, Sequence[Piece]] = field(default_factory=dict)
    """Texts that are recorded already, as they are quoted."""
    under_way: int = 0
    held: list[str] = field(default_factory=list)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    round: _Round = field(init=False)
    room: int = field(init=False)
    ending: asyncio.Future[NoReturn] = field(init=False)

    async def __call__(self) -> Said:
        """Raises: ModelError, Held, Unavailable."""
        model, prompt = self.turn.configuration["model"], self.turn.prompt
        tools = sum(estimate(str(each.tool)) for each in self.offered.values())
        self.room = model["context_window"] - model["max_tokens"] - prompt.prompt_tokens - tools
        self.ending = asyncio.get_running_loop().create_future()
        self.round = await self._begin(0, "")
        for at in (0, -1):
            message, recorded = prompt.messages[at], prompt.record.messages[at]
            if "pieces" in recorded and not message.attachments:
                self.pieces[message.content] = recorded["pieces"]
        running = asyncio.ensure_future(self._run())
        try:
            await asyncio.wait((running, self.ending), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not running.done():
                running.cancel()
                await asyncio.wait((running,))
        if self.ending.done():
            self.ending.result()
        running.result()
        made = [each for _, each in sorted(self.made.items())]
        answer = self.text if self.text.strip() else self.thought
        reason = self.reason if self.round.number > 1 else ""
        return Said(self.chat, answer.strip(), False, self.spending.usage, made, reason, self.files)

    async def _run(self) -> None:
        if self.strategies is None:
            raise ModelError("unsupported", "This worker runs no strategies of plugins.")
        try:
            async with aclosing(self.strategies.run(self._brief(), self)) as given:
                async for each in given:
                    if isinstance(each, str):
                        self.text += each
                    else:
                        self.files.append(await self.tools.stored(self.turn.cause, each))
        except ModelError as error:
            raise self.failure or error from error

    def _brief(self) -> Brief:
        turn, settings, messages = self.turn, self.spending.settings, self.turn.prompt.messages
        strategy = settings.get("plugin")
        assert strategy is not None
        if files := sum(len(message.attachments) for message in messages):
            turn.prompt.cut["files"] = turn.prompt.cut.get("files", 0) + files
        return Brief(
            cause=turn.cause,
            conversation=turn.conversation,
            strategy=strategy,
            instructions=messages[0].content,
            query=messages[-1].content,
            history=[message._replace(attachments=()) for message in messages[1:-1]],
            model=turn.configuration["model"],
            tools=[OfferedTool(each.toolset, each.tool) for each in self.offered.values()],
            rounds=settings["rounds"],
            user=turn.user,
        )

    # --- calls of models ------------------------------------------------------------------------------------------

    async def model(self, asked: AskedModel) -> AsyncGenerator[Delta]:
        """As CallBacks: one after another, since another attempt finds the answers by their order."""
        async with self.lock:
            await self._must_go_on()
            if self.reason:
                raise Refused(f"The agent must answer without another call of a model: {self.reason}.")
            number = self.round.number + 1
            if self.round.asked:
                self.spending.called(self.round.asked)
            full = number > 1 and self.room < SHORTEST_RESULT
            self.reason = self.spending.limit(number) or ("context_full" if full else "")
            chat = await self._chat(number, asked)
            try:
                async with aclosing(chat.texts()) as texts:
                    async for text in texts:
                        yield Delta(text)
            except ModelError as error:
                self.failure = error
                raise
            except Unavailable as error:
                await self._end(error)
            self.chat, self.failure = chat, None
            chat.tool_calls = identified(chat.tool_calls, number)
            self.states |= {call.id: chat.state for call in chat.tool_calls}
            await self.spending.count(chat)
            self.room -= estimate(chat.said)
            self.round = await self._begin(number, chat.id)
            yield end_of(chat)

    async def _chat(self, number: int, asked: AskedModel) -> Chat:
        """The call of a model, as an earlier attempt made it, or to be made."""
        step = f"{STEP}:{number}:plugin"
        cause = await self._taken_over(step)
        if step not in cause.completed:
            try:
                self.round.must_be_asked_again()
            except ModelError as error:
                await self._end(error)
        settings = settings_of(asked, self.turn.configuration["model"])
        messages = [self._with_state(each) for each in asked.messages]
        tools = [self.offered[each.name].tool if each.name in self.offered else each for each in asked.tools]
        request = ChatRequest(
            settings["name"],
            messages,
            settings["max_tokens"],
            settings["parameters"],
            tools=self._tools(tools, messages),
            tool_choice="none" if self.reason else "auto",
            context_window=settings["context_window"],
        )
        record = Record([self._recorded(each) for each in messages], self.turn.prompt.record.passages)
        course = self.spending.choose(cause.metadata.tenant, settings, request)
        return self.models.chat(cause, course, request, record, step=step)

    async def _taken_over(self, step: str) -> Cause:
        cause = self.turn.cause
        try:
            return await self.models.take_over(cause, step) if cause.attempt > 1 else cause
        except Unavailable as error:
            await self._end(error)

    def _tools(self, tools: Sequence[Tool], messages: Sequence[ChatMessage]) -> Sequence[Tool]:
        """The tools of a request; in the last one none, unless servers would refuse messages with calls then."""
        called = any(message.tool_calls for message in messages)
        return () if self.reason and not called else tools

    def _with_state(self, message: ChatMessage) -> ChatMessage:
        states = [self.states.get(call.id) for call in message.tool_calls]
        return message._replace(state=states[0]) if states and states[0] else message

    def _recorded(self, message: ChatMessage) -> InPieces:
        recorded = literal(message, {"from": "plugin"})
        if known := self.pieces.get(message.content):
            recorded["pieces"] = list(known)
        return recorded

    # --- calls of tools -------------------------------------------------------------------------------------------

    async def tool(self, toolset: str, tool: str, arguments: dict[str, Any]) -> Result:
        """As CallBacks. Several at a time may be under way; where one waits for a person, all others are awaited."""
        await self._must_go_on()
        if self.reason:
            raise Refused(f"The agent must answer without another call of a tool: {self.reason}.")
        await self._think()
        round = self.round
        asked = self._asked(round, tool if tool in self.offered else name_of(self.offered, toolset, tool), arguments)
        self.under_way += 1
        try:
            made = await self._made(round, asked, arguments)
        except (ModelError, Unavailable) as error:
            await self._end(error)
        finally:
            self.under_way -= 1
        if not made.call.ended:
            self.held.append(made.id)
        await self._must_go_on()
        made = made._replace(observed=made.observed.within(max(self.room, SHORTEST_RESULT)))
        parts = made.observed.parts()
        text = "".join(part.text for part in parts)
        self.pieces[text] = [part.piece for part in parts]
        self.room -= estimate(text)
        return result_of(made, text)

    async def _made(self, round: _Round, asked: Asked, arguments: dict[str, Any]) -> Made:
        """Raises: ModelError `strategy_deviated`, `tool_lost`; Unavailable."""
        position, known = round.place(asked.name, arguments)
        round.asked.append(asked)
        if known:
            self.turn.numbers.recall(known)
        task, id = self.turn.task(round.model_call, max(round.number, 1)), commit_id(round.base, f"tool:{position}")
        await self.turn.show_calls(task.round, [asked])
        made = await self.tools.make(task, position, id, asked, self.offered, known)
        await self.turn.show_results(task.round, [made])
        self.made[round.number, position] = made
        must_be_known(self.spending.settings, [made])
        return made

    def _asked(self, round: _Round, name: str, arguments: dict[str, Any]) -> Asked:
        """The call, by the id that the model gave it."""
        used = {each.id for each in round.asked}
        for call in self.chat.tool_calls if self.chat else ():
            if call.id not in used and call.name == name and _loaded(call.arguments) == arguments:
                return call._replace(arguments=orjson.dumps(arguments).decode())
        return Asked(f"call{round.number:03d}{len(used):02d}", name, orjson.dumps(arguments).decode())

    async def _think(self) -> None:
        """Show what was said before a call of a tool."""
        if self.text.strip():
            self.thought, self.text = self.text, ""
            await self.turn.show({"type": "thought", "text": self.thought.strip(), "round": max(self.round.number, 1)})

    async def _begin(self, number: int, model_call: str) -> _Round:
        """A round, with the calls that an earlier attempt made in it."""
        base = model_call or commit_id(self.turn.cause.id, "strategy")
        round, at, found = _Round(number, model_call, base), 0, True
        tenant = self.turn.cause.metadata.tenant
        while self.turn.cause.attempt > 1 and found:
            ids = {commit_id(base, f"tool:{position}"): position for position in range(at, at + AT_ONCE)}
            calls = await self.tools.repository.all(ToolCall, tenant, list(ids))
            round.known |= {ids[id]: call for id, call in sorted(calls.items(), key=lambda each: ids[each[0]])}
            at, found = at + AT_ONCE, bool(calls)
        round.taken |= round.known.keys()
        return round

    # --- the end --------------------------------------------------------------------------------------------------

    async def _must_go_on(self) -> None:
        """Where a call waits for a person, end the turn once no other one is under way."""
        if self.held:
            if not self.under_way:
                await self._end(Held(self.held))
            await asyncio.Future()

    async def _end(self, error: Exception) -> NoReturn:
        """End the turn: the strategy gets no answer any more, and is given up."""
        if not self.ending.done():
            self.ending.set_exception(error)
        await asyncio.Future()
        raise error


def _loaded(arguments: str) -> Any:
    try:
        return orjson.loads(arguments or "{}")
    except ValueError:
        return None
