"""Compares sentences of answers, questions and passages in contained processes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Self, TypeVar

from pydantic import TypeAdapter, ValidationError

from adapters.sandbox.child import Limits, Sandbox, python
from adapters.sandbox.pool import Children, Died, TooSlow
from handlers.ports.models import ModelError

LIMITS = Limits(memory=512 * 2**20, cpu_s=600)

AT_ONCE = 4
"""Number of requests that are answered at a time."""

USES = 10_000
"""Number of requests that a process answers: its start takes the time of many."""

SECONDS, BYTES_PER_S = 5.0, 100_000
"""Time limit of a request: seconds, of which a hundredth is usual, plus its size at this rate, for large files."""


T = TypeVar("T")

_EVIDENCE = TypeAdapter(list[tuple[int, str]])
_NUMBERS = TypeAdapter(list[int])
_SENTENCES = TypeAdapter(list[str])


class ContainedSentences:
    """A Citer, a Ranking, and the sentences that answer a question. Use it as a context manager."""

    def __init__(self, sandbox: Sandbox) -> None:
        program = python("adapters.models.sentences_child")
        self._children = Children(sandbox, program, LIMITS, most=AT_ONCE, most_reply=2**24, warm=True, uses=USES)

    async def evidence(self, tenant: str, answer: str, passages: Sequence[str]) -> list[tuple[int, str]]:
        found = await self._ask(tenant, "evidence", answer, passages, _EVIDENCE)
        if any(not 0 <= number < len(passages) for number, _ in found):
            raise ModelError("server_error", "Comparing the sentences named a passage that there is not.")
        return found

    async def answering(self, tenant: str, question: str, passages: Sequence[str]) -> list[str]:
        """The sentences of the passages that answer a question, best first. Raises: ModelError."""
        return await self._ask(tenant, "answering", question, passages, _SENTENCES)

    async def ranked(self, tenant: str, question: str, passages: Sequence[str]) -> list[int]:
        found = await self._ask(tenant, "ranked", question, passages, _NUMBERS)
        if sorted(found) != list(range(len(passages))):
            raise ModelError("server_error", "Ranking the passages gave other numbers than theirs.")
        return found

    async def _ask(
        self, tenant: str, task: str, text: str, passages: Sequence[str], expected: TypeAdapter[list[T]]
    ) -> list[T]:
        data = json.dumps([text, list(passages)], ensure_ascii=False).encode(errors="surrogatepass")
        seconds = SECONDS + len(data) / BYTES_PER_S
        try:
            reply = await self._children.ask(tenant, {"task": task}, data, seconds=seconds)
        except TooSlow:
            raise ModelError("timeout", f"Comparing the sentences took longer than {seconds:.0f} s.") from None
        except Died as died:
            raise ModelError("server_error", f"Comparing the sentences ended the process ({died}).") from None
        try:
            return expected.validate_json(reply, strict=True)
        except ValidationError:
            raise ModelError("server_error", "Comparing the sentences gave no reply.") from None

    async def __aenter__(self) -> Self:
        await self._children.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._children.__aexit__(None, None, None)
