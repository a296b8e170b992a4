"""A document: a file on its way from bytes to segments that can be found.

Its status goes waiting → parsing → splitting → indexing → completed, from any of them to error, and by a retry back
to waiting. When it is processed anew it waits again, and what was cut before can be found until all of the new is.

What people change of it by hand is on record at once and found soon after: until then it is `needs_sync`.
"""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from functools import lru_cache
from typing import Any, Self, TypedDict
from uuid import UUID, uuid5

from domain import aggregate
from domain.aggregate import Aggregate, Rejection
from domain.knowledge.curation import MOST, MOST_TEXT, Edit, size, written
from domain.knowledge.segmentation import AUTOMATIC

LONGEST_TITLE = 300
"""Characters; the rest is cut."""

STALLS = 3
"""How often a document that nobody works at is put back to work by itself."""


def segment_id(document: str, segments: str, position: int) -> str:
    """The id of a document's segment, by the digest of the blob that holds it and its position in there."""
    return str(uuid5(UUID(document), f"{segments}:{position}"))


def revision_id(document: str, segments: str) -> str:
    """The id of what a document was once cut into, by the digest of the blob: of all its segments together."""
    return str(uuid5(UUID(document), segments))


class Revision(TypedDict):
    """What a document was once cut into: the blob of the segments, how many it holds, and how many of them, from the
    first on, can be found."""

    segments: str
    count: int
    done: int


