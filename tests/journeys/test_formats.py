"""Files of every format, by their names alone: uploaded, extracted, indexed, with their place in each segment."""

from __future__ import annotations

import pytest

from tests.adapters.documents.formats.corpus import samples
from tests.journeys.stack import Stack

PLACED = """
SELECT FROM headrace.document_segments
WHERE document_id = %(id)s AND page IS NOT DISTINCT FROM %(page)s AND heading = %(heading)s
  AND strpos(content, %(text)s) > 0
"""


@pytest.fixture(scope="module")
async def dataset(headrace: Stack) -> str:
    return await headrace.make("dataset.create", name="formats")


async def test_every_format_is_searched_with_its_place(headrace: Stack, dataset: str) -> None:
    wanted = {}
    for sample in samples(1):
        if sample.format != "TXT":
            digest = await headrace.client.upload_blob(sample.data)
            id = await headrace.make("document.upload", dataset=dataset, name=sample.name, digest=digest)
            wanted[id] = sample
    rows = await headrace.ended(list(wanted))
    assert {row["name"]: row["error"] for row in rows.values() if row["indexing_status"] != "completed"} == {}
    for id, sample in wanted.items():
        assert rows[id]["pages"] == sample.pages
        assert sample.title in (None, rows[id]["title"])
        fact = next((fact for fact in sample.facts if fact.heading), None)
        if fact:
            place = {"page": fact.page, "heading": fact.heading, "text": fact.text}
            await headrace.until(PLACED, id=id, **place)
