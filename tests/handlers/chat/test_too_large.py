"""Answers on a real log that are too large for it: one call of the model, and an end that says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from domain.chat.conversation import Conversation
from domain.models.model_call import ModelCall
from handlers.cause import Cause
from handlers.chat.annotations import MatchAnnotation
from handlers.chat.answer import Answer
from handlers.chat.moderate import Moderate
from handlers.models.model_calls import PARTIAL, ModelCalls
from handlers.ports.index import Entry, Hit
from handlers.ports.models import Access, ChatModel, ChatRequest, Delta
from handlers.retrieval.retrieve import Retrieve, Retrieved
from handlers.tools.agent import Agent
from tests.handlers.desk import Desk
from tests.handlers.fakes import Cites, Guards, Here, Notes, OneModel, Words, choosing, embedding_models, message_files
from tests.memory import Memory


@dataclass
class Speaker:
    """A model that says these pieces, and then is done or, if it is to wait, says nothing more."""

    pieces: Sequence[str]
    waits: bool = False
    server: str = ""
    calls: int = 0
    said: asyncio.Event = field(default_factory=asyncio.Event)
    closed: bool = False

    async def get(self, tenant: str, provider: str, model: str) -> Sequence[Access[ChatModel]]:
        return [Access(self)]

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta]:
        self.calls += 1
        try:
            for piece in self.pieces:
                yield Delta(piece)
            self.said.set()
            if self.waits:
                await asyncio.Event().wait()
            yield Delta(finish_reason="stop")
        finally:
            self.closed = True


class Shelf:
    """Finds these passages."""

    def __init__(self, hits: Sequence[Hit]) -> None:
        self._hits = list(hits)

    async def __call__(self, *question: object) -> Retrieved:
        return Retrieved(self._hits, {hit.document: "Manual" for hit in self._hits})


class Wire:
    """Keeps the frames, and stops an answer on request."""

    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []
        self.stop = asyncio.Event()

    async def publish(self, tenant: str, conversation: str, message: str, frame: dict[str, Any]) -> None:
        self.frames.append(frame)

    def watch(self, *of: str, person: str | None = None) -> asyncio.Event:
        return self.stop

    def unwatch(self, *of: str) -> None: ...


class Talk:
    """A question to an app, and how it ended."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.wire = Wire()
        self.message = ""

    async def ask(self, speaker: Speaker, *hits: Hit, query: str = "Why?", context_window: int = 10_000_000) -> None:
        app = await self.desk.done("app.create", name="Guide")
        model = {"max_tokens": 64, "context_window": context_window}
        await self.desk.done("app.configure", app=app, model=model)
        self.message = (await self.desk.send("message.send", app=app, query=query)).command
        [commit] = await self.desk.commits("conversation", self.message)
        answer = Answer(
            self.desk.repository,
            ModelCalls(self.desk.repository),
            cast("Retrieve", Shelf(hits)),
            choosing(self.desk.repository, speaker),
            self.wire,
            self.wire,
            Cites(),
            Moderate(
                ModelCalls(self.desk.repository),
                choosing(self.desk.repository, speaker),
                choosing(self.desk.repository, Guards()),
            ),
            MatchAnnotation(self.desk.repository, embedding_models(self.desk.repository, OneModel(Words())), Notes()),
            Here(),
            message_files(self.desk),
            cast("Agent", None),
        )
        await answer(commit)

    async def end(self) -> Any:
        return (await self.desk.events("conversation", self.message))[-1]

    async def call(self) -> list[Any]:
        """The events of its one call."""
        cause = Cause((await self.desk.commits("conversation", self.message))[0].metadata, "message", self.message, 1)
        return await self.desk.events("model_call", cause.call("chat"))


@pytest.fixture
def talk(memory: Memory, tenant: str) -> Talk:
    return Talk(Desk(memory, tenant))


