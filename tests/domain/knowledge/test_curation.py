"""Edits of documents, and the segments that can be found then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from domain.aggregate import new_id
from domain.knowledge import curation
from domain.knowledge.document import MOST_METADATA, Document, segment_id
from domain.knowledge.entries import affected, entries
from domain.knowledge.segments import Segment
from tests.domain.scenario import NOW, Scenario, given, refold

BLOB, NEXT = "cd" * 32, "ef" * 32
COUNT = 6

Decision = Callable[[Document], None]


def uploaded() -> Document:
    return Document.upload(
        new_id(),
        NOW,
        dataset=new_id(),
        name="rules.pdf",
        media_type="application/pdf",
        digest="ab" * 32,
        size=1000,
        metadata={"year": 2026},
    )


def work(blob: str = BLOB, done: int = COUNT) -> Decision:
    """Start, and index the first segments of a cut."""

    def decide(document: Document) -> None:
        document.start(NOW, stage="parsing")
        document.parsed(NOW, pages=3, characters=4000)
        document.split(NOW, segments=blob, count=COUNT, tokens=900, model="minilm")
        document.indexed(NOW, first=0, count=done)

    return decide


def completed(*decisions: Decision) -> Scenario[Document]:
    return given(uploaded(), work(), *decisions)


def verb_of(name: str) -> Any:
    return getattr(curation, name, None) or getattr(Document, name)


def do(verb: str, **fields: Any) -> Decision:
    return lambda document: verb_of(verb)(document, NOW, **fields)


def at(document: Document, position: int, blob: str = BLOB) -> str:
    return segment_id(document.id, blob, position)


def on(verb: str, position: int, **fields: Any) -> Decision:
    """Do something to the segment in this place of the cut."""
    return lambda document: verb_of(verb)(document, NOW, segment=at(document, position), **fields)


def settle(document: Document) -> None:
    document.mark_synced(NOW, settled=document.sync["changed"])


def cut(parents: bool = False) -> list[Segment]:
    """Six segments; of parents, the first three are children of the one in place 3, which has no tokens."""
    return [
        Segment(
            place,
            f"text {place}",
            0,
            6,
            1,
            None,
            2,
            [] if parents and place == 3 else [1, place, 2],
            3 if parents and place < 3 else None,
        )
        for place in range(COUNT)
    ]


def found(document: Document, parents: bool = False) -> dict[str, Segment]:
    revisions = {known["segments"]: cut(parents) for known in document.revisions}
    return entries(document, revisions, lambda text: [1, len(text), 2])


# --- segments ---


def test_an_added_segment_stands_at_the_end_or_where_the_one_before_it_stands() -> None:
    scenario = completed()
    first, second, third = new_id(), new_id(), new_id()
    scenario.once(do("add_segment", segment=first, content="One."), Document.SegmentAdded, position=6)
    scenario.when(do("add_segment", segment=second, content="Who?", answer="Ada.")).then(
        Document.SegmentAdded, position=7, answer="Ada."
    )
    after = at(scenario.aggregate, 2)
    scenario.when(do("add_segment", segment=third, content="Three.", after=after)).then(
        Document.SegmentAdded, position=2
    )
    assert [found(scenario.aggregate)[id].content for id in (first, second, third)] == ["One.", "Who?", "Three."]
    assert found(scenario.aggregate)[second].answer == "Ada."


def test_an_edited_segment_has_the_new_text_and_its_own_place() -> None:
    scenario = completed().once(on("edit_segment", 2, content="New."), Document.SegmentEdited, content="New.")
    scenario.when(on("edit_segment", 2, answer="So.")).then(Document.SegmentEdited, content=None, answer="So.")
    segment = found(scenario.aggregate)[at(scenario.aggregate, 2)]
    assert (segment.position, segment.content, segment.answer, segment.page) == (2, "New.", "So.", 1)
    assert segment.token_ids == [1, 4, 2]


def test_a_disabled_segment_cannot_be_found_until_it_is_enabled() -> None:
    scenario = completed().once(on("disable_segment", 1), Document.SegmentDisabled)
    id = at(scenario.aggregate, 1)
    assert id not in found(scenario.aggregate)
    assert not curation.shows(scenario.aggregate, id)
    scenario.once(on("enable_segment", 1), Document.SegmentEnabled)
    assert id in found(scenario.aggregate)


def test_a_deleted_segment_is_gone() -> None:
    added = new_id()
    scenario = completed(do("add_segment", segment=added, content="One."))
    scenario.once(on("delete_segment", 1), Document.SegmentDeleted)
    scenario.once(do("delete_segment", segment=added), Document.SegmentDeleted)
    assert found(scenario.aggregate).keys() == {at(scenario.aggregate, place) for place in (0, 2, 3, 4, 5)}
    for verb in ("edit_segment", "disable_segment", "enable_segment"):
        fields = {"content": "x"} if verb == "edit_segment" else {}
        scenario.when(do(verb, segment=added, **fields)).rejects("not_found", "segment")
        scenario.when(on(verb, 1, **fields)).rejects("not_found", "segment")


def test_without_its_parent_a_child_cannot_be_found() -> None:
    scenario = completed(on("disable_segment", 3))
    document = scenario.aggregate
    assert found(document, parents=True).keys() == {at(document, 4), at(document, 5)}
    assert not curation.shows(document, at(document, 0), 3)
    scenario.when(on("enable_segment", 3)).when(on("edit_segment", 3, content="The parent.")).when(
        on("edit_segment", 0, content="The child.")
    )
    kept = found(document, parents=True)
    assert len(kept) == COUNT
    assert (kept[at(document, 3)].content, kept[at(document, 3)].is_parent) == ("The parent.", True)
    assert (kept[at(document, 0)].content, kept[at(document, 0)].parent) == ("The child.", 3)


@pytest.mark.parametrize("verb", ["edit_segment", "disable_segment", "enable_segment", "delete_segment"])
def test_a_segment_must_be_there(verb: str) -> None:
    fields = {"content": "x"} if verb == "edit_segment" else {}
    completed().when(do(verb, segment=new_id(), **fields)).rejects("not_found", "segment")
    half = given(uploaded(), work(done=3), do("fail", stage="indexing", code="x", reason="It broke."))
    half.when(on(verb, 3, **fields)).rejects("not_found", "segment")


def test_what_an_added_one_follows_must_be_there() -> None:
    completed().when(do("add_segment", segment=new_id(), content="x", after=new_id())).rejects("not_found", "after")


def test_the_number_of_edits_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curation, "MOST", 2)
    scenario = completed(on("disable_segment", 0), on("edit_segment", 1, content="x"))
    for refused in (on("disable_segment", 2), do("add_segment", segment=new_id(), content="x")):
        scenario.when(refused).rejects("too_many", "document")
    scenario.when(on("enable_segment", 0)).then(Document.SegmentEnabled)
    scenario.when(on("edit_segment", 1, content="y")).then(Document.SegmentEdited)


def test_the_size_of_edits_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curation, "MOST_TEXT", 10)
    scenario = completed(on("edit_segment", 1, content="öööö"))
    scenario.when(do("add_segment", segment=new_id(), content="abc")).rejects("too_large", "content")
    scenario.when(on("edit_segment", 1, content="0123456789")).then(Document.SegmentEdited)
    scenario.when(on("delete_segment", 1)).then(Document.SegmentDeleted)
    assert curation.written(scenario.aggregate.edits.values()) == 0
    scenario.when(do("add_segment", segment=new_id(), content="abc")).then(Document.SegmentAdded)


# --- documents ---


@pytest.mark.parametrize(
    ("hide", "show", "types"),
    [
        ("disable", "enable", (Document.Disabled, Document.Enabled)),
        ("archive", "unarchive", (Document.Archived, Document.Unarchived)),
    ],
)
def test_nothing_is_found_of_one_that_is_hidden(hide: str, show: str, types: tuple[Any, Any]) -> None:
    scenario = completed().once(do(hide), types[0])
    assert found(scenario.aggregate) == {}
    assert not curation.shows(scenario.aggregate, at(scenario.aggregate, 0))
    scenario.once(do(show), types[1])
    assert len(found(scenario.aggregate)) == COUNT


CHANGES: list[Decision] = [
    do("add_segment", segment=new_id(), content="x"),
    on("edit_segment", 0, content="x"),
    on("disable_segment", 0),
    on("enable_segment", 0),
    on("delete_segment", 0),
    do("disable"),
    do("enable"),
    do("archive"),
    do("unarchive"),
]


@pytest.mark.parametrize("change", CHANGES)
def test_one_that_is_being_processed_takes_no_change(change: Decision) -> None:
    given(uploaded()).when(change).rejects("being_processed", "document")
    given(uploaded(), work(done=3)).when(change).rejects("being_processed", "document")
    completed(do("reprocess")).when(change).rejects("being_processed", "document")


@pytest.mark.parametrize(
    "change", [*CHANGES[:7], do("rename", name="other.pdf"), do("set_metadata", metadata={"year": 2027})]
)
def test_an_archived_one_takes_no_change(change: Decision) -> None:
    completed(do("archive")).when(change).rejects("archived", "document")


def test_one_in_error_can_be_hidden() -> None:
    failed = given(uploaded(), work(done=3), do("fail", stage="indexing", code="x", reason="It broke."))
    failed.once(do("disable"), Document.Disabled)


def test_has_another_name() -> None:
    scenario = completed().once(do("rename", name="other.pdf"), Document.Renamed, name="other.pdf")
    assert (scenario.aggregate.name, scenario.aggregate.media_type) == ("other.pdf", "application/pdf")


def test_metadata_is_set_value_by_value() -> None:
    scenario = completed(do("set_metadata", metadata={"author": "Ada", "year": 2027}))
    scenario.when(do("set_metadata", metadata={"author": None})).then(Document.MetadataSet, metadata={"author": None})
    assert scenario.aggregate.metadata == {"year": 2027}
    many = {f"field {number}": number for number in range(MOST_METADATA)}
    scenario.when(do("set_metadata", metadata=many)).rejects("too_many", "metadata")


# --- reprocessing ---


def test_what_was_changed_of_the_old_segments_goes_with_them() -> None:
    added = new_id()
    scenario = completed(
        on("edit_segment", 1, content="New."), on("delete_segment", 2), do("add_segment", segment=added, content="One.")
    )
    scenario.when(do("reprocess")).when(work(NEXT, done=3))
    document = scenario.aggregate
    during = entries(document, {BLOB: cut(), NEXT: cut()}, lambda text: [1, 0, 2])
    assert during[at(document, 1)].content == "New."
    assert at(document, 2) not in during
    assert {at(document, place, NEXT) for place in range(3)} < during.keys()
    scenario.when(do("indexed", first=3, count=3))
    assert document.status == "completed"
    kept = found(document)
    assert kept.keys() == {at(document, place, NEXT) for place in range(COUNT)} | {added}
    assert document.edits.keys() == {added}


def test_what_was_changed_goes_too_when_the_same_segments_come_again() -> None:
    scenario = completed(on("edit_segment", 1, content="New."), on("disable_segment", 4))
    scenario.when(do("reprocess")).when(work(BLOB, done=3))
    document = scenario.aggregate
    assert found(document)[at(document, 1)].content == "text 1"
    assert at(document, 4) not in found(document)
    scenario.when(do("indexed", first=3, count=3))
    assert len(found(document)) == COUNT


# --- the index follows ---


def test_it_is_settled_when_the_index_follows_the_last_change() -> None:
    scenario = completed(on("disable_segment", 0))
    document = scenario.aggregate
    assert document.needs_sync
    earlier = document.sync["changed"]
    scenario.when(on("disable_segment", 1)).when(do("mark_synced", settled=earlier)).nothing()
    assert document.needs_sync
    scenario.once(settle, Document.Settled, settled=document.sync["changed"])
    assert not document.needs_sync


def test_only_what_was_changed_since_is_touched() -> None:
    scenario = completed(on("disable_segment", 0), settle, on("edit_segment", 5, content="x"))
    document = scenario.aggregate
    revisions = {BLOB: cut(parents=True)}
    assert affected(document, revisions, document.sync["synced"]) == {at(document, 5)}
    scenario.when(settle).when(on("disable_segment", 3))
    assert affected(document, revisions, document.sync["synced"]) == {at(document, place) for place in range(4)}
    scenario.when(settle).when(do("disable"))
    assert len(affected(document, revisions, document.sync["synced"])) == COUNT


def test_one_that_does_not_settle_can_be_tried_again() -> None:
    scenario = completed(on("disable_segment", 0))
    scenario.once(do("fail_sync", code="internal_error", reason="It broke."), Document.Unsettled)
    scenario.when(do("retry")).then(Document.Resumed)
    scenario.when(do("resume_sync")).nothing()
    scenario.when(settle).then(Document.Settled)
    scenario.when(do("fail_sync", code="internal_error", reason="It broke.")).nothing()
    scenario.when(do("retry")).rejects("not_failed", "document")


def test_nothing_is_left_to_settle_of_one_that_was_deleted() -> None:
    scenario = completed(on("disable_segment", 0), do("delete"))
    assert not scenario.aggregate.needs_sync
    assert found(scenario.aggregate) == {}


def test_the_events_alone_give_it_all() -> None:
    document = uploaded()
    decisions = [work(), on("edit_segment", 1, content="New."), do("add_segment", segment=new_id(), content="One.")]
    for decision in [*decisions, on("disable_segment", 2), do("disable"), settle]:
        decision(document)
    folded = refold(Document, document.pending())
    state = {name: value for name, value in vars(document).items() if name != "_pending_events"}
    assert state == {name: value for name, value in vars(folded).items() if name != "_pending_events"}
