"""The built-in chat model: it answers with sentences of the passages, at once, without a server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

from handlers.chat.sentences import answering
from handlers.chat.terms import pieces
from handlers.ports.log import Unavailable
from handlers.ports.models import ChatRequest, ChatUsage, Delta, ModelError

NAME = "extractive"

NOTHING = "I found nothing in the documents that answers this question."


Answering = Callable[[str, str, Sequence[str]], Awaitable[list[str]]]
"""Return the sentences of passages that answer a tenant's question. Raises: ModelError; Unavailable."""


async def answering_here(tenant: str, question: str, passages: Sequence[str]) -> list[str]:
    """As `Answering`, in this process."""
    return [sentence.text for sentence in answering(question, passages)]


def count(text: str) -> int:
    """The model's tokens: words and marks."""
    return sum(not piece.isspace() for piece in pieces(text))


class Extractive:
    """Chooses the sentences of `ChatRequest.passages` that match the last question best.

    Equal requests get equal answers; `parameters` have no effect.
    """

    server = ""

    def __init__(self, tenant: str = "", answering: Answering = answering_here) -> None:
        self._tenant = tenant
        self._answering = answering

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """As the port. Raises: ModelError `unsupported` for files, too."""
        if any(message.attachments for message in request.messages):
            raise ModelError("unsupported", "The built-in model answers from texts: it takes no images and recordings.")
        prompt = sum(count(message.content) for message in request.messages)
        answer = pieces(await self.answer(request))
        for piece in answer[: request.max_tokens]:
            yield Delta(piece)
        yield Delta(
            finish_reason="stop" if len(answer) <= request.max_tokens else "length",
            usage=ChatUsage(prompt, min(len(answer), request.max_tokens)),
        )

    async def answer(self, request: ChatRequest) -> str:
        if not request.passages:
            return NOTHING
        question = next((message.content for message in reversed(request.messages) if message.role == "user"), "")
        try:
            found = await self._answering(self._tenant, question, request.passages)
        except Unavailable as error:
            raise ModelError("unreachable", str(error)) from error
        return " ".join(" ".join(sentence.split()) for sentence in found) or NOTHING
