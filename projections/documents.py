"""Documents, and how far each has come: the table `documents`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Boolean, Integer, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from domain.access.end_user import EndUser
from domain.knowledge.dataset import Dataset
from domain.knowledge.document import Document, merged
from domain.knowledge.segmentation import FORMS
from domain.log import Recorded
from projections.datasets import datasets
from projections.engine.columns import Id, Time, key, optional, person, required
from projections.engine.read_model import ReadModel, Row, originator

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
    required("doc_metadata", JSONB, "Metadata, as given at the upload and set since."),
    required("enabled", Boolean, "False: nothing of it can be found."),
    optional("disabled_at", Time, "When it was disabled; null while it is enabled."),
    required("archived", Boolean, "True: nothing of it can be found, or changed."),
    optional("archived_at", Time, "When it was archived; null while it is not."),
    required("display_status", Text, "All in one word: queuing, indexing, error, available, disabled or archived."),
    required(
        "index_status",
        Text,
        "Sync of the search index with manual changes: current, changing, or error (see error).",
    ),
    required("indexing_status", Text, "waiting, parsing, splitting, indexing, completed or error."),
    required("attempt", Integer, "Attempts begun; 0 before the first."),
    optional("title", Text, "Title that the file gives itself; null where it gives none, or before it was extracted."),
    optional("pages", Integer, "Pages; null where the format has none, or before the text was extracted."),
    optional("word_count", BigInteger, "Characters of the extracted text; null before."),
    required("warnings", JSONB, "Guesses and omissions in the extracted text, for people: a list of sentences."),
    optional("tokens", BigInteger, "Tokens of all segments, as the embedding model counts; null before it was split."),
    optional("embedding_model", Text, "Embedding model that it was split for; null before."),
    optional("segmentation", JSONB, "Rules of its own by which it is split; null: those of its dataset."),
    required(
        "doc_form",
        Text,
        "Form of the last split: text_model, hierarchical_model (small segments with parents) or qa_model (questions "
        "and answers); text_model before.",
    ),
    required("completed_segments", Integer, "Segments of the newest revision that can be found."),
    optional("total_segments", Integer, "Segments that it was split into; null before."),
    optional("processing_started_at", Time, "When the newest attempt began."),
    optional("parsing_completed_at", Time, "When its text was extracted."),
    optional("splitting_completed_at", Time, "When it was split."),
    optional("completed_at", Time, "When all its segments could be found."),
    optional("stopped_at", Time, "When the newest attempt failed; null when it did not."),
    optional(
        "error_stage",
        Text,
        "Where the newest attempt failed: parsing, splitting, indexing or, after manual changes, settling.",
    ),
    optional("error_code", Text, "Error code of the newest attempt; null on success."),
    optional("error", Text, "Error message of the newest attempt; null on success."),
    required("trace_id", Id, "Command that had it uploaded, or tried again last: its trace, in traces."),
    required("created_by", Text, "Actor who uploaded it."),
    person(),
    required("created_at", Time, "When it was uploaded."),
    required("updated_at", Time, "Time of the last change."),
)
documents.derives("display_status", lambda row: display_status(row))
documents.sorted_by(
    "open",
    postgresql_where=text("indexing_status IN ('waiting', 'parsing', 'splitting', 'indexing')"),
)
documents.clears(Document.Deleted)
documents.clears(Dataset.Deleted, column="dataset_id")
documents.sets(
    EndUser.Erased, {"name": "", "doc_metadata": {}, "title": None, "warnings": [], "error": None}, column="person_id"
)

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
        "enabled": True,
        "archived": False,
        "index_status": "current",
        "indexing_status": "waiting",
        "attempt": 0,
        "completed_segments": 0,
        "warnings": [],
        "doc_form": "text_model",
        "trace_id": message.metadata.correlation,
        "created_by": message.metadata.actor,
        "person_id": message.metadata.person,
    }


@documents.changes(Document.SegmentationChosen)
def segmentation_chosen(row: Row, event: Document.SegmentationChosen, message: Recorded) -> Row:
    return {"segmentation": event.segmentation}


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
        "title": event.title,
        "pages": event.pages,
        "word_count": event.characters,
        "warnings": event.warnings,
        "parsing_completed_at": event.timestamp,
    }


@documents.changes(Document.Split)
def split(row: Row, event: Document.Split, message: Recorded) -> Row:
    return {
        "indexing_status": "indexing",
        "tokens": event.tokens,
        "embedding_model": event.model,
        "doc_form": FORMS[event.segmentation["mode"]],
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


@documents.changes(Document.Reprocessed)
def reprocessed(row: Row, event: Document.Reprocessed, message: Recorded) -> Row:
    """Return the columns of a document without segments. The earlier ones can be found for now, but do not count."""
    unknown = dict.fromkeys(
        ("tokens", "total_segments", "parsing_completed_at", "splitting_completed_at", "completed_at")
    )
    return {**retried(row, event, message), **unknown, "completed_segments": 0}


@documents.changes(Document.Retried)
def retried(row: Row, event: Document.Retried | Document.Reprocessed, message: Recorded) -> Row:
    return FAILURE | {"indexing_status": "waiting", "trace_id": message.metadata.correlation}


# --- manual changes ---


def display_status(row: Row) -> str:
    """As Dify shows it."""
    match row["indexing_status"]:
        case "waiting":
            return "queuing"
        case "error":
            return "error"
        case "completed":
            return "archived" if row["archived"] else "available" if row["enabled"] else "disabled"
    return "indexing"


def trouble_is_over(row: Row) -> Row:
    return FAILURE if row["error_stage"] == "settling" else {}


def changed(row: Row, event: Any, message: Recorded) -> Row:
    return {**trouble_is_over(row), "index_status": "changing"}


documents.changes(*Document.CHANGES)(changed)


@documents.changes(Document.Disabled)
@documents.changes(Document.Enabled)
def enabled(row: Row, event: Document.Disabled | Document.Enabled, message: Recorded) -> Row:
    is_enabled = isinstance(event, Document.Enabled)
    return {"enabled": is_enabled, "disabled_at": None if is_enabled else event.timestamp}


@documents.changes(Document.Archived)
@documents.changes(Document.Unarchived)
def archived(row: Row, event: Document.Archived | Document.Unarchived, message: Recorded) -> Row:
    is_archived = isinstance(event, Document.Archived)
    return {"archived": is_archived, "archived_at": event.timestamp if is_archived else None}


@documents.changes(Document.Renamed)
def renamed(row: Row, event: Document.Renamed, message: Recorded) -> Row:
    return {"name": event.name}


@documents.changes(Document.MetadataSet)
def metadata_set(row: Row, event: Document.MetadataSet, message: Recorded) -> Row:
    return {"doc_metadata": merged(row["doc_metadata"], event.metadata)}


documents.moves_keys(
    Dataset.MetadataFieldRenamed, "doc_metadata", column="dataset_id", keys=lambda event: (event.name, event.new_name)
)
documents.moves_keys(
    Dataset.MetadataFieldRemoved, "doc_metadata", column="dataset_id", keys=lambda event: (event.name, None)
)


@documents.changes(Document.Settled)
def settled(row: Row, event: Document.Settled, message: Recorded) -> Row:
    return {**trouble_is_over(row), "index_status": "current"}


@documents.changes(Document.Unsettled)
def needs_sync(row: Row, event: Document.Unsettled, message: Recorded) -> Row:
    return {
        "index_status": "error",
        "stopped_at": event.timestamp,
        "error_stage": "settling",
        "error_code": event.code,
        "error": event.reason,
    }
