"""Reads a recorded prompt from the log, with the texts that it quotes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import orjson

from domain.aggregate import Rejection
from domain.chat.app import App
from domain.chat.conversation import Conversation
from domain.models.passage import Passage
from domain.models.piece import InPieces, Missing, Span, Turn, Turns, content, pieces, put_together, quoted, spans
from domain.tools.tool_call import ToolCall
from handlers.files import Files
from handlers.models.attachments import loaded
from handlers.ports.models import ChatMessage, Tool
from handlers.ports.models import ToolCall as Asked
from handlers.repository import Repository


async def read(repository: Repository, tenant: str, messages: Sequence[InPieces | Turns]) -> list[InPieces]:
    """The messages of a recorded chat as they were sent, in literal pieces.

    Raises: Rejection `erased`, when there are none, or no texts that they quote; Unavailable.
    """
    try:
        if not messages:
            raise Missing("the request")
        log = _Texts(repository, tenant)
        texts = {quote: await log.text(quote, messages) for quote in quoted(messages)}
        turns = {span: await log.turns(span) for span in spans(messages)}
        return put_together(messages, texts, turns)
    except Missing as missing:
        raise Rejection("erased", f"What the model call sent was erased: {missing} is not there.", "call") from None


async def as_sent(files: Files, tenant: str, person: str | None, message: InPieces) -> ChatMessage:
    """A message that is put together, with its files. Raises: Rejection `erased`; Unavailable."""
    return ChatMessage(
        cast("Any", message["role"]),
        content(message),
        tuple([await loaded(files, tenant, person, piece) for piece in message["pieces"] if "file" in piece]),
        tuple(Asked(**call) for call in message.get("tool_calls", ())),
        message.get("tool_call_id", ""),
        message.get("state"),
    )


async def tools(repository: Repository, tenant: str, request: Mapping[str, Any]) -> list[Tool]:
    """The tools of a recorded request. Raises: Rejection `erased`; Unavailable."""
    if not (quote := request.get("tools")):
        return []
    recorded = await repository.get(Passage, tenant, str(quote).removeprefix("passage/"))
    if recorded is None:
        raise Rejection("erased", f"What the model call sent was erased: {quote} is not there.", "call")
    return [Tool(**tool) for tool in orjson.loads(recorded.text)]


class _Texts:
    """Texts by their names in prompts; each conversation is read once."""

    def __init__(self, repository: Repository, tenant: str) -> None:
        self._repository = repository
        self._tenant = tenant
        self._conversations: dict[str, dict[str, Turn]] = {}

    async def text(self, quote: str, messages: Sequence[InPieces | Turns]) -> str:
        """Raises: Missing, Unavailable."""
        kind, _, id = quote.partition("/")
        text: str | None = None
        match kind:
            case "passage":
                recorded = await self._repository.get(Passage, self._tenant, id)
                text = recorded.text if recorded else None
            case "tool_call":
                call = await self._repository.get(ToolCall, self._tenant, id)
                text = call.text or None if call else None
            case "instructions":
                app_id, _, number = id.partition("/")
                app = await self._repository.get(App, self._tenant, app_id)
                text = app.configurations[number]["prompt"] if app and number in app.configurations else None
            case _:
                conversation = next(each["conversation"] for each in pieces(messages) if each.get("quotes") == quote)
                turn = (await self._turns(conversation)).get(id)
                text = turn.question if turn else None
        if text is None:
            raise Missing(quote)
        return text

    async def turns(self, span: Span) -> list[Turn]:
        """Raises: Missing, Unavailable."""
        conversation, first, last = span
        known = await self._turns(conversation)
        names = list(known)
        if first not in known or last not in known:
            raise Missing(f"conversation/{conversation}")
        return [known[name] for name in names[names.index(first) : names.index(last) + 1]]

    async def _turns(self, conversation: str) -> dict[str, Turn]:
        if conversation not in self._conversations:
            commits = await self._repository.commits(Conversation, self._tenant, conversation)
            events = (event for commit in commits for event in commit.events)
            self._conversations[conversation] = {turn.message: turn for turn in said(events)}
        return self._conversations[conversation]


def said(events: Iterator[Any]) -> Iterator[Turn]:
    """The turns of a conversation, in order, by its events; the answer is empty where there is none."""
    turns: dict[str, Turn] = {}
    for event in events:
        match event:
            case Conversation.Forked():
                for copied in event.messages:
                    turns[copied["message"]] = Turn(copied["message"], copied["query"], copied["answer"])
            case Conversation.Asked():
                turns[event.message] = Turn(event.message, event.query, "")
            case Conversation.Answered() | Conversation.Stopped():
                turns[event.message] = turns[event.message]._replace(answer=event.answer)
    yield from turns.values()
