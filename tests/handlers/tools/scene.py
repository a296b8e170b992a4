"""An agent that answers with tools: its model and its tools say what a test gives them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from domain.chat.conversation import Conversation
from domain.log import Commit
from domain.tools.tool import Definition
from domain.tools.tool_call import ToolCall
from domain.tools.toolset import Toolset
from handlers.abilities import Abilities
from handlers.models.choose import Choose, Known
from handlers.models.model_calls import ModelCalls
from handlers.ports.models import Access, ChatRequest, ChatUsage, Delta, ModelError
from handlers.ports.models import ToolCall as Asked
from handlers.ports.strategies import Strategies
from handlers.ports.tools import Invocation, Listing, Result, Toolbox
from handlers.tools.agent import Agent
from handlers.tools.offer import Offer
from handlers.tools.refresh import Refresh
from handlers.tools.resume import Resume
from handlers.tools.tool_calls import ToolCalls
from handlers.tools.within import CallWithin
from tests.handlers.chat.test_answer import Counter
from tests.handlers.fakes import Here, Installed, choosing
from tests.memory import Memory

Says = str | Exception | tuple[str, Sequence[Asked]] | Callable[[ChatRequest], "Says"]


def call(name: str, id: str = "", /, **arguments: Any) -> Asked:
    return Asked(id, name, json.dumps(arguments))


class Scripted:
    """A chat model that says one of these at each request: a text, an error, or a text with calls of tools."""

    server = "scripted:1"

    def __init__(self, *says: Says) -> None:
        self.says = list(says)
        self.asked: list[ChatRequest] = []

    async def get(self, tenant: str, provider: str, model: str) -> Sequence[Access]:
        return [Access(self)]

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta]:
        self.asked.append(request)
        said = self.says.pop(0)
        while callable(said):
            said = said(request)
        if isinstance(said, Exception):
            raise said
        text, calls = said if isinstance(said, tuple) else (said, ())
        await asyncio.sleep(0)
        if text:
            yield Delta(text)
        yield Delta(finish_reason="tool_calls" if calls else "stop", usage=ChatUsage(10, 5), tool_calls=calls)


def tool(name: str, *, destructive: bool = False, idempotent: bool = True, **properties: Any) -> Definition:
    properties = properties or {"city": {"type": "string"}}
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return Definition(
        name=name,
        label="",
        description=f"The tool {name}.",
        parameters=schema,
        destructive=destructive,
        idempotent=idempotent,
    )


class Box:
    """A toolbox; a tool does what `does` says, by default it gives its name and arguments back."""

    server = "box:1"

    def __init__(self, *tools: Definition) -> None:
        self.tools = list(tools)
        self.called: list[Invocation] = []
        self.does: Callable[[Invocation], Awaitable[Result]] = self._echo

    async def list(self) -> Listing:
        return Listing(self.tools)

    async def call(self, invocation: Invocation) -> Result:
        self.called.append(invocation)
        return await self.does(invocation)

    async def _echo(self, invocation: Invocation) -> Result:
        return Result(f"{invocation.tool['name']}: {json.dumps(invocation.arguments)}")

    async def get(self, tenant: str, toolset: Toolset | None) -> Toolbox:
        return self


class Scene(Counter):
    def __init__(self, memory: Memory, tenant: str, *says: Says, tools: Sequence[Definition] = ()) -> None:
        super().__init__(memory, tenant)
        self.model = Scripted(*says)
        self.speaker = self.model  # type: ignore[assignment]
        self.prices: tuple[float, float] | None = None
        self.plugins: Installed | None = None
        self.strategies: Strategies | None = None
        self.box = Box(*(tools or [tool("weather")]))

    @property
    def choose(self) -> Choose:
        return replace(choosing(self.desk.repository, self.model), catalogue=self)

    async def known(self, tenant: str, provider: str, model: str) -> Known:
        """As a Catalogue."""
        return Known(prices=self.prices)

    async def measured(self, abilities: dict[str, bool]) -> None:
        """Put abilities of the model into the catalogue of the tenant."""
        await self.desk.done("model.set", provider="local", model="m", abilities=abilities)

    def model_calls(self) -> list[str]:
        """The calls of models, in order."""
        return [subject.rpartition(".")[2] for subject in dict.fromkeys(self.subjects("model_call"))]

    @property
    def agent(self) -> Agent:
        repository = self.desk.repository
        calls = ModelCalls(repository)
        return Agent(
            repository,
            calls,
            self.choose,
            Offer(repository, self.desk.blobs, self.box),
            ToolCalls(repository, Here(), self.desk.files, self.plugins, CallWithin(calls, self.choose)),
            Abilities(repository),
            self.strategies,
        )

    async def asked(self, query: str = "How is the weather?", **agent: Any) -> Commit:
        """Ask an agent that has a provider, the toolset `box` unless `tools` names others, and these settings."""
        await self.desk.done("provider.register", name="local", base_url="http://127.0.0.1:9/v1")
        await self.registered()
        self.app, self.conversation = await self.desk.done("app.create", name="Agent", mode="agent-chat"), ""
        agent = {"tools": [{"toolset": "box"}], **agent}
        await self.desk.done(
            "app.configure",
            app=self.app,
            model={"provider": "local", "name": "m"},
            features={"agent": agent},
        )
        return await self.ask(query)

    async def registered(self) -> None:
        """Register the toolset `box`, or list its tools again."""
        await self.desk.done("toolset.register", name="box", kind="openapi", openapi={"text": "{}"})
        await self.refreshed()

    async def refreshed(self) -> None:
        commits = await self.desk.commits("toolset", "box")
        await Refresh(self.desk.repository, self.desk.blobs, self.box)(commits[-1])

    async def decided(self, command: str, call: str, **fields: Any) -> None:
        """Release or refuse a call, and do what follows in another process."""
        await self.desk.done(command, tool_call=call, **fields)
        await self.decided_by_log(call)

    async def decided_by_log(self, call: str) -> None:
        """Do what follows the last commit of a call."""
        commits = await self.desk.commits("tool_call", call)
        await Resume(self.desk.repository)(commits[-1])
        if commit := await self.resumed():
            await self.worker()(commit)

    async def resumed(self) -> Commit | None:
        """The last commit, where it goes on with an answer."""
        commit = (await self.desk.commits("conversation", self.conversation))[-1]
        return commit if any(isinstance(event, Conversation.Resumed) for event in commit.events) else None

    async def tool_calls(self) -> list[ToolCall]:
        """The calls of tools, in the order in which they were recorded."""
        subjects = list(dict.fromkeys(self.subjects("tool_call")))
        found = [await self.desk.fold("tool_call", subject.rpartition(".")[2]) for subject in subjects]
        return [each for each in found if isinstance(each, ToolCall)]


LOST = ModelError("unreachable", "The server does not answer.")
