from __future__ import annotations

from typing import Any

import pytest

from domain.embedding import EmbeddingModel
from domain.knowledge.document import revision_id, segment_id
from domain.knowledge.segmentation import Segmentation
from projections.datasets import datasets
from projections.document_segments import child_chunks, document_segments
from projections.documents import documents
from tests.projections.history import NOON, History

RULES = Segmentation(mode="custom", overlap=20).plain()
TIMES = ("processing_started_at", "parsing_completed_at", "splitting_completed_at", "completed_at", "stopped_at")


def seconds(row: dict[str, Any]) -> list[int | None]:
    """The row's times, in seconds since noon."""
    return [row[name] and (row[name] - NOON).seconds for name in TIMES]


def test_given_a_dataset_when_a_document_is_uploaded_then_it_waits() -> None:
    history = History()
    dataset = history.dataset()
    document = history.document(dataset.id)
    (row,) = history.rows(documents)
    assert row == documents.blank | {
        "tenant_id": "default",
        "id": document.id,
        "dataset_id": dataset.id,
        "name": "gates.md",
        "media_type": "text/markdown",
        "digest": "d" * 64,
        "size": 1200,
        "doc_metadata": {"author": "Ada"},
        "indexing_status": "waiting",
        "attempt": 0,
        "warnings": [],
        "completed_segments": 0,
        "doc_form": "text_model",
        "enabled": True,
        "archived": False,
        "display_status": "queuing",
        "index_status": "current",
        "trace_id": "the-correlation",
        "created_by": "ada",
        "created_at": document.created_on,
        "updated_at": document.created_on,
        "log_position": 2,
    }


def test_given_a_document_when_it_is_worked_on_then_the_row_tells_how_far_it_is() -> None:
    history = History()
    document = history.document(history.dataset().id)
    history.split(document, ["One two.", "Three four five.", "Six."])
    (row,) = history.rows(documents)
    assert (row["indexing_status"], row["attempt"], row["completed_segments"], row["total_segments"]) == (
        "indexing",
        1,
        0,
        3,
    )
    assert (row["pages"], row["word_count"], row["tokens"], row["embedding_model"]) == (2, 1000, 6, "a-model")
    assert row["warnings"] == ["1 comment left out"]
    assert seconds(row) == [3, 4, 5, None, None]

    history.index(document, 2)
    (row,) = history.rows(documents)
    assert (row["indexing_status"], row["completed_segments"]) == ("indexing", 2)

    history.index(document, 1)
    (row,) = history.rows(documents)
    assert (row["indexing_status"], row["completed_segments"], row["total_segments"]) == ("completed", 3, 3)
    assert seconds(row) == [3, 4, 5, 7, None]


def test_given_a_failed_document_when_it_is_retried_then_the_failure_goes_and_what_was_done_stays() -> None:
    history = History()
    document = history.document(history.dataset().id)
    history.split(document, ["One.", "Two."])
    history.index(document, 1)
    document.fail(history.now, stage="indexing", code="unavailable", reason="The index does not answer.")
    history.record(document)
    (row,) = history.rows(documents)
    assert [row[name] for name in ("indexing_status", "error_stage", "error_code", "error")] == [
        "error",
        "indexing",
        "unavailable",
        "The index does not answer.",
    ]
    assert seconds(row) == [3, 4, 5, None, 7]

    document.retry(history.now)
    document.start(history.now, stage="indexing")
    history.record(document)
    (row,) = history.rows(documents)
    assert (row["indexing_status"], row["attempt"], row["completed_segments"], row["error"]) == ("indexing", 2, 1, None)
    assert seconds(row) == [9, 4, 5, None, None]
    assert len(history.rows(document_segments)) == 1


def test_given_a_split_document_when_parts_are_indexed_then_their_segments_have_rows() -> None:
    history = History()
    dataset = history.dataset()
    document = history.document(dataset.id)
    history.split(document, ["One two.", "Three four five."])
    assert history.rows(document_segments) == []
    history.index(document, 1)
    at = document.modified_on
    assert document.segments
    (row,) = history.rows(document_segments)
    assert row == {
        "tenant_id": "default",
        "id": segment_id(document.id, document.segments, 0),
        "dataset_id": dataset.id,
        "document_id": document.id,
        "cut_id": revision_id(document.id, document.segments),
        "position": 0,
        "content": "One two.",
        "answer": None,
        "word_count": 8,
        "tokens": 2,
        "page": 1,
        "heading": "Gates",
        "start_offset": 0,
        "end_offset": 8,
        "status": "completed",
        "enabled": True,
        "disabled_at": None,
        "edited": False,
        "created_at": at,
        "completed_at": at,
        "log_position": 4,
    }
    history.index(document, 1)
    assert sorted(row["content"] for row in history.rows(document_segments)) == ["One two.", "Three four five."]


def contents(history: History) -> list[str]:
    return sorted(row["content"] for row in history.rows(document_segments))


