"""A document: a file on its way from bytes to segments that can be found.

Its status goes waiting → parsing → splitting → indexing → completed, from any of them to error, and by a retry back
to waiting. A reprocessed document waits again; its previous segments can be found until all new ones can.

The edits of people (curation.py) are recorded at once; until the index has them, the document needs a sync.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, NotRequired, Self, TypedDict, Unpack
from uuid import UUID, uuid5

from domain import aggregate
from domain.aggregate import Aggregate, ErrorCode, ErrorMessage, Rejection
from domain.knowledge.segmentation import AUTOMATIC

LONGEST_TITLE = 300
"""Maximum characters of a title; the rest is cut off."""

MOST_WARNINGS = 20
"""Maximum number of warnings about a text; the last one counts the rest."""

MOST_METADATA = 256
"""Maximum number of metadata values of a document."""

Stage = Annotated[str, "`parsing`, `splitting` or `indexing`."]
SegmentId = Annotated[str, "Segment."]


def segment_id(document: str, segments: str, position: int) -> str:
    """The id of a document's segment, by the digest of the blob that holds it and its position there."""
    return str(uuid5(UUID(document), f"{segments}:{position}"))


def revision_id(document: str, segments: str) -> str:
    """The id of a revision, by the digest of the blob that holds its segments."""
    return str(uuid5(UUID(document), segments))


@lru_cache(maxsize=16)
def positions(document: str, segments: str, count: int) -> dict[str, int]:
    """The positions of a revision's segments, by id."""
    return {segment_id(document, segments, position): position for position in range(count)}


