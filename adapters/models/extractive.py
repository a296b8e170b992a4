"""The built-in chat model: it answers with sentences of the passages, at once, without a server."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from handlers.chat.sentences import answering
from handlers.chat.terms import pieces
from handlers.ports.models import ChatRequest, ChatUsage, Delta

NAME = "extractive"

NOTHING = "I found nothing in the documents that answers this question."


def count(text: str) -> int:
    """The model's tokens: words and marks."""
    return sum(not piece.isspace() for piece in pieces(text))


class Extractive:
    """Chooses the sentences of `ChatRequest.passages` that match the last question best.

    Equal requests get equal answers; `parameters` have no effect.
    """

    server = ""

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        prompt = sum(count(message.content) for message in request.messages)
        answer = pieces(self.answer(request))
        for piece in answer[: request.max_tokens]:
            yield Delta(piece)
        yield Delta(
            finish_reason="stop" if len(answer) <= request.max_tokens else "length",
            usage=ChatUsage(prompt, min(len(answer), request.max_tokens)),
        )

    @staticmethod
    def answer(request: ChatRequest) -> str:
        question = next((message.content for message in reversed(request.messages) if message.role == "user"), "")
        found = answering(question, request.passages)
        return " ".join(" ".join(sentence.text.split()) for sentence in found) or NOTHING
