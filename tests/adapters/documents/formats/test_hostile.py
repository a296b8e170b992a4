"""Whatever is uploaded ends as text or as a reason, in bounded time and memory, and the next file is read."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator

import pytest

from adapters.documents.extract import FileExtractor
from adapters.sandbox.child import Sandbox
from handlers.ports.documents import Unreadable
from tests.adapters.documents.formats.corpus import Sample
from tests.adapters.documents.formats.hostile import READ, SECRET, files, good

CODES = {"unsupported_type", "empty_file", "broken_file", "encrypted_file", "no_text", "too_slow", "too_large"}


@pytest.fixture(scope="module")
async def extractor(sandbox: Sandbox) -> AsyncIterator[FileExtractor]:
    async with FileExtractor(sandbox, children=2, seconds=60, memory=512 * 2**20) as files:
        yield files


async def ending(extractor: FileExtractor, name: str, data: bytes) -> str:
    try:
        text = await extractor.extract("acme", data, "", name)
    except Unreadable as unreadable:
        return unreadable.code
    assert not any(SECRET in block.text for block in text.blocks)
    return READ


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space")
async def test_every_hostile_file_ends_as_it_should(extractor: FileExtractor) -> None:
    """Two at a time, and after each the next one is read."""
    waiting, wrong = files(), {}

    async def read() -> None:
        for file in waiting:
            found = await ending(extractor, file.name, file.data)
            if found not in file.ends or await ending(extractor, "next.txt", b"Water runs.") != READ:
                wrong[file.name] = found

    await asyncio.gather(read(), read())
    assert wrong == {}


@pytest.mark.parametrize("sample", good().values(), ids=lambda sample: sample.name)
async def test_damage_anywhere_ends_as_text_or_as_a_reason(extractor: FileExtractor, sample: Sample) -> None:
    dice = random.Random(sample.name)
    for _ in range(10):
        data = bytearray(sample.data)
        for _ in range(dice.randint(1, 8)):
            place = dice.randrange(len(data))
            data[place : place + dice.choice((1, 1, 4, 60))] = dice.randbytes(dice.choice((0, 1, 4, 60)))
        assert await ending(extractor, sample.name, bytes(data)) in {*CODES, READ} - {"too_slow"}