PICTURE = "iVBORw0KGgoA" * 550_000
LARGE = {
    "in pieces": [PICTURE[at : at + 200_000] for at in range(0, len(PICTURE), 200_000)],
    "at once": [PICTURE * 2],
    "after a word": ["Look: ", PICTURE * 2],
    "with signs that JSON escapes": ["\x01" * 100_000] * 20,
    "in bytes and not in characters": ["水" * 100_000] * 30,
}


@pytest.mark.parametrize("pieces", LARGE.values(), ids=LARGE)
async def test_an_answer_that_is_too_large_is_broken_off_and_its_beginning_kept(talk: Talk, pieces: list[str]) -> None:
    speaker = Speaker(pieces, waits=True)
    await talk.ask(speaker)
    assert (speaker.calls, speaker.closed, speaker.said.is_set()) == (1, True, False)
    failed, [_, ended] = await talk.end(), await talk.call()
    assert isinstance(failed, Conversation.Failed)
    assert isinstance(ended, ModelCall.Failed)
    kept = "".join(pieces)[:PARTIAL].encode()[:PARTIAL].decode(errors="ignore")
    assert (failed.code, failed.answer) == ("too_large", kept)
    assert (ended.code, ended.response, ended.reason) == ("too_large", kept, failed.reason)
    assert "model.max_tokens" in failed.reason
    assert talk.wire.frames[-1] == {"type": "failed", "code": "too_large", "reason": failed.reason}
    said = "".join(frame["text"] for frame in talk.wire.frames if frame["type"] == "token")
    assert "".join(pieces).startswith(said)
    assert said.startswith(kept)


@pytest.mark.parametrize("sign", ["x", "水", "\x01"])
async def test_the_longest_answer_that_is_not_broken_off_is_recorded(talk: Talk, sign: str) -> None:
    room = ModelCalls(talk.desk.repository).longest
    size = {"x": 1, "水": 3, "\x01": 6}[sign]
    speaker = Speaker([sign * ((room - 2) // size)])
    await talk.ask(speaker)
    answered, [_, ended] = await talk.end(), await talk.call()
    assert isinstance(answered, Conversation.Answered)
    assert isinstance(ended, ModelCall.Completed)
    assert ended.response == answered.answer == speaker.pieces[0]


@pytest.mark.parametrize("sign", ["x", "\x01"])
async def test_the_longest_answer_can_be_stopped(talk: Talk, sign: str) -> None:
    room = ModelCalls(talk.desk.repository).longest
    speaker = Speaker([sign * ((room - 2) // (6 if sign == "\x01" else 1))], waits=True)
    asking = asyncio.create_task(talk.ask(speaker))
    await speaker.said.wait()
    talk.wire.stop.set()
    await asking
    stopped, [_, ended] = await talk.end(), await talk.call()
    assert isinstance(stopped, Conversation.Stopped)
    assert isinstance(ended, ModelCall.Cancelled)
    assert ended.response == stopped.answer == speaker.pieces[0]


def passage(number: int, content: str) -> Hit:
    return Hit("set", "doc", Entry(f"s{number}", number, content, None, None, None), 0.9, 1, None)


async def test_a_prompt_that_is_too_large_is_not_sent(talk: Talk) -> None:
    speaker = Speaker(["Fine."])
    await talk.ask(speaker, passage(1, "1 " * 5_000_000))
    failed = await talk.end()
    assert isinstance(failed, Conversation.Failed)
    assert (failed.code, failed.answer, speaker.calls) == ("too_large", "", 0)
    assert "model.context_window" in failed.reason
    assert await talk.call() == []


async def test_an_answer_that_is_too_large_with_its_citations_fails_once(talk: Talk) -> None:
    """Each of them fits, and so does the prompt."""
    speaker = Speaker(["The sluice opens at six [1]. " + "x" * 4_000_000])
    await talk.ask(speaker, passage(1, "The sluice opens at six. " + "y" * 3_000_000))
    failed, [_, ended] = await talk.end(), await talk.call()
    assert isinstance(failed, Conversation.Failed)
    assert isinstance(ended, ModelCall.Completed)
    assert (failed.code, failed.answer, speaker.calls) == ("too_large", ended.response[:PARTIAL], 1)
    assert "retrieval.top_k" in failed.reason
