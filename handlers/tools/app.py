"""The toolset of kind `app`: an app that answers as a tool of another one's agent."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from domain.aggregate import Rejection
from domain.chat.app import App
from domain.chat.conversation import Citation, Conversation, Message
from domain.excerpt import excerpt
from domain.log import Metadata, commit_id
from domain.tools.tool import Definition
from domain.tools.tool_call import ToolCall
from domain.tools.toolset import Toolset
from handlers.access.quota import Quota
from handlers.commands.chat import NAME_LENGTH, SendMessage
from handlers.models.model_calls import shielded
from handlers.ports.index import Entry, Hit
from handlers.ports.tools import Invocation, Listing, Result, ToolError
from handlers.repository import Repository
from handlers.routes import ROUTES
from handlers.tools.app_arguments import QUERY, inputs, parameters, tool_name

DEEPEST = 5
"""Maximum number of apps that call each other in a row."""

PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0
"""Interval between two looks at the answer, in seconds; it doubles up to the longest."""

ENDED = ("answered", "failed", "stopped")


@dataclass(frozen=True, slots=True)
class AppToolbox:
    """A question is a message of the app, with an id that follows from the call's: a repeated call is the same one."""

    repository: Repository
    quota: Quota
    tenant: str
    toolset: Toolset
    server = ""

    async def list(self) -> Listing:
        app = await self._app()
        described = self.toolset.description.strip() or app.description.strip() or f"Ask the app {app.name!r}."
        assert app.configuration is not None
        schema = parameters(app.configuration["variables"], completion=app.is_completion)
        tool = Definition(
            name=tool_name(app.name),
            label=app.name,
            description=described,
            parameters=schema,
            destructive=app.is_agent,
            idempotent=True,
        )
        return Listing([tool])

    async def call(self, invocation: Invocation) -> Result:
        app = await self._app()
        await self._must_be_shallow(invocation)
        message = commit_id(invocation.id, "app")
        await self._ask(invocation, app, message)
        try:
            async with asyncio.timeout(self.toolset.timeout_s):
                state = await self._ended(message)
        except TimeoutError:
            await self._stop(invocation, message)
            raise ToolError("timeout", f"The app gave no answer within {self.toolset.timeout_s:g} s.") from None
        except asyncio.CancelledError:
            await shielded(self._stop(invocation, message))
            raise
        return await self._result(message, state)

    async def _app(self) -> App:
        """Raises: ToolError."""
        app = await self.repository.get(App, self.tenant, self.toolset.settings["app"])
        if app is None or app.deleted:
            raise ToolError("not_found", "The app was deleted.")
        if app.configuration is None:
            raise ToolError("unsupported", "The app has no configuration.")
        return app

    async def _must_be_shallow(self, invocation: Invocation) -> None:
        """Raises: ToolError `unsupported` when too many apps call each other."""
        call: str | None = invocation.id
        for _ in range(DEEPEST):
            asked = await self.repository.get(ToolCall, self.tenant, call) if call else None
            talk = await self.repository.get(Conversation, self.tenant, asked.conversation) if asked else None
            known = talk.messages.get(asked.cause_id) if talk and asked else None
            call = known.get("tool_call") if known else None
            if call is None:
                return
        raise ToolError("unsupported", f"At most {DEEPEST} apps may call each other in a row.")

    async def _ask(self, invocation: Invocation, app: App, message: str) -> None:
        """Ask, unless an earlier attempt did. Raises: ToolError, Unavailable."""
        cause = self._metadata(invocation, message, "ask")
        if await self.repository.done(Conversation, message, cause):
            return
        at, arguments = datetime.now(UTC), invocation.arguments
        query = arguments.get(QUERY, "").strip()
        assert app.configuration is not None
        given = inputs(app.configuration["variables"], arguments)
        try:
            values = app.inputs(given)
            if not query and not any(values.values()):
                raise ToolError("invalid_arguments", "The question is empty, and so are the variables.")
            command = SendMessage(app=app.id, query=query, inputs=given, user=invocation.user)
            await self.quota.take(cause, ROUTES["message.send"].counts, command, at)
        except Rejection as rejection:
            code = "rate_limited" if rejection.code == "over_quota" else "invalid_arguments"
            raise ToolError(code, rejection.message) from None

        def decide(talk: Conversation | None) -> Conversation:
            if talk is None:
                name = excerpt(query or " ".join(given.values()), NAME_LENGTH)
                begun = Conversation.Started
                talk = Conversation.begin(begun, message, at, app=app.id, user=invocation.user, name=name)
                talk.ask(
                    at,
                    message=message,
                    app=app.id,
                    configuration=len(app.configurations),
                    query=query,
                    inputs=values,
                    user=invocation.user,
                    tool_call=invocation.id,
                )
            return talk

        await self.repository.change(Conversation, message, cause, decide, new=True)

    async def _ended(self, message: str) -> Message:
        pause = PAUSE_S
        while True:
            talk = await self.repository.get(Conversation, self.tenant, message)
            if talk is None or talk.deleted or not talk.user:
                raise ToolError("not_found", "The conversation with the app was deleted.")
            state = talk.messages[message]
            if state["status"] in ENDED:
                return state
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _result(self, message: str, state: Message) -> Result:
        """Raises: ToolError."""
        commits = await self.repository.commits(Conversation, self.tenant, message)
        last = [event for commit in commits for event in commit.events]
        for event in reversed(last):
            match event:
                case Conversation.Answered():
                    return _answer(event.answer, [Citation(**each) for each in event.citations])
                case Conversation.Failed():
                    raise ToolError("server_error", f"The app failed ({event.code}): {event.reason}")
        raise ToolError("server_error", f"The answer of the app was {state['status']}.")

    async def _stop(self, invocation: Invocation, message: str) -> None:
        """Have the answer stopped, where it has not ended."""
        at = datetime.now(UTC)

        def decide(talk: Conversation | None) -> Conversation:
            assert talk is not None
            if not talk.ended(message):
                talk.stop(at, message=message)
            return talk

        await self.repository.change(Conversation, message, self._metadata(invocation, message, "stop"), decide)

    def _metadata(self, invocation: Invocation, message: str, step: str) -> Metadata:
        """The question begins a trace of its own; its cause is the commit of the turn that calls the tool."""
        cause = invocation.cause.metadata
        return Metadata(
            id=commit_id(message, step),
            tenant=cause.tenant,
            correlation=message,
            causation=cause.id,
            actor=cause.actor,
            person=cause.person,
            door=cause.door,
        )


def _answer(answer: str, citations: list[Citation]) -> Result:
    """The answer, with its citations as passages, which get numbers of their own."""
    hits: dict[str, Hit] = {}
    for each in citations:
        if each["dataset"]:
            place: dict[str, Any] = {"page": each["page"], "heading": each["heading"]}
            entry = Entry(each["segment"], each["segment_position"], each["content"], **place)
            hits.setdefault(each["segment"], Hit(each["dataset"], each["document"], entry, each["score"]))
    names = {each["document"]: each["document_name"] for each in citations}
    text = re.sub(r"(?: ?\[\d{1,3}\])+", "", answer) if citations else answer
    return Result(text, passages=list(hits.values()), names=names)
