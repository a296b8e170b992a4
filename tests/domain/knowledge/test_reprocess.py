"""A document that is reprocessed: the former revision serves until all of the new one can be found."""

from __future__ import annotations

import pytest

from domain.knowledge import curation
from domain.knowledge.document import Document, Revision, revision_id
from domain.knowledge.segmentation import Segmentation
from tests.domain.knowledge.test_document import (
    COMPLETED,
    DATASET,
    INDEXING,
    SEGMENTS,
    Decision,
    delete,
    document,
    fail,
    index,
    parse,
    retry,
    split,
    start,
)
from tests.domain.scenario import NOW, given

OTHER = "ef" * 32
RULES = Segmentation(mode="custom", max_tokens=100).plain()


def reprocess(document: Document) -> None:
    document.reprocess(NOW)


def cut(segments: str, count: int = 4) -> Decision:
    return lambda document: document.split(NOW, segments=segments, count=count, tokens=90, model="minilm")


def found(document: Document) -> list[tuple[str, int]]:
    return [(cut["segments"], cut["done"]) for cut in document.revisions]


AGAIN = (reprocess, start, parse, cut(OTHER))


def test_the_old_can_be_found_until_the_new_is_whole() -> None:
    scenario = given(document(), *COMPLETED)
    assert found(scenario.aggregate) == [(SEGMENTS, 10)]
    scenario.when(reprocess).then(Document.Reprocessed)
    assert (scenario.aggregate.status, found(scenario.aggregate)) == ("waiting", [(SEGMENTS, 10)])
    scenario.when(start).when(parse).when(cut(OTHER))
    assert found(scenario.aggregate) == [(SEGMENTS, 10)]
    scenario.when(index(0, 3)).then(Document.Indexed)
    assert found(scenario.aggregate) == [(SEGMENTS, 10), (OTHER, 3)]
    scenario.when(index(3, 1)).then(Document.Indexed, Document.Replaced, Document.Completed)
    replaced = scenario.events[1]
    assert isinstance(replaced, Document.Replaced)
    assert (replaced.dataset, replaced.segments, replaced.count) == (DATASET, SEGMENTS, 10)
    assert found(scenario.aggregate) == [(OTHER, 4)]
    assert scenario.aggregate.earlier == {}


def test_a_reprocessing_that_failed_leaves_the_old() -> None:
    scenario = given(document(), *COMPLETED, reprocess, start, fail)
    assert (scenario.aggregate.status, found(scenario.aggregate)) == ("error", [(SEGMENTS, 10)])
    scenario.when(retry).when(start).when(parse).when(cut(OTHER)).when(index(0, 4))
    assert found(scenario.aggregate) == [(OTHER, 4)]


def test_all_that_was_cut_before_goes_together() -> None:
    """Also one that was not completed: all of its segments are named, since a worker may have written more."""
    third = "12" * 32
    scenario = given(document(), *COMPLETED, *AGAIN, index(0, 1), fail, reprocess, start, parse, cut(third))
    assert found(scenario.aggregate) == [(SEGMENTS, 10), (OTHER, 1)]
    scenario.when(index(0, 4)).then(Document.Indexed, Document.Replaced, Document.Replaced, Document.Completed)
    assert [(event.segments, event.count) for event in scenario.events if isinstance(event, Document.Replaced)] == [
        (SEGMENTS, 10),
        (OTHER, 4),
    ]


def test_cut_as_before_it_keeps_its_segments() -> None:
    scenario = given(document(), *COMPLETED, reprocess, start, parse, split, index(0, 4))
    assert found(scenario.aggregate) == [(SEGMENTS, 10)]
    scenario.when(index(4, 6)).then(Document.Indexed, Document.Completed)
    assert scenario.aggregate.earlier == {}


