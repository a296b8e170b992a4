"""Every paragraph, cell and note of documents with known text is found again, at its place."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from adapters.files import FileExtractor
from tests.formats.corpus import Sample, samples
from tests.formats.measure import found, one_line

SAMPLES = list(samples(3))


@pytest.fixture(scope="module")
async def files() -> AsyncIterator[FileExtractor]:
    async with FileExtractor() as files:
        yield files


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
async def test_all_is_found_at_its_place(files: FileExtractor, sample: Sample) -> None:
    text = await files.extract(sample.data, "", sample.name)
    whole = "\n".join(one_line(block.text) for block in text.blocks)
    missing = [fact for fact in sample.facts if one_line(fact.text) not in whole]
    assert not missing
    misplaced = [fact for fact in sample.facts if not found(fact, text)]
    assert not misplaced
    assert not [absent for absent in sample.absent if one_line(absent) in whole]
    assert (text.title, text.pages) == (sample.title, sample.pages)
