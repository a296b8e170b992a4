"""Edits: the tables show what the domain decides."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from domain.knowledge import curation
from domain.knowledge.dataset import Dataset
from domain.knowledge.document import Document, segment_id
from domain.knowledge.entries import entries
from domain.knowledge.segments import Segment, decode_segments
from domain.log import Subject
from projections.dataset_metadata import dataset_metadata
from projections.document_segments import child_chunks, document_segments
from projections.documents import documents
from projections.engine.read_model import Row
from tests.projections.history import History, Tables
from tests.projections.wandering import wander


def aggregates(history: History) -> dict[Subject, Any]:
    found: dict[Subject, Any] = {}
    for message in history.messages:
        for event in message.events:
            if message.subject.noun in ("document", "dataset"):
                found[message.subject] = event.mutate(found.get(message.subject))
    return found


def found(history: History, tenant: str, document: Document) -> dict[str, Segment]:
    cuts = {cut["segments"]: decode_segments(history.blobs[tenant, cut["segments"]])[1] for cut in document.revisions}
    return entries(document, cuts, lambda text: [1, 2, 3])


@settings(max_examples=100, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 150))
def test_the_segments_of_the_tables_are_those_that_the_index_is_to_hold(random: Random, steps: int) -> None:
    history, tables = wander(random, steps), Tables()
    tables.apply(history.messages, history.blobs)
    known = aggregates(history)
    for subject, document in known.items():
        if not isinstance(document, Document):
            continue
        tenant = subject.tenant
        row = tables.stored[documents].get((tenant, document.id))
        dataset = known.get(Subject(tenant, Dataset.TOPIC, document.dataset))
        if row is None or document.deleted or dataset is None or dataset.deleted:
            continue
        assert (row["enabled"], row["archived"], row["name"]) == (document.enabled, document.archived, document.name)
        stands = "error" if document.sync["failed"] else "changing" if document.needs_sync else "current"
        assert row["index_status"] == stands
        kept = {
            id: row
            for model in (document_segments, child_chunks)
            for (of, id), row in tables.stored[model].items()
            if of == tenant and row["document_id"] == document.id and row["enabled"]
        }
        shown = [each for each in kept.values() if each.get("segment_id", each["id"]) in kept and not document.hidden]
        expected = found(history, tenant, document)
        assert {each["id"]: each["content"] for each in shown} == {id: it.content for id, it in expected.items()}
        assert all(each["answer"] == expected[each["id"]].answer for each in shown if "answer" in each)
        assert stands != "current" or {each["status"] for each in shown} <= {"completed"}


def fields(history: History) -> list[tuple[str, str]]:
    return sorted((row["name"], row["type"]) for row in history.rows(dataset_metadata))


def metadata(history: History) -> dict[str, Any]:
    [row] = history.rows(documents)
    data: dict[str, Any] = row["doc_metadata"]
    return data


def test_the_values_of_documents_follow_the_fields() -> None:
    history = History()
    dataset = history.dataset()
    document = history.document(dataset.id)
    dataset.add_metadata_field(history.now, field="f", name="author", type="string")
    history.record(dataset)
    assert fields(history) == [("author", "string")]
    dataset.rename_metadata_field(history.now, name="author", new_name="writer")
    at = history.record(dataset)
    assert (fields(history), metadata(history)) == ([("writer", "string")], {"writer": "Ada"})
    assert history.rows(documents)[0]["updated_at"] == at
    document.set_metadata(history.now, metadata={"year": 2026})
    history.record(document)
    dataset.remove_metadata_field(history.now, name="writer")
    history.record(dataset)
    assert (fields(history), metadata(history)) == ([], {"year": 2026})
    dataset.delete(history.now)
    history.record(dataset)
    assert history.rows(documents) == []


def ready(history: History) -> Document:
    document = history.document(history.dataset().id)
    history.split(document, ["One.", "Two."])
    history.index(document, 2)
    return document


def row_of(history: History, id: str) -> Row:
    [row] = [row for row in history.rows(document_segments) if row["id"] == id]
    return row


def test_a_segment_says_what_was_done_to_it_and_whether_it_can_be_found_as_it_is() -> None:
    history = History()
    document = ready(history)
    assert document.segments
    id = segment_id(document.id, document.segments, 1)
    curation.edit_segment(document, history.now, segment=id, content="Two and more.")
    history.record(document)
    row = row_of(history, id)
    assert (row["status"], row["edited"], row["content"], row["word_count"], row["tokens"]) == (
        "indexing",
        True,
        "Two and more.",
        13,
        None,
    )
    assert history.rows(documents)[0]["index_status"] == "changing"
    document.fail_sync(history.now, code="internal_error", reason="It broke.")
    history.record(document)
    [shown] = history.rows(documents)
    assert (row_of(history, id)["status"], shown["index_status"], shown["error"]) == ("error", "error", "It broke.")
    document.resume_sync(history.now)
    document.mark_synced(history.now, settled=document.sync["changed"])
    curation.disable_segment(document, history.now, segment=id)
    at = history.record(document)
    row = row_of(history, id)
    assert (row["status"], row["enabled"], row["disabled_at"]) == ("completed", False, at)
    assert history.rows(documents)[0]["error"] is None
    curation.delete_segment(document, history.now, segment=id)
    history.record(document)
    assert [row["position"] for row in history.rows(document_segments)] == [0]


def test_a_document_says_in_one_word_how_it_stands() -> None:
    history = History()
    document = history.document(history.dataset().id)
    said = [history.rows(documents)[0]["display_status"]]
    history.split(document, ["One.", "Two."])
    said.append(history.rows(documents)[0]["display_status"])
    history.index(document, 2)
    said.append(history.rows(documents)[0]["display_status"])
    for verb in ("disable", "enable", "archive", "unarchive"):
        (getattr(curation, verb, None) or getattr(Document, verb))(document, history.now)
        history.record(document)
        said.append(history.rows(documents)[0]["display_status"])
    assert said == ["queuing", "indexing", "available", "disabled", "available", "archived", "available"]
    assert history.rows(child_chunks) == []
