"""The segments that can be found: the table `document_segments`; small ones with a parent are in `child_chunks`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from sqlalchemy import Boolean, Column, Integer, Text

from domain.knowledge.dataset import Dataset
from domain.knowledge.document import Document, revision_id, segment_id
from domain.knowledge.segments import unpack_segments
from domain.log import Recorded
from projections.documents import documents
from projections.engine.columns import Id, Time, key, optional, required
from projections.engine.read_model import ReadModel, Row, originator


def edits() -> list[Column[Any]]:
    """Columns of manual changes to a segment."""
    return [
        required(
            "status",
            Text,
            "completed: it can be found as it is here, unless it is disabled; indexing: soon; error: see the document.",
        ),
        required("enabled", Boolean, "False: it cannot be found, nor can the children of it."),
        optional("disabled_at", Time, "When it was disabled; null while it is enabled."),
        required("edited", Boolean, "True: its text or answer was edited."),
    ]


document_segments = ReadModel(
    "document_segments",
    "Segments of documents that can be found, or are the parents of those that can. They go when the document is "
    "deleted, or its dataset is, or when it was reprocessed and all of the new ones can be found.",
    key("id", "Segment; the search index and the citations know it by this id."),
    required("dataset_id", Id, "Dataset, in datasets."),
    required("document_id", Id, "Document, in documents."),
    optional(
        "cut_id", Id, "Revision of the document: the same for all segments of one revision; null: added manually."
    ),
    required(
        "position",
        Integer,
        "Place in the document, from 0; parents and children are counted together, what was added is where it follows.",
    ),
    required("content", Text, "Text of the segment; the question where there is an answer."),
    optional("answer", Text, "Answer to the question; null where the document is not of questions and answers."),
    required("word_count", Integer, "Characters of the text."),
    optional("tokens", Integer, "Tokens of the text, as the embedding model counts; null: edited."),
    optional("page", Integer, "Page that it begins on, from 1; null where the format has none."),
    optional("heading", Text, "Headings above it, outermost first; null when there are none."),
    optional("start_offset", Integer, "Where it begins in the extracted text, in characters; null: added manually."),
    optional("end_offset", Integer, "Where it ends in the extracted text, in characters; null: added manually."),
    *edits(),
    required("created_at", Time, "When the row came."),
    optional("completed_at", Time, "When it could first be found; null: added manually."),
)

child_chunks = ReadModel(
    "child_chunks",
    "Small segments that can be found, in whose place their parent is given to the model. They go as segments do.",
    key("id", "Child; the search index knows it by this id."),
    required("segment_id", Id, "Parent, in document_segments."),
    required("dataset_id", Id, "Dataset, in datasets."),
    required("document_id", Id, "Document, in documents."),
    required("cut_id", Id, "Revision of the document: the same for all segments of one revision."),
    required("position", Integer, "Place in the document, from 0; parents and children are counted together."),
    required("content", Text, "Text of the child."),
    required("word_count", Integer, "Characters of the text."),
    optional("tokens", Integer, "Tokens of the text, as the embedding model counts; null: edited."),
    optional("page", Integer, "Page that it begins on, from 1; null where the format has none."),
    optional("heading", Text, "Headings above it, outermost first; null when there are none."),
    required("start_offset", Integer, "Where it begins in the extracted text, in characters."),
    required("end_offset", Integer, "Where it ends in the extracted text, in characters."),
    *edits(),
    required("created_at", Time, "When it could first be found."),
)
for _segments in (document_segments, child_chunks):
    _segments.clears(
        Document.Replaced, column="cut_id", pick=lambda event, message: revision_id(event.originator_id, event.segments)
    )
    _segments.clears(Document.Deleted, column="document_id")
    _segments.clears(Dataset.Deleted, column="dataset_id")


@lru_cache(maxsize=4)
def segments_of(blob: bytes) -> list[dict[str, Any]]:
    """The segments of a blob, none of an empty one, which is that of an erased person.

    A document is indexed in parts that follow each other closely, and all of them need the same blob.
    """
    return unpack_segments(blob)[1] if blob else []


def blob_of(event: Document.Indexed, message: Recorded) -> str:
    return event.segments


@document_segments.makes(Document.Indexed, within=(documents, originator), blob=blob_of)
def indexed(event: Document.Indexed, message: Recorded, document: Row, blob: bytes) -> list[Row]:
    return [
        {
            **_described(event, segment),
            "answer": segment.get("answer"),
            "completed_at": event.timestamp,
        }
        for segment in _part(event, blob)
        if segment.get("parent") is None
    ]


@child_chunks.makes(Document.Indexed, within=(documents, originator), blob=blob_of)
def child_indexed(event: Document.Indexed, message: Recorded, document: Row, blob: bytes) -> list[Row]:
    return [
        {**_described(event, segment), "segment_id": segment_id(event.originator_id, event.segments, parent)}
        for segment in _part(event, blob)
        if (parent := segment.get("parent")) is not None
    ]


def _part(event: Document.Indexed, blob: bytes) -> list[dict[str, Any]]:
    return segments_of(blob)[event.first : event.first + event.count]


def _described(event: Document.Indexed, segment: dict[str, Any]) -> Row:
    """Return the columns that the tables have in common."""
    return {
        "id": segment_id(event.originator_id, event.segments, segment["position"]),
        "dataset_id": event.dataset,
        "document_id": event.originator_id,
        "cut_id": revision_id(event.originator_id, event.segments),
        "position": segment["position"],
        "content": segment["content"],
        "word_count": len(segment["content"]),
        "tokens": segment["tokens"],
        "page": segment["page"],
        "heading": segment["heading"],
        "start_offset": segment["start"],
        "end_offset": segment["end"],
        "status": "completed",
        "enabled": True,
        "edited": False,
    }


# --- manual changes ---


def the_segment(event: Any, message: Recorded) -> str:
    return event.segment  # type: ignore[no-any-return]


@document_segments.makes(Document.SegmentAdded, within=(documents, originator))
def added(event: Document.SegmentAdded, message: Recorded, document: Row) -> Row:
    return {
        "id": event.segment,
        "dataset_id": event.dataset,
        "document_id": event.originator_id,
        "position": event.position,
        "content": event.content,
        "answer": event.answer,
        "word_count": len(event.content),
        "status": "indexing",
        "enabled": True,
        "edited": True,
    }


def edited(row: Row, event: Document.SegmentEdited, message: Recorded) -> Row:
    changes: Row = {"status": "indexing", "edited": True}
    if event.content is not None:
        changes |= {"content": event.content, "word_count": len(event.content), "tokens": None}
    if event.answer is not None and "answer" in row:
        changes["answer"] = event.answer
    return changes


def disabled(row: Row, event: Document.SegmentDisabled, message: Recorded) -> Row:
    return {"enabled": False, "disabled_at": event.timestamp}


def enabled(row: Row, event: Document.SegmentEnabled, message: Recorded) -> Row:
    return {"enabled": True, "disabled_at": None, "status": "indexing"}


for _segments in (document_segments, child_chunks):
    _segments.changes(Document.SegmentEdited, pick=the_segment)(edited)
    _segments.changes(Document.SegmentDisabled, pick=the_segment)(disabled)
    _segments.changes(Document.SegmentEnabled, pick=the_segment)(enabled)
    _segments.clears(Document.SegmentDeleted, pick=the_segment)
    for _event, _before, _after in (
        (Document.Settled, "indexing", "completed"),
        (Document.Settled, "error", "completed"),
        (Document.Unsettled, "indexing", "error"),
        (Document.Resumed, "error", "indexing"),
        (Document.Enabled, "completed", "indexing"),
        (Document.Unarchived, "completed", "indexing"),
    ):
        _segments.sets(_event, {"status": _after}, column="document_id", only={"status": _before})
child_chunks.clears(Document.SegmentDeleted, column="segment_id", pick=the_segment)

# --- queries ---

TEXTS = """
SELECT segment.id, document.name AS document, content, page, heading, segment.position
FROM (
    SELECT tenant_id, id, document_id, content, page, heading, position FROM headrace.document_segments
    UNION ALL SELECT tenant_id, id, document_id, content, page, heading, position FROM headrace.child_chunks
) segment JOIN headrace.documents document ON (document.tenant_id, document.id) = (segment.tenant_id, document_id)
WHERE segment.tenant_id = %(tenant)s AND segment.id = ANY (%(ids)s)
"""
"""The texts of segments and children with these ids, and the names of their documents."""

FINDABLE = """
SELECT tenant_id, dataset_id, segments.id
FROM headrace.document_segments AS segments JOIN headrace.documents USING (tenant_id, dataset_id)
WHERE documents.id = document_id AND documents.enabled AND NOT archived AND segments.enabled
UNION ALL
SELECT tenant_id, dataset_id, child_chunks.id
FROM headrace.child_chunks JOIN headrace.document_segments AS parents USING (tenant_id, dataset_id, document_id)
    JOIN headrace.documents USING (tenant_id, dataset_id)
WHERE parents.id = segment_id AND documents.id = document_id
    AND documents.enabled AND NOT archived AND parents.enabled AND child_chunks.enabled
ORDER BY 1, 2, 3
"""
"""The segments that must be in the index: the tables' side of `domain.knowledge.entries`."""