def test_cut_as_before_after_it_was_cut_otherwise() -> None:
    back = (reprocess, start, parse, split)
    scenario = given(document(), *COMPLETED, *AGAIN, index(0, 4), *back)
    assert found(scenario.aggregate) == [(OTHER, 4)]
    scenario.when(index(0, 10)).then(Document.Indexed, Document.Replaced, Document.Completed)
    assert found(scenario.aggregate) == [(SEGMENTS, 10)]


@pytest.mark.parametrize("before", [(start,), (start, parse), INDEXING, (*INDEXING, fail, retry)])
def test_work_in_hand_is_brought_to_its_end_before(before: tuple[Decision, ...]) -> None:
    scenario = given(document(), *before).once(reprocess, Document.ReprocessRequested)
    scenario.when(fail).then(Document.Failed, Document.Reprocessed)
    assert (scenario.aggregate.status, scenario.aggregate.again) == ("waiting", False)


def test_when_the_last_segments_are_in_it_begins_again() -> None:
    scenario = given(document(), *INDEXING, reprocess)
    scenario.when(index(0, 10)).then(Document.Indexed, Document.Completed, Document.Reprocessed)
    assert found(scenario.aggregate) == [(SEGMENTS, 10)]


def test_one_that_waits_is_cut_by_the_rules_of_now_anyway() -> None:
    given(document()).when(reprocess).nothing()
    given(document(), *COMPLETED, reprocess).when(reprocess).nothing()


def test_a_worker_that_was_left_behind_records_nothing() -> None:
    scenario = given(document(), *INDEXING, index(0, 10), reprocess)
    scenario.when(index(0, 10)).nothing()
    scenario.when(start).when(index(0, 10)).nothing()


def test_rules_of_its_own_count_from_the_next_time_on() -> None:
    scenario = given(document(), *COMPLETED)
    scenario.when(lambda it: it.reprocess(NOW, segmentation=RULES)).then(
        Document.SegmentationChosen, Document.Reprocessed
    )
    assert scenario.aggregate.segmentation == RULES
    scenario.when(lambda it: it.reprocess(NOW, segmentation=RULES)).nothing()
    scenario.when(start).when(lambda it: it.reprocess(NOW)).then(Document.ReprocessRequested)


def test_rules_of_its_own_are_given_up_for_those_of_its_dataset() -> None:
    scenario = given(document(), *COMPLETED, lambda it: it.reprocess(NOW, segmentation=RULES), start, *COMPLETED[1:])
    scenario.when(lambda it: it.reprocess(NOW, inherit=True)).then(Document.SegmentationChosen, Document.Reprocessed)
    assert scenario.aggregate.segmentation is None
    scenario.when(lambda it: it.reprocess(NOW, inherit=True)).nothing()


def test_rules_may_come_with_the_file() -> None:
    uploaded = Document.upload(
        "0190b7a4-5e65-7bbb-8c3d-2d3c0a3b0001",
        NOW,
        dataset=DATASET,
        name="a.txt",
        media_type="text/plain",
        digest="ab" * 32,
        size=3,
        metadata={},
        segmentation=RULES,
    )
    assert [type(event) for event in uploaded.pending()] == [Document.Uploaded, Document.SegmentationChosen]
    assert uploaded.segmentation == RULES


def test_an_archived_one_stays_as_it_is() -> None:
    given(document(), *COMPLETED, lambda it: curation.archive(it, NOW)).when(reprocess).rejects("archived", "document")


def test_a_deleted_one_is_found_no_more() -> None:
    scenario = given(document(), *COMPLETED, reprocess, start, delete)
    scenario.when(parse).nothing()


def test_a_cut_has_one_id() -> None:
    one, two = document(), document()
    assert revision_id(one.id, SEGMENTS) == revision_id(one.id, SEGMENTS)
    assert len({revision_id(it.id, blob) for it in (one, two) for blob in (SEGMENTS, OTHER)}) == 4


def test_a_cut_is_plain() -> None:
    assert given(document(), *COMPLETED).aggregate.revisions == [Revision(segments=SEGMENTS, count=10, done=10)]
