from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adapters.models.extractive import NAME, NOTHING, Extractive, count
from handlers.ports.models import Attachment, ChatMessage, ChatRequest, ChatUsage, Delta, ModelError

EXAMPLES = Path(__file__).parents[3] / "examples"
PASSAGES = [
    "The Larkspur valve opens at 4.2 bar. It was installed in 2019.",
    "The Foxglove pump moves 1,200 litres\nper hour.",
]


def request(question: str, max_tokens: int = 100, passages: list[str] | None = None) -> ChatRequest:
    return ChatRequest(
        NAME,
        [
            ChatMessage("system", "Be exact."),
            ChatMessage("user", "How many litres does the Foxglove pump move?"),
            ChatMessage("assistant", "1,200 litres."),
            ChatMessage("user", question),
        ],
        max_tokens,
        passages=PASSAGES if passages is None else passages,
    )


async def answer(asked: ChatRequest) -> tuple[str, list[Delta]]:
    deltas = [delta async for delta in Extractive().stream(asked)]
    return "".join(delta.text for delta in deltas), deltas


async def test_answers_the_last_question_with_the_sentence_that_says_it() -> None:
    asked = request("At what pressure does the Larkspur valve open?")
    text, deltas = await answer(asked)
    assert text == "The Larkspur valve opens at 4.2 bar."
    assert [delta.text for delta in deltas[:3]] == ["The", " Larkspur", " valve"]
    assert deltas[-1] == Delta(
        finish_reason="stop", usage=ChatUsage(sum(count(each.content) for each in asked.messages), 10)
    )


async def test_a_sentence_over_two_lines_is_joined() -> None:
    text, _ = await answer(request("How many litres per hour does the Foxglove pump move?"))
    assert text == "The Foxglove pump moves 1,200 litres per hour."


async def test_says_so_when_nothing_answers() -> None:
    for asked in (request("Who discovered radium?"), request("When?"), request("When was it installed?", passages=[])):
        text, deltas = await answer(asked)
        assert text == NOTHING
        assert deltas[-1].finish_reason == "stop"


async def test_ends_at_its_limit() -> None:
    text, deltas = await answer(request("At what pressure does the Larkspur valve open?", max_tokens=3))
    assert text == "The Larkspur valve"
    assert deltas[-1].finish_reason == "length"
    assert deltas[-1].usage is not None
    assert deltas[-1].usage.completion_tokens == count(text) == 3


async def test_without_a_question_there_is_no_answer() -> None:
    text, _ = await answer(ChatRequest(NAME, [ChatMessage("system", "Be exact.")], 50, passages=PASSAGES))
    assert text == NOTHING


QUESTIONS = [
    each for each in json.loads((EXAMPLES / "questions.json").read_text()) if each["document"].endswith((".md", ".txt"))
]


@pytest.mark.parametrize("asked", QUESTIONS, ids=[each["question"] for each in QUESTIONS])
async def test_finds_the_answer_in_a_whole_document(asked: dict[str, Any]) -> None:
    document = (EXAMPLES / "handbook" / asked["document"]).read_text()
    text, _ = await answer(request(asked["question"], passages=[document]))
    for expected in asked["answer"]:
        assert expected in text


async def test_takes_no_files() -> None:
    asked = request("What is it?")
    asked.messages[-1] = asked.messages[-1]._replace(attachments=(Attachment("image", "image/png", b"a picture"),))
    with pytest.raises(ModelError) as raised:
        await answer(asked)
    assert raised.value.code == "unsupported"