def test_given_indexed_segments_when_the_document_is_reprocessed_then_they_stay_until_the_new_are_in() -> None:
    history = History()
    document = history.document(history.dataset().id)
    history.split(document, ["Old one.", "Old two."])
    history.index(document, 2)
    document.reprocess(history.now)
    history.record(document)
    (row,) = history.rows(documents)
    assert (row["indexing_status"], row["completed_segments"], row["total_segments"]) == ("waiting", 0, None)
    assert seconds(row) == [3, None, None, None, None]
    history.split(document, ["New one.", "New two."])
    assert contents(history) == ["Old one.", "Old two."]
    history.index(document, 1)
    assert contents(history) == ["New one.", "Old one.", "Old two."]
    history.index(document, 1)
    assert contents(history) == ["New one.", "New two."]
    assert history.rows(documents)[0]["indexing_status"] == "completed"


def test_given_indexed_segments_when_they_are_cut_as_before_then_they_are_there_all_the_time() -> None:
    history = History()
    document = history.document(history.dataset().id)
    history.split(document, ["One.", "Two."])
    history.index(document, 2)
    document.reprocess(history.now)
    history.split(document, ["One.", "Two."])
    assert contents(history) == ["One.", "Two."]
    history.index(document, 1)
    assert contents(history) == ["One.", "Two."]
    history.index(document, 1)
    assert contents(history) == ["One.", "Two."]


def test_given_small_segments_when_they_are_indexed_then_their_parent_is_a_segment_and_they_are_its_children() -> None:
    history = History()
    document = history.document(history.dataset().id)
    history.split(document, ["One. Two.", "One.", "Two."], family=True)
    history.index(document, 3)
    (parent,) = history.rows(document_segments)
    assert (parent["content"], parent["position"], parent["answer"]) == ("One. Two.", 0, None)
    children = sorted(history.rows(child_chunks), key=lambda row: row["position"])
    assert [row["content"] for row in children] == ["One.", "Two."]
    assert {row["segment_id"] for row in children} == {parent["id"]}
    assert {row["cut_id"] for row in (parent, *children)} == {parent["cut_id"]}
    (row,) = history.rows(documents)
    assert (row["doc_form"], row["segmentation"]) == ("hierarchical_model", None)
    document.reprocess(history.now, segmentation=RULES)
    history.split(document, ["One."])
    history.index(document, 1)
    assert history.rows(child_chunks) == []
    assert contents(history) == ["One."]
    (row,) = history.rows(documents)
    assert (row["doc_form"], row["segmentation"]) == ("text_model", RULES)


@pytest.mark.parametrize("which", ["document", "dataset"])
def test_given_a_document_at_work_when_it_or_its_dataset_is_deleted_then_nothing_of_it_stays_or_comes(
    which: str,
) -> None:
    history = History()
    dataset, other = history.dataset(), history.dataset()
    document, kept = history.document(dataset.id), history.document(other.id, name="kept.md")
    for one in (document, kept):
        history.split(one, ["One.", "Two."])
        history.index(one, 1)
    aggregate = document if which == "document" else dataset
    aggregate.delete(history.now)
    history.record(aggregate)
    document.deleted = False
    history.index(document, 1)  # a worker that had not heard of it yet

    assert [row["name"] for row in history.rows(documents)] == ["kept.md"]
    assert {row["document_id"] for row in history.rows(document_segments)} == {kept.id}
    assert len(history.rows(datasets)) == (2 if which == "document" else 1)


def test_a_dataset_that_gets_another_embedding_model() -> None:
    history = History()
    dataset = history.dataset()
    [row] = history.rows(datasets)
    assert (row["embedding_model"], row["next_embedding_model"]) == (None, None)
    b, remote = EmbeddingModel(provider="builtin", model="b"), EmbeddingModel(provider="lab", model="small")
    dataset.configure(history.now, embedding=b)
    history.record(dataset)
    [row] = history.rows(datasets)
    assert (row["embedding_model"], row["next_embedding_model"]) == (None, "b")
    dataset.reindexed(history.now, embedding=b)
    at = history.record(dataset)
    [row] = history.rows(datasets)
    assert (row["embedding_model"], row["next_embedding_model"], row["updated_at"]) == ("b", None, at)
    dataset.configure(history.now, embedding=remote)
    history.record(dataset)
    [row] = history.rows(datasets)
    assert (row["embedding_model_provider"], row["next_embedding_model_provider"]) == ("builtin", "lab")
    dataset.fail_reindex(history.now, embedding=remote, code="not_found", reason="Gone.")
    history.record(dataset)
    [row] = history.rows(datasets)
    assert (row["embedding_model"], row["next_embedding_model"], row["next_embedding_model_provider"]) == (
        "b",
        None,
        None,
    )
    assert (row["embedding_error_code"], row["embedding_error"]) == ("not_found", "Gone.")
    dataset.configure(history.now, embedding=remote)
    history.record(dataset)
    [row] = history.rows(datasets)
    assert (row["embedding_error_code"], row["embedding_error"]) == (None, None)


def test_a_dataset_that_gets_other_rules() -> None:
    history = History()
    dataset = history.dataset()
    assert history.rows(datasets)[0]["segmentation"] is None
    dataset.configure(history.now, segmentation=RULES)
    dataset.reprocess(history.now)
    history.record(dataset)
    assert history.rows(datasets)[0]["segmentation"] == RULES