class Document(Aggregate):
    TOPIC = "document"
    dataset: str
    name: str
    media_type: str
    digest: str
    metadata: dict[str, Any]
    status: str = field(default="waiting", init=False)
    attempt: int = field(default=0, init=False)
    segments: str | None = field(default=None, init=False)
    total: int = field(default=0, init=False)
    done: int = field(default=0, init=False)
    stalls: int = field(default=0, init=False)
    segmentation: dict[str, Any] | None = field(default=None, init=False)
    """Rules of its own; None: those of its dataset."""
    earlier: dict[str, Revision] = field(default_factory=dict, init=False)
    """What it was cut into before, by the blob; it serves until all of the newest cut can be found."""
    again: bool = field(default=False, init=False)
    """It is to be processed anew when the work in hand has ended."""
    enabled: bool = field(default=True, init=False)
    archived: bool = field(default=False, init=False)
    edits: dict[str, Edit] = field(default_factory=dict, init=False)
    """What people have changed of its segments by hand, by the segment."""
    changed: int = field(default=0, init=False)
    """Its version when the index was last given something to follow."""
    shown: int = field(default=0, init=False)
    """Its version when it was last hidden, or shown again, as a whole."""
    synced: int = field(default=0, init=False)
    """The version up to which the index follows."""
    sync_failed: bool = field(default=False, init=False)
    """The index does not follow, and nobody tries any more."""

    class Event(aggregate.Event):
        pass

    class Uploaded(Event, aggregate.Created):
        """Bytes arrived; they are the blob `digest` (SHA-256, hex)."""

        TOPIC = "document.uploaded.v1"
        dataset: str
        name: str
        media_type: str
        digest: str
        size: int
        metadata: dict[str, Any]

    class SegmentationChosen(Event):
        """It is cut by rules of its own from now on, not those of its dataset; null: by those of its dataset again."""

        TOPIC = "document.segmentation_chosen.v1"
        segmentation: dict[str, Any] | None

        def apply(self, document: Document) -> None:
            document.segmentation = self.segmentation

    class Started(Event):
        """A worker began, with the segments of an earlier attempt at stage indexing; `attempt` counts from 1."""

        TOPIC = "document.started.v1"
        attempt: int
        stage: str

        def apply(self, document: Document) -> None:
            document.status = self.stage
            document.attempt = self.attempt

    class Parsed(Event):
        """The text was extracted."""

        TOPIC = "document.parsed.v2"
        class_version = 2
        pages: int | None
        characters: int
        title: str | None

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            state["title"] = None

        def apply(self, document: Document) -> None:
            document.status = "splitting"

    class Split(Event):
        """The text was cut by these rules into `count` segments, stored as the blob `segments` (SHA-256, hex)."""

        TOPIC = "document.split.v2"
        class_version = 2
        segments: str
        count: int
        tokens: int
        model: str
        segmentation: dict[str, Any]

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            state["segmentation"] = AUTOMATIC.plain()

        def apply(self, document: Document) -> None:
            document.shelve()
            document.status = "indexing"
            document.segments = self.segments
            document.total = self.count
            document.done = 0

    class Indexed(Event):
        """The `count` segments from position `first` on were embedded and can be found."""

        TOPIC = "document.indexed.v1"
        dataset: str
        segments: str
        first: int
        count: int

        def apply(self, document: Document) -> None:
            document.done = self.first + self.count
            document.uncover(self.segments, self.first, document.done)

    class Replaced(Event):
        """What it was cut into before, the `count` segments of the blob `segments`, must no longer be found."""

        TOPIC = "document.replaced.v1"
        dataset: str
        segments: str
        count: int

        def apply(self, document: Document) -> None:
            document.earlier = {blob: revision for blob, revision in document.earlier.items() if blob != self.segments}
            document.uncover(self.segments)

    class Completed(Event):
        """Every segment can be found."""

        TOPIC = "document.completed.v1"

        def apply(self, document: Document) -> None:
            document.status = "completed"
            document.earlier = {}

    class Failed(Event):
        """The work ended at `stage` (parsing, splitting or indexing) for `reason`."""

        TOPIC = "document.failed.v1"
        stage: str
        code: str
        reason: str

        def apply(self, document: Document) -> None:
            document.status = "error"
            document.stalls += self.code == "stalled"

    class Retried(Event):
        """It is to be tried again; what was already indexed is kept."""

        TOPIC = "document.retried.v1"

        def apply(self, document: Document) -> None:
            document.status = "waiting"

    class ReprocessRequested(Event):
        """It is to be processed anew once the work in hand has ended."""

        TOPIC = "document.reprocess_requested.v1"

        def apply(self, document: Document) -> None:
            document.again = True

    class Reprocessed(Event):
        """It is processed anew from its file, by the rules of now; what can be found stays until all of the new can."""

        TOPIC = "document.reprocessed.v1"

        def apply(self, document: Document) -> None:
            document.shelve()
            document.status = "waiting"
            document.again = False
            document.stalls = 0

    class SegmentAdded(Event):
        """Somebody added a segment, with the place of the one that it follows, or one of its own at the end."""

        TOPIC = "segment.added.v1"
        dataset: str
        segment: str
        position: int
        content: str
        answer: str | None

        def apply(self, document: Document) -> None:
            document.edits[self.segment] = Edit(
                segments=None,
                position=self.position,
                content=self.content,
                answer=self.answer,
                enabled=True,
                deleted=False,
                version=document.touched(self.originator_version),
            )

    class SegmentEdited(Event):
        """Somebody gave a segment another text or answer; null: as it was."""

        TOPIC = "segment.edited.v1"
        segment: str
        content: str | None
        answer: str | None

        def apply(self, document: Document) -> None:
            edit = document.edited(self.segment, self.originator_version)
            edit["content"] = edit["content"] if self.content is None else self.content
            edit["answer"] = edit["answer"] if self.answer is None else self.answer

    class SegmentDisabled(Event):
        """A segment is not to be found until it is enabled."""

        TOPIC = "segment.disabled.v1"
        segment: str

        def apply(self, document: Document) -> None:
            document.edited(self.segment, self.originator_version)["enabled"] = False

    class SegmentEnabled(Event):
        """A segment can be found again."""

        TOPIC = "segment.enabled.v1"
        segment: str

        def apply(self, document: Document) -> None:
            document.edited(self.segment, self.originator_version)["enabled"] = True

    class SegmentDeleted(Event):
        """A segment is gone for good, or until the document is processed anew."""

        TOPIC = "segment.deleted.v1"
        segment: str

        def apply(self, document: Document) -> None:
            edit = document.edited(self.segment, self.originator_version)
            edit["deleted"], edit["content"], edit["answer"] = True, None, None

    class Disabled(Event):
        """Nothing of the document is to be found until it is enabled."""

        TOPIC = "document.disabled.v1"

        def apply(self, document: Document) -> None:
            document.enabled = False
            document.shown = document.touched(self.originator_version)

    class Enabled(Event):
        """The document can be found again, unless it is archived."""

        TOPIC = "document.enabled.v1"

        def apply(self, document: Document) -> None:
            document.enabled = True
            document.shown = document.touched(self.originator_version)

    class Archived(Event):
        """The document is kept as it is: nothing of it is to be found, and nothing changed."""

        TOPIC = "document.archived.v1"

        def apply(self, document: Document) -> None:
            document.archived = True
            document.shown = document.touched(self.originator_version)

    class Unarchived(Event):
        """The document can be changed again, and found unless it is disabled."""

        TOPIC = "document.unarchived.v1"

        def apply(self, document: Document) -> None:
            document.archived = False
            document.shown = document.touched(self.originator_version)

    class Renamed(Event):
        """The document has another name; its file and media type are as they were."""

        TOPIC = "document.renamed.v1"
        name: str

        def apply(self, document: Document) -> None:
            document.name = self.name

    class MetadataSet(Event):
        """These values of its metadata were set; those that are null were taken away."""

        TOPIC = "document.metadata_set.v1"
        metadata: dict[str, Any]

        def apply(self, document: Document) -> None:
            document.metadata = merged(document.metadata, self.metadata)

    class Settled(Event):
        """The index follows all that was changed by hand up to the document's version `settled`."""

        TOPIC = "document.settled.v1"
        settled: int

        def apply(self, document: Document) -> None:
            document.synced = self.settled
            document.sync_failed = False
            document.stalls = 0

    class Unsettled(Event):
        """The index does not follow what was changed by hand, for `reason`, until that is tried again."""

        TOPIC = "document.unsettled.v1"
        code: str
        reason: str

        def apply(self, document: Document) -> None:
            document.sync_failed = True
            document.stalls += self.code == "stalled"

    class Resumed(Event):
        """The index is to be brought in line again with what was changed by hand."""

        TOPIC = "document.resumed.v1"

        def apply(self, document: Document) -> None:
            document.touched(self.originator_version)

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
    """What the index is to follow."""
    SYNC_BEGINS = (*CHANGES, Completed, Failed)
    """After these there may be something to settle; while the document is processed anew, that waits."""

    class Deleted(Event):
        """The document must never be found again."""

        TOPIC = "document.deleted.v1"
        dataset: str

        def apply(self, document: Document) -> None:
            document.deleted = True

    @classmethod
    def upload(
        cls,
        id: str,
        at: datetime,
        *,
        dataset: str,
        name: str,
        media_type: str,
        digest: str,
        size: int,
        metadata: dict[str, Any],
        segmentation: dict[str, Any] | None = None,
    ) -> Self:
        document = cls._create(
            cls.Uploaded,
            id=id,
            timestamp=at,
            dataset=dataset,
            name=name,
            media_type=media_type,
            digest=digest,
            size=size,
            metadata=metadata,
        )
        document.choose(at, segmentation)
        return document

    @property
    def ended(self) -> bool:
        """Nothing more is to be done, unless somebody asks."""
        return self.deleted or self.status in ("completed", "error")

    @property
    def stage(self) -> str:
        """Where the work is, or begins."""
        return "parsing" if self.status == "waiting" else self.status

    @property
    def revisions(self) -> list[Revision]:
        """All that it was cut into of which something can be found, the newest last."""
        return [revision for revision in self._all_revisions().values() if revision["done"]]

    def shelve(self) -> None:
        """The newest cut becomes a former one."""
        self.earlier = self._all_revisions()
        self.segments, self.total, self.done = None, 0, 0

    def _all_revisions(self) -> dict[str, Revision]:
        """Cutting by the rules of before may give the blob of before: of its segments those stay that were found."""
        if self.segments is None:
            return self.earlier
        known = self.earlier.get(self.segments)
        done = max(self.done, known["done"] if known else 0)
        return {**self.earlier, self.segments: Revision(segments=self.segments, count=self.total, done=done)}

    def choose(self, at: datetime, segmentation: dict[str, Any] | None) -> None:
        """Cut it by these rules from the next time on; None leaves all as it is."""
        if segmentation and segmentation != self.segmentation:
            self.record(self.SegmentationChosen, at, segmentation=segmentation)

    def start(self, at: datetime, *, stage: str) -> None:
        if not self.ended:
            self.record(self.Started, at, attempt=self.attempt + 1, stage=stage)

    def parsed(self, at: datetime, *, pages: int | None, characters: int, title: str | None = None) -> None:
        if self.status == "parsing" and not self.deleted:
            title = title[:LONGEST_TITLE] if title else None
            self.record(self.Parsed, at, pages=pages, characters=characters, title=title)

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
        if self.status == "indexing" and first == self.done and not self.deleted:
            self.record(self.Indexed, at, dataset=self.dataset, segments=self.segments, first=first, count=count)
            if self.done == self.total:
                for revision in self.earlier.values():
                    if revision["segments"] != self.segments:
                        self.record(
                            self.Replaced,
                            at,
                            dataset=self.dataset,
                            segments=revision["segments"],
                            count=revision["count"],
                        )
                self.record(self.Completed, at)
                self._begin_again(at)

    def fail(self, at: datetime, *, stage: str, code: str, reason: str) -> None:
        if not self.ended:
            self.record(self.Failed, at, stage=stage, code=code, reason=reason)
            self._begin_again(at)

    def reprocess(self, at: datetime, *, segmentation: dict[str, Any] | None = None, inherit: bool = False) -> None:
        """Process it anew, by rules of its own if some are given, or by those of its dataset if it is to `inherit`
        them; at once, or when the work in hand has ended."""
        self._is_not_archived()
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

    def retry(self, at: datetime) -> None:
        if self.status == "error":
            self.record(self.Retried, at)
        elif self.sync_failed:
            self.record(self.Resumed, at)
        else:
            raise Rejection("not_failed", f"Document {self.id} is {self.status}, not in error.", "document")

    def stall(self, at: datetime, *, reason: str) -> None:
        """Nobody works at it: put it back to work, or let it fail when that did not help before."""
        if not self.ended:
            self.fail(at, stage=self.stage, code="stalled", reason=reason)
            if self.status == "error" and self.stalls <= STALLS:
                self.retry(at)

    def delete(self, at: datetime) -> None:
        if not self.deleted:
            self.record(self.Deleted, at, dataset=self.dataset)

    # --- what people change by hand ---

    @property
    def hidden(self) -> bool:
        """Nothing of it is to be found."""
        return self.deleted or self.archived or not self.enabled

    @property
    def needs_sync(self) -> bool:
        """The index is to follow something that was changed by hand."""
        return self.changed > self.synced and not self.deleted

    def shows(self, segment: str, parent: int | None = None) -> bool:
        """Whether a segment, with a parent in this place of the same cut, may be found as far as people have a say."""
        if self.hidden or not self._is_on(segment):
            return False
        if parent is None or not self.edits:
            return True
        blobs = [(revision["segments"], revision["count"]) for revision in self.revisions]
        names = [blob for blob, count in blobs if segment in _positions(self.id, blob, count)]
        return all(self._is_on(segment_id(self.id, name, parent)) for name in names)

    def _is_on(self, segment: str) -> bool:
        edit = self.edits.get(segment)
        return edit is None or (edit["enabled"] and not edit["deleted"])

    def edited(self, segment: str, version: int) -> Edit:
        """What is laid over a segment, from this version on."""
        edit = self._known(segment)
        assert edit is not None
        self.edits[segment] = edit = edit.copy()
        edit["version"] = self.touched(version)
        return edit

    def touched(self, version: int) -> int:
        """The index is to follow, whatever it did before; gives the version."""
        self.changed, self.sync_failed = version, False
        return version

    def uncover(self, segments: str, first: int = 0, end: int | None = None) -> None:
        """Forget what was changed of a cut's segments from `first` to before `end`: they were made anew."""
        self.edits = {
            id: edit
            for id, edit in self.edits.items()
            if edit["segments"] != segments or edit["position"] < first or (end is not None and edit["position"] >= end)
        }

    def add_segment(
        self, at: datetime, *, segment: str, content: str, answer: str | None = None, after: str | None = None
    ) -> None:
        self._may_change()
        if segment in self.edits:
            return
        ends = [revision["count"] for revision in self.revisions]
        ends += [edit["position"] + 1 for edit in self.edits.values() if edit["segments"] is None]
        position = max(ends, default=0) if after is None else self._segment(after, "after")["position"]
        self._room(segment, content, answer)
        self.record(
            self.SegmentAdded,
            at,
            dataset=self.dataset,
            segment=segment,
            position=position,
            content=content,
            answer=answer,
        )

    def edit_segment(
        self, at: datetime, *, segment: str, content: str | None = None, answer: str | None = None
    ) -> None:
        self._may_change()
        edit = self._segment(segment)
        if (content or edit["content"], answer or edit["answer"]) != (edit["content"], edit["answer"]):
            self._room(segment, content or edit["content"], answer or edit["answer"])
            self.record(self.SegmentEdited, at, segment=segment, content=content, answer=answer)

    def disable_segment(self, at: datetime, *, segment: str) -> None:
        self._may_change()
        if self._segment(segment)["enabled"]:
            self._room(segment)
            self.record(self.SegmentDisabled, at, segment=segment)

    def enable_segment(self, at: datetime, *, segment: str) -> None:
        self._may_change()
        if not self._segment(segment)["enabled"]:
            self.record(self.SegmentEnabled, at, segment=segment)

    def delete_segment(self, at: datetime, *, segment: str) -> None:
        self._may_change()
        known = self.edits.get(segment)
        if known is None or not known["deleted"]:
            self._segment(segment)
            self._room(segment)
            self.record(self.SegmentDeleted, at, segment=segment)

    def disable(self, at: datetime) -> None:
        self._may_change()
        if self.enabled:
            self.record(self.Disabled, at)

    def enable(self, at: datetime) -> None:
        self._may_change()
        if not self.enabled:
            self.record(self.Enabled, at)

    def archive(self, at: datetime) -> None:
        self._is_at_rest()
        if not self.archived:
            self.record(self.Archived, at)

    def unarchive(self, at: datetime) -> None:
        self._is_at_rest()
        if self.archived:
            self.record(self.Unarchived, at)

    def rename(self, at: datetime, *, name: str) -> None:
        self._is_not_archived()
        if name != self.name:
            self.record(self.Renamed, at, name=name)

    def set_metadata(self, at: datetime, *, metadata: dict[str, Any]) -> None:
        """The size was looked at when the command came; here it is that of all together."""
        self._is_not_archived()
        if len(merged(self.metadata, metadata)) > MOST_METADATA:
            sentence = (
                f"metadata: a document has at most {MOST_METADATA} values; take some away by setting them to null."
            )
            raise Rejection("too_many", sentence, "metadata")
        self.record(self.MetadataSet, at, metadata=metadata)

    def mark_synced(self, at: datetime, *, settled: int) -> None:
        """It counts only if nothing was changed meanwhile: whoever follows that does all of it."""
        if self.needs_sync and settled == self.changed:
            self.record(self.Settled, at, settled=settled)

    def fail_sync(self, at: datetime, *, code: str, reason: str) -> None:
        if self.needs_sync and not self.sync_failed:
            self.record(self.Unsettled, at, code=code, reason=reason)

    def stall_sync(self, at: datetime, *, reason: str) -> None:
        """As `stall`, for what was changed by hand."""
        if self.ended and self.needs_sync and not self.sync_failed:
            self.fail_sync(at, code="stalled", reason=reason)
            if self.stalls <= STALLS:
                self.resume_sync(at)

    def resume_sync(self, at: datetime) -> None:
        if self.needs_sync and self.sync_failed:
            self.record(self.Resumed, at)

    def _is_at_rest(self) -> None:
        if not self.ended:
            sentence = f"Document {self.id} is {self.status}: wait until it is completed or in error."
            raise Rejection("being_processed", sentence, "document")

    def _is_not_archived(self) -> None:
        if self.archived:
            raise Rejection("archived", f"Document {self.id} is archived: send document.unarchive first.", "document")

    def _may_change(self) -> None:
        self._is_not_archived()
        self._is_at_rest()

    def _known(self, segment: str) -> Edit | None:
        """A segment as people have left it, of whatever cut."""
        if segment in self.edits:
            return self.edits[segment]
        for revision in self.revisions:
            position = _positions(self.id, revision["segments"], revision["count"]).get(segment)
            if position is not None and position < revision["done"]:
                return Edit(
                    segments=revision["segments"],
                    position=position,
                    content=None,
                    answer=None,
                    enabled=True,
                    deleted=False,
                    version=0,
                )
        return None

    def _segment(self, segment: str, field: str = "segment") -> Edit:
        known = self._known(segment)
        if known is None or known["deleted"]:
            sentence = f"{field}: document {self.id} has no segment {segment}; its segments are in document_segments."
            raise Rejection("not_found", sentence, field)
        return known

    def _room(self, segment: str, *texts: str | None) -> None:
        """Whether one more segment may be changed, and have these texts written by hand."""
        others = [edit for id, edit in self.edits.items() if id != segment]
        if len(others) >= MOST:
            sentence = (
                f"Of document {self.id} {MOST} segments were changed by hand, and more may not be: "
                "put what you add into a document of its own, or mend the file and upload it."
            )
            raise Rejection("too_many", sentence, "segment" if segment in self.edits else "document")
        if texts and written(others) + size(*texts) > MOST_TEXT:
            sentence = (
                f"content: what was written by hand into document {self.id} may have {MOST_TEXT // 1024} KiB in all: "
                "put what you add into a document of its own."
            )
            raise Rejection("too_large", sentence, "content")


MOST_METADATA = 256
"""Values that the metadata of a document may have."""


def merged(metadata: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Metadata with other values; those that are null are taken away."""
    return {name: value for name, value in {**metadata, **changes}.items() if value is not None or name not in changes}


@lru_cache(maxsize=16)
def _positions(document: str, segments: str, count: int) -> dict[str, int]:
    """The positions of a cut's segments by id."""
    return {segment_id(document, segments, position): position for position in range(count)}
