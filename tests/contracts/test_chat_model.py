"""Behaviour of every chat model: the built-in one, and two real servers of the OpenAI protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, NamedTuple

import pytest

from adapters.models.extractive import NAME, Extractive
from adapters.models.kinds import KINDS
from handlers.ports.models import ChatMessage, ChatModel, ChatRequest, Delta
from ops.servers.model import EmbeddedModel
from tests.chat_servers import LOOPBACK
from tests.small_model import STEADY, client_of

PASSAGE = "The Larkspur valve opens at 4.2 bar. It was installed in 2019."
QUESTION = "At what pressure does the Larkspur valve open?"


class Subject(NamedTuple):
    chat: ChatModel
    model: str
    parameters: dict[str, Any] = {}  # noqa: RUF012  # a field
    url: str = ""

    def request(self, max_tokens: int = 24, question: str = QUESTION) -> ChatRequest:
        messages = [ChatMessage("system", f"Answer from this.\n\n[1] {PASSAGE}"), ChatMessage("user", question)]
        return ChatRequest(self.model, messages, max_tokens, self.parameters, [PASSAGE])

    async def answer(self, request: ChatRequest) -> list[Delta]:
        return [delta async for delta in self.chat.stream(request)]


@pytest.fixture(params=["extractive", "transformers", "llama_cpp"])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    if request.param == "extractive":
        yield Subject(Extractive(), NAME)
        return
    if request.param == "llama_cpp":
        server: EmbeddedModel = request.getfixturevalue("small_model")
        chat = client_of(server)
        yield Subject(chat, server.name, STEADY, server.url)
    else:
        url = request.getfixturevalue("serving_url")
        chat = KINDS["openai"](LOOPBACK, "default", url)
        yield Subject(chat, request.getfixturevalue("serving_model"), url=url)
    await chat.close()


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


async def test_answers_in_pieces_of_which_the_last_says_how_it_ended(subject: Subject) -> None:
    *pieces, last = await subject.answer(subject.request())
    assert len(pieces) > 3
    assert all(piece.text and piece.finish_reason is None and piece.usage is None for piece in pieces)
    assert last.finish_reason in ("stop", "length")
    assert last.usage is not None
    assert last.usage.prompt_tokens > 20
    assert 3 < last.usage.completion_tokens <= 24


async def test_says_where_it_is(subject: Subject) -> None:
    if isinstance(subject.chat, Extractive):
        assert subject.chat.server == ""
    else:
        assert f"//{subject.chat.server}/" in subject.url


async def test_stops_at_the_most_tokens_that_it_may_give(subject: Subject) -> None:
    deltas = await subject.answer(subject.request(max_tokens=4))
    assert deltas[-1].finish_reason == "length"
    assert deltas[-1].usage is not None
    assert deltas[-1].usage.completion_tokens == 4
    longer = await subject.answer(subject.request(max_tokens=8))
    assert text(longer).startswith(text(deltas).rstrip())
    assert len(text(longer)) > len(text(deltas))


async def test_counts_the_tokens_of_the_question(subject: Subject) -> None:
    short, long = [
        (await subject.answer(subject.request(max_tokens=1, question=question)))[-1].usage
        for question in ("valve", "valve" + " valve" * 29)
    ]
    assert short is not None
    assert long is not None
    assert long.prompt_tokens - short.prompt_tokens == 29


async def test_answers_the_same_request_the_same(subject: Subject) -> None:
    first, second = await asyncio.gather(*(subject.answer(subject.request()) for _ in range(2)))
    assert text(first) == text(second)


async def test_takes_every_script(subject: Subject) -> None:
    deltas = await subject.answer(subject.request(question="阀门在多少巴时打开？ متى يفتح الصمام؟ \u202e 🙂"))
    assert deltas[-1].finish_reason in ("stop", "length")


async def test_can_be_left_in_the_middle_and_used_again(subject: Subject) -> None:
    stream = subject.chat.stream(subject.request())
    assert isinstance(stream, AsyncGenerator)
    assert (await anext(stream)).text
    await stream.aclose()
    assert await anext(stream, None) is None
    assert text(await subject.answer(subject.request()))
