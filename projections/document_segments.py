"""The segments that can be found: the table `document_segments`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from sqlalchemy import Integer, Text

from domain.dataset import Dataset
from domain.document import Document, segment_id
from domain.log import Recorded
from domain.segments import unpack_segments
from projections.documents import documents
from projections.read_model import Id, ReadModel, Row, Time, key, optional, originator, required

document_segments = ReadModel(
    "document_segments",
    "Segments of documents that were embedded and can be found. They go when the document is split anew or deleted, "
    "or its dataset is.",
    key("id", "Segment; the search index and the citations know it by this id."),
    required("dataset_id", Id, "Dataset, in datasets."),
    required("document_id", Id, "Document, in documents."),
    required("position", Integer, "Place in the document, from 0."),
    required("content", Text, "Text of the segment."),
    required("word_count", Integer, "Characters of the text."),
    required("tokens", Integer, "Tokens of the text, as the embedding model counts."),
    optional("page", Integer, "Page that it begins on, from 1; null where the format has none."),
    optional("heading", Text, "Headings above it, outermost first; null when there are none."),
    required("start_offset", Integer, "Where it begins in the extracted text, in characters."),
    required("end_offset", Integer, "Where it ends in the extracted text, in characters."),
    required("status", Text, "completed: it can be found."),
    required("created_at", Time, "When the row came."),
    required("completed_at", Time, "When it could first be found."),
)
document_segments.clears(Document.Split, column="document_id")
document_segments.clears(Document.Deleted, column="document_id")
document_segments.clears(Dataset.Deleted, column="dataset_id")


@lru_cache(maxsize=4)
def segments_of(blob: bytes) -> list[dict[str, Any]]:
    """A document is indexed in parts that follow each other closely, and all of them need the same blob."""
    return unpack_segments(blob)[1]


@document_segments.makes(Document.Indexed, within=(documents, originator), blob=lambda event, message: event.segments)
def indexed(event: Document.Indexed, message: Recorded, document: Row, blob: bytes) -> list[Row]:
    return [
        {
            "id": segment_id(event.originator_id, event.segments, segment["position"]),
            "dataset_id": event.dataset,
            "document_id": event.originator_id,
            "position": segment["position"],
            "content": segment["content"],
            "word_count": len(segment["content"]),
            "tokens": segment["tokens"],
            "page": segment["page"],
            "heading": segment["heading"],
            "start_offset": segment["start"],
            "end_offset": segment["end"],
            "status": "completed",
            "completed_at": event.timestamp,
        }
        for segment in segments_of(blob)[event.first : event.first + event.count]
    ]
