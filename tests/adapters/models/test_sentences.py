"""Sentences compared in contained processes: the same as without, and bounded."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from adapters.models import sentences
from adapters.models.extractive import NAME, Extractive, answering_here
from adapters.models.sentences import ContainedSentences
from adapters.sandbox.child import Sandbox
from handlers.chat.evidence import evidence
from handlers.ports.models import ChatMessage, ChatRequest, ModelError

PASSAGES = [
    "The Larkspur valve opens at 4.2 bar. It was installed in 2019.",
    "The ladder has 22 pools. The water drops 15 centimetres from pool to pool.",
]


@pytest.fixture(scope="module")
async def compared(sandbox: Sandbox) -> AsyncIterator[ContainedSentences]:
    async with ContainedSentences(sandbox) as compared:
        yield compared


@pytest.mark.parametrize(
    "answer", ["The ladder has 22 pools. The valve opens at 4.2 bar.", "So it is [2] [7].", "I do not know.", "\ud800"]
)
async def test_the_evidence_is_that_of_the_handler(compared: ContainedSentences, answer: str) -> None:
    assert await compared.evidence("acme", answer, PASSAGES) == evidence(answer, PASSAGES)


async def test_the_built_in_model_answers_the_same(compared: ContainedSentences) -> None:
    question = "At what pressure does the Larkspur valve open?"
    assert await compared.answering("acme", question, PASSAGES) == await answering_here("acme", question, PASSAGES)
    request = ChatRequest(NAME, [ChatMessage("user", question)], 64, passages=PASSAGES)
    assert await Extractive("acme", compared.answering).answer(request) == "The Larkspur valve opens at 4.2 bar."


async def test_what_takes_too_long_is_given_up(compared: ContainedSentences, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentences, "SECONDS", 0.001)
    with pytest.raises(ModelError) as caught:
        await compared.evidence("acme", "The ladder has 22 pools. " * 200, PASSAGES * 200)
    assert caught.value.code == "timeout"
    monkeypatch.undo()
    assert await compared.evidence("acme", "The ladder has 22 pools.", PASSAGES)
