"""The edits of people to a document: its segments, and whether it can be found."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from domain.aggregate import Rejection
from domain.knowledge.document import Document, Edit, positions, segment_id

MOST = 1000
"""Maximum number of edited segments of a document."""

MOST_TEXT = 512 * 1024
"""Maximum bytes (UTF-8) of all texts that people wrote into a document."""


def shows(document: Document, segment: str, parent: int | None = None) -> bool:
    """Return whether people let a segment be found, with a parent at this position of the same revision."""
    if document.hidden or not _is_on(document, segment):
        return False
    if parent is None or not document.edits:
        return True
    blobs = [(revision["segments"], revision["count"]) for revision in document.revisions]
    names = [blob for blob, count in blobs if segment in positions(document.id, blob, count)]
    return all(_is_on(document, segment_id(document.id, name, parent)) for name in names)


def _is_on(document: Document, segment: str) -> bool:
    edit = document.edits.get(segment)
    return edit is None or (edit["enabled"] and not edit["deleted"])


# --- segments ---


def add_segment(
    document: Document, at: datetime, *, segment: str, content: str, answer: str | None = None, after: str | None = None
) -> None:
    """Add a segment after another one, or at the end."""
    _must_be_editable(document)
    if segment in document.edits:
        return
    if after is None:
        ends = [revision["count"] for revision in document.revisions]
        ends += [edit["position"] + 1 for edit in document.edits.values() if edit["segments"] is None]
        position = max(ends, default=0)
    else:
        position = _known(document, after, "after")["position"]
    _must_have_room(document, segment, content, answer)
    document.record(
        document.SegmentAdded,
        at,
        dataset=document.dataset,
        segment=segment,
        position=position,
        content=content,
        answer=answer,
    )


def edit_segment(
    document: Document, at: datetime, *, segment: str, content: str | None = None, answer: str | None = None
) -> None:
    """Give a segment another text or answer; None leaves it unchanged."""
    _must_be_editable(document)
    edit = _known(document, segment)
    new = content or edit["content"], answer or edit["answer"]
    if new != (edit["content"], edit["answer"]):
        _must_have_room(document, segment, *new)
        document.record(document.SegmentEdited, at, segment=segment, content=content, answer=answer)


def disable_segment(document: Document, at: datetime, *, segment: str) -> None:
    _must_be_editable(document)
    if _known(document, segment)["enabled"]:
        _must_have_room(document, segment)
        document.record(document.SegmentDisabled, at, segment=segment)


def enable_segment(document: Document, at: datetime, *, segment: str) -> None:
    _must_be_editable(document)
    if not _known(document, segment)["enabled"]:
        document.record(document.SegmentEnabled, at, segment=segment)


def delete_segment(document: Document, at: datetime, *, segment: str) -> None:
    _must_be_editable(document)
    edit = document.edits.get(segment)
    if edit is None or not edit["deleted"]:
        _known(document, segment)
        _must_have_room(document, segment)
        document.record(document.SegmentDeleted, at, segment=segment)


# --- the document as a whole ---


def disable(document: Document, at: datetime) -> None:
    _must_be_editable(document)
    if document.enabled:
        document.record(document.Disabled, at)


def enable(document: Document, at: datetime) -> None:
    _must_be_editable(document)
    if not document.enabled:
        document.record(document.Enabled, at)


def archive(document: Document, at: datetime) -> None:
    _must_be_processed(document)
    if not document.archived:
        document.record(document.Archived, at)


def unarchive(document: Document, at: datetime) -> None:
    _must_be_processed(document)
    if document.archived:
        document.record(document.Unarchived, at)


# --- limits ---


def size(*texts: str | None) -> int:
    """Bytes of the texts in UTF-8."""
    return sum(len(text.encode()) for text in texts if text)


def written(edits: Iterable[Edit]) -> int:
    """Bytes of the texts that people wrote."""
    return sum(size(edit["content"], edit["answer"]) for edit in edits)


def _known(document: Document, segment: str, field: str = "segment") -> Edit:
    edit = document.segment(segment)
    if edit is None or edit["deleted"]:
        sentence = f"Document {document.id} has no segment {segment}; the table document_segments has its segments."
        raise Rejection("not_found", sentence, field)
    return edit


def _must_be_editable(document: Document) -> None:
    document.must_not_be_archived()
    _must_be_processed(document)


def _must_be_processed(document: Document) -> None:
    if not document.ended:
        sentence = f"Document {document.id} is {document.status}: wait until it is completed or in error."
        raise Rejection("being_processed", sentence, "document")


def _must_have_room(document: Document, segment: str, *texts: str | None) -> None:
    """Check the limits for an edit of this segment with these texts. Raises: Rejection `too_many` or `too_large`."""
    others = [edit for id, edit in document.edits.items() if id != segment]
    if len(others) >= MOST:
        sentence = (
            f"Document {document.id} has {MOST} edited segments, the maximum: put additions into a document of their "
            "own, or correct the file and upload it again."
        )
        raise Rejection("too_many", sentence, "segment" if segment in document.edits else "document")
    if texts and written(others) + size(*texts) > MOST_TEXT:
        sentence = (
            f"The edits of document {document.id} may have {MOST_TEXT // 1024} KiB of text in all: put additions into "
            "a document of their own."
        )
        raise Rejection("too_large", sentence, "content")