def merged(metadata: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The metadata after the changes; null removes a value."""
    return {name: value for name, value in {**metadata, **changes}.items() if value is not None or name not in changes}


class Upload(TypedDict):
    """A file: its bytes are the blob `digest`."""

    dataset: str
    name: str
    media_type: str
    digest: str
    size: int
    metadata: dict[str, Any]
    person: NotRequired[str | None]


class Revision(TypedDict):
    """The segments of a document by one run: their blob, their number, and how many, from the first, can be found."""

    segments: str
    count: int
    done: int


class Edit(TypedDict):
    """A segment as people changed it: of the revision with the blob `segments`, or one that they added (None).

    Content and answer are None where they are unchanged; `version` is that of the document at the last change.
    """

    segments: str | None
    position: int
    content: str | None
    answer: str | None
    enabled: bool
    deleted: bool
    version: int


class Sync(TypedDict):
    """Versions of the document at the last change that the index needs, at the last that hid or showed it as a whole,
    and at the last sync; `failed` until the failed sync is retried."""

    changed: int
    shown: int
    synced: int
    failed: bool


class Document(Aggregate):
    TOPIC = "document"
    dataset: str
    name: str
    media_type: str
    digest: str
    metadata: dict[str, Any]
    person: str | None = None
    """The end user who uploaded it, with whose key its words and blobs are sealed; None for shared knowledge."""
    status: str = field(default="waiting", init=False)
    attempt: int = field(default=0, init=False)
    segments: str | None = field(default=None, init=False)
    total: int = field(default=0, init=False)
    done: int = field(default=0, init=False)
    stalls: int = field(default=0, init=False)
    segmentation: dict[str, Any] | None = field(default=None, init=False)
    """Rules of its own; None for those of its dataset."""
    earlier: dict[str, Revision] = field(default_factory=dict, init=False)
    """Earlier revisions by blob; they can be found until all of the newest can."""
    again: bool = field(default=False, init=False)
    """Reprocess when the current run ends."""
    enabled: bool = field(default=True, init=False)
    archived: bool = field(default=False, init=False)
    edits: dict[str, Edit] = field(default_factory=dict, init=False)
    """Edits of people, by segment."""
    sync: Sync = field(default_factory=lambda: Sync(changed=0, shown=0, synced=0, failed=False), init=False)

    class Event(aggregate.Event):
        pass

    class Uploaded(Event, aggregate.Created):
        """A document was uploaded."""

        TOPIC = "document.uploaded.v2"
        PERSONAL = frozenset({"metadata", "name"})
        class_version = 2
        dataset: Annotated[str, "Knowledge base."]
        name: Annotated[str, "Name, for people."]
        media_type: Annotated[str, "Media type."]
        digest: Annotated[str, "SHA-256 in hex of the file, or of its sealed form: the name of its blob."]
        size: Annotated[int, "Bytes of the file."]
        metadata: Annotated[dict[str, Any], "Metadata, at most 16 KiB of JSON."]
        person: Annotated[
            str | None, "End user who uploaded it, whose key seals its blobs: see [privacy](privacy.md); null for none."
        ] = None

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            state["person"] = None

    class SegmentationChosen(Event):
        """Another segmentation was chosen for the document."""

        TOPIC = "document.segmentation_chosen.v1"
        segmentation: Annotated[
            dict[str, Any] | None,
            "Segmentation rules of its own; null for those of its knowledge base: see [segmenting](segmenting.md).",
        ]

        def apply(self, document: Document) -> None:
            document.segmentation = self.segmentation

    class Started(Event):
        """A worker started processing; at stage `indexing`, with the segments of an earlier attempt."""

        TOPIC = "document.started.v1"
        attempt: Annotated[int, "Attempt, from 1; each worker that dies costs one."]
        stage: Stage

        def apply(self, document: Document) -> None:
            document.status = self.stage
            document.attempt = self.attempt

    class Parsed(Event):
        """The text was extracted."""

        TOPIC = "document.parsed.v3"
        PERSONAL = frozenset({"title", "warnings"})
        class_version = 3
        pages: Annotated[int | None, "Pages; null where the format has none."]
        characters: Annotated[int, "Characters of the extracted text."]
        title: Annotated[str | None, "Title in the file; null for none."]
        warnings: Annotated[
            list[str], "Guesses and omissions, for people, such as `12 lines taken for running titles`; at most 20."
        ]

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            state["title"] = None

        @staticmethod
        def upcast_v2_v3(state: dict[str, Any]) -> None:
            state["warnings"] = []

        def apply(self, document: Document) -> None:
            document.status = "splitting"

    class Split(Event):
        """The text was split into segments."""

        TOPIC = "document.split.v2"
        class_version = 2
        segments: Annotated[str, "SHA-256 in hex of the blob that holds the segments."]
        count: Annotated[int, "Number of segments."]
        tokens: Annotated[int, "Tokens of all segments, as the embedding model counts."]
        model: Annotated[str, "Embedding model whose tokens count."]
        segmentation: Annotated[dict[str, Any], "Segmentation rules: see [segmenting](segmenting.md)."]

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            state["segmentation"] = AUTOMATIC.plain()

        def apply(self, document: Document) -> None:
            document.supersede()
            document.status = "indexing"
            document.segments = self.segments
            document.total = self.count
            document.done = 0

    class Indexed(Event):
        """Segments were embedded and can be found."""

        TOPIC = "document.indexed.v1"
        dataset: Annotated[str, "Knowledge base."]
        segments: Annotated[str, "SHA-256 in hex of the blob that holds the segments."]
        first: Annotated[int, "Position of the first of these segments, from 0."]
        count: Annotated[int, "Number of segments."]

        def apply(self, document: Document) -> None:
            document.done = self.first + self.count
            document.discard_edits(self.segments, self.first, document.done)

    class Replaced(Event):
        """The segments of an earlier revision can no longer be found."""

        TOPIC = "document.replaced.v1"
        dataset: Annotated[str, "Knowledge base."]
        segments: Annotated[str, "SHA-256 in hex of the blob that holds the segments of the earlier revision."]
        count: Annotated[int, "Number of segments of the earlier revision."]

        def apply(self, document: Document) -> None:
            document.earlier = {blob: revision for blob, revision in document.earlier.items() if blob != self.segments}
            document.discard_edits(self.segments)

    class Completed(Event):
        """All segments can be found."""

        TOPIC = "document.completed.v1"

        def apply(self, document: Document) -> None:
            document.status = "completed"
            document.earlier = {}

    class Failed(Event):
        """Processing failed."""

        TOPIC = "document.failed.v1"
        PERSONAL = frozenset({"reason"})
        stage: Stage
        code: ErrorCode
        reason: ErrorMessage

        def apply(self, document: Document) -> None:
            document.status = "error"
            document.stalls += self.code == "stalled"

    class Retried(Event):
        """Processing is retried; indexed segments are kept."""

        TOPIC = "document.retried.v1"

        def apply(self, document: Document) -> None:
            document.status = "waiting"

    class ReprocessRequested(Event):
        """The document will be reprocessed when the current run ends."""

        TOPIC = "document.reprocess_requested.v1"

        def apply(self, document: Document) -> None:
            document.again = True

    class Reprocessed(Event):
        """The document is reprocessed from its file; the previous segments can be found until all new ones can."""

        TOPIC = "document.reprocessed.v1"

        def apply(self, document: Document) -> None:
            document.supersede()
            document.status = "waiting"
            document.again = False
            document.stalls = 0

    class SegmentAdded(Event):
        """A segment was added by a person."""

        TOPIC = "segment.added.v1"
        PERSONAL = frozenset({"answer", "content"})
        dataset: Annotated[str, "Knowledge base."]
        segment: SegmentId
        position: Annotated[int, "Position of the segment that it follows, or a new one at the end; from 0."]
        content: Annotated[str, "Text; with an answer, the question."]
        answer: Annotated[str | None, "Answer that the model is given with it; null for none."]

        def apply(self, document: Document) -> None:
            document.edits[self.segment] = Edit(
                segments=None,
                position=self.position,
                content=self.content,
                answer=self.answer,
                enabled=True,
                deleted=False,
                version=document.mark_changed(self.originator_version),
            )

    class SegmentEdited(Event):
        """A segment was edited by a person."""

        TOPIC = "segment.edited.v1"
        PERSONAL = frozenset({"answer", "content"})
        segment: SegmentId
        content: Annotated[str | None, "New text; null when unchanged."]
        answer: Annotated[str | None, "New answer; null when unchanged."]

        def apply(self, document: Document) -> None:
            edit = document.edit(self.segment, self.originator_version)
            edit["content"] = edit["content"] if self.content is None else self.content
            edit["answer"] = edit["answer"] if self.answer is None else self.answer

    class SegmentDisabled(Event):
        """A segment can no longer be found, until it is enabled."""

        TOPIC = "segment.disabled.v1"
        segment: SegmentId

        def apply(self, document: Document) -> None:
            document.edit(self.segment, self.originator_version)["enabled"] = False

    class SegmentEnabled(Event):
        """A segment can be found again."""

        TOPIC = "segment.enabled.v1"
        segment: SegmentId

        def apply(self, document: Document) -> None:
            document.edit(self.segment, self.originator_version)["enabled"] = True

    class SegmentDeleted(Event):
        """A segment was deleted, for good or until the document is reprocessed."""

        TOPIC = "segment.deleted.v1"
        segment: SegmentId

        def apply(self, document: Document) -> None:
            edit = document.edit(self.segment, self.originator_version)
            edit["deleted"], edit["content"], edit["answer"] = True, None, None

    class Disabled(Event):
        """The document can no longer be found, until it is enabled."""

        TOPIC = "document.disabled.v1"

        def apply(self, document: Document) -> None:
            document.enabled = False
            document.sync["shown"] = document.mark_changed(self.originator_version)

    class Enabled(Event):
        """The document can be found again, unless it is archived."""

        TOPIC = "document.enabled.v1"

        def apply(self, document: Document) -> None:
            document.enabled = True
            document.sync["shown"] = document.mark_changed(self.originator_version)

    class Archived(Event):
        """The document was archived: it can neither be found nor changed."""

        TOPIC = "document.archived.v1"

        def apply(self, document: Document) -> None:
            document.archived = True
            document.sync["shown"] = document.mark_changed(self.originator_version)

    class Unarchived(Event):
        """The document can be changed again, and found unless it is disabled."""

        TOPIC = "document.unarchived.v1"

        def apply(self, document: Document) -> None:
            document.archived = False
            document.sync["shown"] = document.mark_changed(self.originator_version)

    class Renamed(Event):
        """The document was renamed; its file and media type are unchanged."""

        TOPIC = "document.renamed.v1"
        PERSONAL = frozenset({"name"})
        name: Annotated[str, "Name, for people."]

        def apply(self, document: Document) -> None:
            document.name = self.name

    class MetadataSet(Event):
        """Metadata was set."""

        TOPIC = "document.metadata_set.v1"
        PERSONAL = frozenset({"metadata"})
        metadata: Annotated[dict[str, Any], "Values that were set, by name; null for a removed one."]

        def apply(self, document: Document) -> None:
            document.metadata = merged(document.metadata, self.metadata)

    class Settled(Event):
        """The index is in sync with the edits of the document."""

        TOPIC = "document.settled.v1"
        settled: Annotated[int, "Version of the document that the index is in sync with."]

        def apply(self, document: Document) -> None:
            document.sync |= {"synced": self.settled, "failed": False}
            document.stalls = 0

    class Unsettled(Event):
        """The sync of the index failed."""

        TOPIC = "document.unsettled.v1"
        PERSONAL = frozenset({"reason"})
        code: ErrorCode
        reason: ErrorMessage

        def apply(self, document: Document) -> None:
            document.sync["failed"] = True
            document.stalls += self.code == "stalled"

    class Resumed(Event):
        """The sync of the index is retried."""

        TOPIC = "document.resumed.v1"

        def apply(self, document: Document) -> None:
            document.mark_changed(self.originator_version)

    CHANGES = (
        SegmentAdded,
        SegmentEdited,
        SegmentDisabled,
        SegmentEnabled,
        SegmentDeleted,
        Disabled,
        Enabled,
        Archived,
        Unarchived,
        Resumed,
    )
    """Events after which the index needs a sync."""
    SYNC_BEGINS = (*CHANGES, Completed, Failed)
    """Events after which a sync may begin; it waits while the document is processed."""

    class Deleted(Event):
        """The document was deleted: it can never be found again."""

        TOPIC = "document.deleted.v1"
        dataset: Annotated[str, "Knowledge base."]

        def apply(self, document: Document) -> None:
            document.deleted = True

    @classmethod
    def upload(
        cls, id: str, at: datetime, *, segmentation: dict[str, Any] | None = None, **file: Unpack[Upload]
    ) -> Self:
        document = cls.begin(cls.Uploaded, id, at, **file)
        document.choose(at, segmentation)
        return document

    @property
    def ended(self) -> bool:
        """No work is left, unless a command asks for it."""
        return self.deleted or self.status in ("completed", "error")

    @property
    def stage(self) -> str:
        """The stage that a worker is at, or begins with."""
        return "parsing" if self.status == "waiting" else self.status

    @property
    def hidden(self) -> bool:
        """Nothing of it can be found."""
        return self.deleted or self.archived or not self.enabled

    @property
    def needs_sync(self) -> bool:
        """The index lacks edits."""
        return self.sync["changed"] > self.sync["synced"] and not self.deleted

    # --- processing ---

    def choose(self, at: datetime, segmentation: dict[str, Any] | None) -> None:
        """Use these rules from the next run on; None changes nothing."""
        if segmentation and segmentation != self.segmentation:
            self.record(self.SegmentationChosen, at, segmentation=segmentation)

    def start(self, at: datetime, *, stage: str) -> None:
        if not self.ended:
            self.record(self.Started, at, attempt=self.attempt + 1, stage=stage)

    def parsed(
        self,
        at: datetime,
        *,
        pages: int | None,
        characters: int,
        title: str | None = None,
        warnings: Sequence[str] = (),
    ) -> None:
        if self.status == "parsing" and not self.deleted:
            title = title[:LONGEST_TITLE] if title else None
            kept = [*warnings[:MOST_WARNINGS]]
            if len(warnings) > MOST_WARNINGS:
                kept[-1] = f"{len(warnings) - MOST_WARNINGS + 1:,} further warnings"
            self.record(self.Parsed, at, pages=pages, characters=characters, title=title, warnings=kept)

    def split(
        self,
        at: datetime,
        *,
        segments: str,
        count: int,
        tokens: int,
        model: str,
        segmentation: dict[str, Any] | None = None,
    ) -> None:
        rules = segmentation or AUTOMATIC.plain()
        if self.status == "splitting" and not self.deleted:
            self.record(self.Split, at, segments=segments, count=count, tokens=tokens, model=model, segmentation=rules)

    def indexed(self, at: datetime, *, first: int, count: int) -> None:
        if self.status != "indexing" or self.segments is None or first != self.done or self.deleted:
            return
        self.record(self.Indexed, at, dataset=self.dataset, segments=self.segments, first=first, count=count)
        if self.done == self.total:
            for blob, revision in self.earlier.items():
                if blob != self.segments:
                    self.record(self.Replaced, at, dataset=self.dataset, segments=blob, count=revision["count"])
            self.record(self.Completed, at)
            self._begin_again(at)

    def fail(self, at: datetime, *, stage: str, code: str, reason: str) -> None:
        if not self.ended:
            self.record(self.Failed, at, stage=stage, code=code, reason=reason)
            self._begin_again(at)

    def retry(self, at: datetime) -> None:
        """Retry what failed: the processing, else the sync of the index."""
        if self.status == "error":
            self.record(self.Retried, at)
        elif self.sync["failed"]:
            self.record(self.Resumed, at)
        else:
            raise Rejection("not_failed", f"Document {self.id} is {self.status}, not in error.", "document")

    def reprocess(self, at: datetime, *, segmentation: dict[str, Any] | None = None, inherit: bool = False) -> None:
        """Process it again, now or when the current run ends: with new rules of its own, or with those of its dataset
        (`inherit`), else with the rules it has."""
        self.must_not_be_archived()
        if inherit and self.segmentation:
            self.record(self.SegmentationChosen, at, segmentation=None)
        self.choose(at, segmentation)
        if self.ended:
            self.record(self.Reprocessed, at)
        elif not self.again and (self.status != "waiting" or self.segments):
            self.record(self.ReprocessRequested, at)

    def _begin_again(self, at: datetime) -> None:
        if self.again:
            self.record(self.Reprocessed, at)

    # --- properties ---

    def rename(self, at: datetime, *, name: str) -> None:
        self.must_not_be_archived()
        if name != self.name:
            self.record(self.Renamed, at, name=name)

    def set_metadata(self, at: datetime, *, metadata: dict[str, Any]) -> None:
        """Set values, whose size the command has checked; null removes one."""
        self.must_not_be_archived()
        if len(merged(self.metadata, metadata)) > MOST_METADATA:
            sentence = f"A document has at most {MOST_METADATA} values; set some to null to remove them."
            raise Rejection("too_many", sentence, "metadata")
        self.record(self.MetadataSet, at, metadata=metadata)

    def delete(self, at: datetime) -> None:
        if not self.deleted:
            self.record(self.Deleted, at, dataset=self.dataset)

    def must_not_be_archived(self) -> None:
        """Raises: Rejection `archived`."""
        if self.archived:
            raise Rejection("archived", f"Document {self.id} is archived: send document.unarchive first.", "document")

    # --- sync of the index with the edits ---

    def mark_synced(self, at: datetime, *, settled: int) -> None:
        """Record a sync up to this version, unless there are newer changes: their sync covers all."""
        if self.needs_sync and settled == self.sync["changed"]:
            self.record(self.Settled, at, settled=settled)

    def fail_sync(self, at: datetime, *, code: str, reason: str) -> None:
        if self.needs_sync and not self.sync["failed"]:
            self.record(self.Unsettled, at, code=code, reason=reason)

    def resume_sync(self, at: datetime) -> None:
        if self.needs_sync and self.sync["failed"]:
            self.record(self.Resumed, at)

    # --- state ---

    @property
    def revisions(self) -> list[Revision]:
        """The revisions of which segments can be found, the newest last."""
        return [revision for revision in self._all_revisions().values() if revision["done"]]

    def supersede(self) -> None:
        """Make the newest revision an earlier one."""
        self.earlier = self._all_revisions()
        self.segments, self.total, self.done = None, 0, 0

    def _all_revisions(self) -> dict[str, Revision]:
        """All revisions by blob. Equal rules may give an equal blob: what was found of it can still be found."""
        if self.segments is None:
            return self.earlier
        known = self.earlier.get(self.segments)
        done = max(self.done, known["done"] if known else 0)
        return {**self.earlier, self.segments: Revision(segments=self.segments, count=self.total, done=done)}

    def segment(self, id: str) -> Edit | None:
        """A segment of any revision, as people left it."""
        if id in self.edits:
            return self.edits[id]
        for revision in self.revisions:
            blob = revision["segments"]
            position = positions(self.id, blob, revision["count"]).get(id)
            if position is not None and position < revision["done"]:
                return Edit(
                    segments=blob,
                    position=position,
                    content=None,
                    answer=None,
                    enabled=True,
                    deleted=False,
                    version=0,
                )
        return None

    def edit(self, segment: str, version: int) -> Edit:
        """The edit of a segment, to be changed at this version of the document."""
        known = self.segment(segment)
        assert known is not None
        self.edits[segment] = edit = known.copy()
        edit["version"] = self.mark_changed(version)
        return edit

    def mark_changed(self, version: int) -> int:
        """Note that the index needs a sync, even if an earlier one failed. Return the version."""
        self.sync |= {"changed": version, "failed": False}
        return version

    def discard_edits(self, segments: str, first: int = 0, end: int | None = None) -> None:
        """Forget the edits of a revision's segments from `first` to before `end`, which were made again."""
        self.edits = {
            id: edit
            for id, edit in self.edits.items()
            if edit["segments"] != segments or edit["position"] < first or (end is not None and edit["position"] >= end)
        }
