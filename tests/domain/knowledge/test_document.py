from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import pytest

from domain.aggregate import new_id
from domain.knowledge.document import Document, segment_id
from tests.domain.scenario import NOW, given, made

DATASET = new_id()
BYTES, SEGMENTS = "ab" * 32, "cd" * 32

Decision = Callable[[Document], None]


def document() -> Document:
    return Document.upload(
        new_id(),
        NOW,
        dataset=DATASET,
        name="rules.pdf",
        media_type="application/pdf",
        digest=BYTES,
        size=1000,
        metadata={"year": 2026},
    )


def start(document: Document) -> None:
    document.start(NOW, stage="parsing")


def parse(document: Document) -> None:
    document.parsed(NOW, pages=3, characters=4000)


def split(document: Document) -> None:
    document.split(NOW, segments=SEGMENTS, count=10, tokens=900, model="minilm")


def index(first: int, count: int) -> Decision:
    return lambda document: document.indexed(NOW, first=first, count=count)


def fail(document: Document) -> None:
    document.fail(NOW, stage="parsing", code="broken_file", reason="It is not a PDF.")


def retry(document: Document) -> None:
    document.retry(NOW)


def delete(document: Document) -> None:
    document.delete(NOW)


INDEXING = (start, parse, split)
COMPLETED = (*INDEXING, index(0, 10))


def test_waits_when_it_is_uploaded() -> None:
    made(document()).then(Document.Uploaded).whole(
        dataset=DATASET,
        name="rules.pdf",
        media_type="application/pdf",
        digest=BYTES,
        size=1000,
        metadata={"year": 2026},
        person=None,
    )
    assert document().status == "waiting"


def test_goes_from_bytes_to_segments() -> None:
    scenario = given(document())
    scenario.when(start).then(Document.Started, attempt=1, stage="parsing")
    scenario.once(parse, Document.Parsed, pages=3, characters=4000)
    assert scenario.aggregate.status == "splitting"
    scenario.once(split, Document.Split, segments=SEGMENTS, count=10, tokens=900, model="minilm")
    assert (scenario.aggregate.status, scenario.aggregate.total, scenario.aggregate.done) == ("indexing", 10, 0)
    scenario.once(index(0, 6), Document.Indexed, dataset=DATASET, segments=SEGMENTS, first=0, count=6)
    assert (scenario.aggregate.status, scenario.aggregate.done) == ("indexing", 6)
    scenario.once(index(6, 4), Document.Indexed, Document.Completed)
    assert (scenario.aggregate.status, scenario.aggregate.done) == ("completed", 10)


def test_segments_are_indexed_in_order() -> None:
    given(document(), *INDEXING).when(index(6, 4)).nothing()
    given(document(), *INDEXING, index(0, 6)).when(index(0, 6)).nothing()


def test_every_start_is_an_attempt() -> None:
    scenario = given(document(), start).when(start).then(Document.Started, attempt=2)
    assert scenario.aggregate.status == "parsing"


def test_a_new_attempt_may_go_on_with_the_segments() -> None:
    scenario = given(document(), *INDEXING, index(0, 6))
    scenario.when(lambda it: it.start(NOW, stage="indexing")).then(Document.Started, attempt=2, stage="indexing")
    scenario.when(index(6, 4)).then(Document.Indexed, Document.Completed)


def test_fails_with_a_stage_and_a_reason() -> None:
    scenario = given(document(), start).once(
        fail, Document.Failed, stage="parsing", code="broken_file", reason="It is not a PDF."
    )
    assert scenario.aggregate.status == "error"


def test_a_failed_one_can_be_tried_again() -> None:
    scenario = given(document(), start, fail).when(retry).then(Document.Retried)
    assert scenario.aggregate.status == "waiting"
    scenario.when(start).then(Document.Started, attempt=2)


@pytest.mark.parametrize("before", [(), (start,), COMPLETED, (start, fail, retry)])
def test_only_a_failed_one_can_be_tried_again(before: tuple[Decision, ...]) -> None:
    given(document(), *before).when(retry).rejects("not_failed", "document")


@pytest.mark.parametrize("before", [(), (start,), (start, parse), INDEXING, COMPLETED, (start, fail)])
def test_is_deleted_once_in_whatever_state(before: tuple[Decision, ...]) -> None:
    given(document(), *before).once(delete, Document.Deleted, dataset=DATASET)


@pytest.mark.parametrize("ended", [(*INDEXING, delete), COMPLETED, (start, fail)])
@pytest.mark.parametrize("decision", [start, parse, split, index(0, 10), fail])
def test_nothing_happens_to_one_that_ended(ended: tuple[Decision, ...], decision: Decision) -> None:
    scenario = given(document(), *ended)
    assert scenario.aggregate.ended
    scenario.when(decision).nothing()


def test_a_segment_is_named_by_document_digest_and_position() -> None:
    first, second = new_id(), new_id()
    assert segment_id(first, SEGMENTS, 0) == segment_id(first, SEGMENTS, 0)
    ids = {segment_id(id, digest, place) for id in (first, second) for digest in (BYTES, SEGMENTS) for place in (0, 1)}
    assert len(ids) == 8
    assert {UUID(id).version for id in ids} == {5}


@pytest.mark.parametrize(
    ("count", "kept"),
    [(0, []), (20, [str(number) for number in range(20)]), (30, [*map(str, range(19)), "11 further warnings"])],
)
def test_a_text_has_at_most_twenty_warnings_and_the_last_counts_the_rest(count: int, kept: list[str]) -> None:
    found = document()
    start(found)
    found.parsed(NOW, pages=3, characters=4000, warnings=[str(number) for number in range(count)])
    (event,) = [event for event in found.pending_events if isinstance(event, Document.Parsed)]
    assert event.warnings == kept
