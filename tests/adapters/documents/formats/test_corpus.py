"""Every paragraph, cell and note of documents with known text is found again, at its place."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest

from adapters.documents.extract import FileExtractor
from adapters.documents.formats.kinds import kind_of
from adapters.sandbox.child import Sandbox
from handlers.media_types import MEDIA_TYPES
from tests.adapters.documents.formats.corpus import Sample, samples
from tests.adapters.documents.formats.measure import PAGE, Reading, measure, page

SAMPLES = list(samples(3))


@pytest.fixture(scope="module")
async def files(sandbox: Sandbox) -> AsyncIterator[FileExtractor]:
    async with FileExtractor(sandbox) as files:
        yield files


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
async def test_all_is_found_at_its_place(files: FileExtractor, sample: Sample) -> None:
    text = await files.extract("acme", sample.data, "", sample.name)
    reading = Reading(text)
    assert [fact for fact in sample.facts if not reading.found(fact.text)] == []
    assert [fact for fact in sample.facts if not reading.placed(fact)] == []
    assert [absent for absent in sample.absent if reading.found(absent)] == []
    assert (text.title, text.pages) == (sample.title, sample.pages)


@pytest.mark.parametrize("suffix", MEDIA_TYPES)
def test_what_a_name_says_and_what_its_media_type_says_agree(suffix: str) -> None:
    kind = kind_of(MEDIA_TYPES[suffix], "")
    assert kind is not None
    assert kind_of("", f"a{suffix.upper()}") == kind


async def test_the_page_has_the_figures_of_every_format() -> None:
    figures = await measure(SAMPLES, SAMPLES)
    assert all(each.texts == each.found == each.placed for each in figures.values())
    written = PAGE.read_text()
    shares = re.findall(r"^\| ([\w, ]+) \| [\d,]+ \| 100\.0% \| 100\.0% \| 0 \| [\d,]+ \|$", written, re.MULTILINE)
    assert shares == list(figures)
    assert "Measured on" in page(written, figures)
