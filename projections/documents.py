"""Documents, and how far each has come: the table `documents`."""

from __future__ import annotations

from sqlalchemy import BigInteger, Integer, Text
from sqlalchemy.dialects.postgresql import JSONB

from domain.dataset import Dataset
from domain.document import Document
from domain.log import Recorded
from projections.datasets import datasets
from projections.read_model import Id, ReadModel, Row, Time, key, optional, originator, required

documents = ReadModel(
    "documents",
    "Documents of datasets, and how far each has come from bytes to segments that can be found. "
    "A deleted document, or one of a deleted dataset, has no row.",
    key("id", "Document."),
    required("dataset_id", Id, "Dataset that it belongs to, in datasets."),
    required("name", Text, "File name, as given."),
    required("media_type", Text, "Media type, as given or as guessed from the name."),
    required("digest", Text, "SHA-256 of the file in hex; its bytes are the blob of this name."),
    required("size", BigInteger, "Size of the file in bytes."),
    required("doc_metadata", JSONB, "Metadata, as given."),
    required("indexing_status", Text, "waiting, parsing, splitting, indexing, completed or error."),
    required("attempt", Integer, "How often work on it began; 0 while nobody has yet."),
    optional("pages", Integer, "Pages; null where the format has none, or before the text was extracted."),
    optional("word_count", BigInteger, "Characters of the extracted text; null before."),
    optional("tokens", BigInteger, "Tokens of all segments, as the embedding model counts; null before it was split."),
    optional("embedding_model", Text, "Embedding model that it was split for; null before."),
    required("completed_segments", Integer, "Segments that can be found."),
    optional("total_segments", Integer, "Segments that it was split into; null before."),
    optional("processing_started_at", Time, "When the newest attempt began."),
    optional("parsing_completed_at", Time, "When its text was extracted."),
    optional("splitting_completed_at", Time, "When it was split."),
    optional("completed_at", Time, "When all its segments could be found."),
    optional("stopped_at", Time, "When the newest attempt failed; null when it did not."),
    optional("error_stage", Text, "Where the newest attempt failed: parsing, splitting or indexing."),
    optional("error_code", Text, "Why the newest attempt failed, for programs."),
    optional("error", Text, "Why the newest attempt failed, for people."),
    required("trace_id", Id, "Command that had it uploaded, or tried again last: its trace, in traces."),
    required("created_by", Text, "Who uploaded it."),
    required("created_at", Time, "When it was uploaded."),
    required("updated_at", Time, "When it last changed."),
)
documents.clears(Document.Deleted)
documents.clears(Dataset.Deleted, column="dataset_id")

FAILURE = dict.fromkeys(("stopped_at", "error_stage", "error_code", "error"))


@documents.makes(Document.Uploaded, within=(datasets, lambda event, message: event.dataset), new=originator)
def uploaded(event: Document.Uploaded, message: Recorded, dataset: Row) -> Row:
    return {
        "id": event.originator_id,
        "dataset_id": event.dataset,
        "name": event.name,
        "media_type": event.media_type,
        "digest": event.digest,
        "size": event.size,
        "doc_metadata": event.metadata,
        "indexing_status": "waiting",
        "attempt": 0,
        "completed_segments": 0,
        "trace_id": message.metadata.correlation,
        "created_by": message.metadata.actor,
    }


@documents.changes(Document.Started)
def started(row: Row, event: Document.Started, message: Recorded) -> Row:
    done = {} if event.stage == "indexing" else dict.fromkeys(("parsing_completed_at", "splitting_completed_at"))
    return {
        **FAILURE,
        **done,
        "indexing_status": event.stage,
        "attempt": event.attempt,
        "processing_started_at": event.timestamp,
    }


@documents.changes(Document.Parsed)
def parsed(row: Row, event: Document.Parsed, message: Recorded) -> Row:
    return {
        "indexing_status": "splitting",
        "pages": event.pages,
        "word_count": event.characters,
        "parsing_completed_at": event.timestamp,
    }


@documents.changes(Document.Split)
def split(row: Row, event: Document.Split, message: Recorded) -> Row:
    return {
        "indexing_status": "indexing",
        "tokens": event.tokens,
        "embedding_model": event.model,
        "completed_segments": 0,
        "total_segments": event.count,
        "splitting_completed_at": event.timestamp,
    }


@documents.changes(Document.Indexed)
def indexed(row: Row, event: Document.Indexed, message: Recorded) -> Row:
    return {"completed_segments": event.first + event.count}


@documents.changes(Document.Completed)
def completed(row: Row, event: Document.Completed, message: Recorded) -> Row:
    return {"indexing_status": "completed", "completed_at": event.timestamp}


@documents.changes(Document.Failed)
def failed(row: Row, event: Document.Failed, message: Recorded) -> Row:
    return {
        "indexing_status": "error",
        "stopped_at": event.timestamp,
        "error_stage": event.stage,
        "error_code": event.code,
        "error": event.reason,
    }


@documents.changes(Document.Retried)
def retried(row: Row, event: Document.Retried, message: Recorded) -> Row:
    return FAILURE | {"indexing_status": "waiting", "trace_id": message.metadata.correlation}
