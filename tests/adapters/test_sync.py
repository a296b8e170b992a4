"""The index follows edits, on real streams and a real index."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest

from domain.aggregate import Rejection, new_id
from domain.knowledge import curation
from domain.knowledge.dataset import Dataset
from domain.knowledge.document import Document, segment_id
from domain.knowledge.entries import entries
from domain.log import Commit, Metadata, Subject
from handlers.knowledge.embed import LoadedRevision
from handlers.knowledge.sync import Sync
from handlers.models.embeddings import PATIENCE
from handlers.ports.index import Entry, Span
from handlers.ports.log import Unavailable
from handlers.ports.models import ModelError
from handlers.work.attempt import Attempt
from handlers.work.dead_letters import Failure, GiveUp, reopen
from tests.adapters.test_reindex import MODEL, NOW, REMOTE, Mill, mill, model, moved
from tests.memory import Memory, MemoryLive

__all__ = ["mill", "model"]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Desk:
    """A document of some segments, what people do to it, and the worker that follows."""

    def __init__(self, mill: Mill, document: Document, cut: LoadedRevision) -> None:
        self.mill, self.id, self.dataset, self.cut = mill, document.id, document.dataset, cut
        self.sync = Sync(mill.repository, mill.files, mill.models, mill.embed, mill.index)

    def at(self, position: int) -> str:
        return segment_id(self.id, self.cut.digest, position)

    async def document(self) -> Document:
        document = await self.mill.repository.get(Document, self.mill.tenant, self.id)
        assert document is not None
        return document

    async def commits(self) -> list[Commit]:
        return await self.mill.store.load(Subject(self.mill.tenant, "document", self.id))

    async def record(self, verb: str, **fields: Any) -> None:
        """Record an edit."""

        def decide(document: Document | None) -> Document:
            assert document is not None
            (getattr(curation, verb, None) or getattr(Document, verb))(document, NOW, **fields)
            return document

        metadata = Metadata(new_id(), self.mill.tenant, new_id())
        await self.mill.repository.change(Document, self.id, metadata, decide)

    async def do(self, verb: str, **fields: Any) -> None:
        """Record an edit, and let the worker follow."""
        await self.record(verb, **fields)
        await self.sync((await self.commits())[-1])
        assert not (await self.document()).needs_sync

    async def kept(self) -> dict[str, tuple[int, str, str | None]]:
        """Return the entries of the document in the index, by id."""
        [held] = await self.mill.index.texts(self.mill.tenant, [Span(self.dataset, self.id, 0, 10_000)])
        return {entry.id: (entry.position, entry.content, entry.answer) for entry in held}

    async def wanted(self) -> dict[str, tuple[int, str, str | None]]:
        """Return the entries that the index must hold."""
        tokenize = self.mill.models.segmenter.tokenize
        found = entries(await self.document(), {self.cut.digest: self.cut.segments}, tokenize)
        return {id: (segment.position, segment.content, segment.answer) for id, segment in found.items()}

    async def search(self, query: str) -> list[str]:
        hits = await self.mill.index.search(
            self.mill.tenant, [self.dataset], query, None, model=MODEL, mode="full_text", top_k=50
        )
        return [hit.id for hit in hits]


@pytest.fixture
async def desk(mill: Mill) -> Desk:
    return await made(mill, 6)


async def made(mill: Mill, count: int) -> Desk:
    dataset = await mill.dataset()
    document, cut = await mill.document(dataset.id, count)
    await mill.write(document, cut, 0, count)
    await mill.record(document, 0, count)
    return Desk(mill, document, cut)


async def test_what_a_worker_gave_up_is_recorded_and_done_once_it_is_retried(desk: Desk) -> None:
    await desk.record("edit_segment", segment=desk.at(2), content="The towpath is flooded.")
    commit = (await desk.commits())[-1]
    of: dict[str, Any] = {"reason": "KeyError", "where": "x.py:run:7", "stack": "0" * 16, "failures": 5, "deaths": 0}
    death = Failure(consumer="sync", position=commit.position, subject=str(commit.subject), **of)
    await GiveUp(desk.mill.repository, MemoryLive(Memory()))(commit.metadata, death, commit)
    document = await desk.document()
    assert (document.sync["failed"], document.needs_sync) == (True, True)
    assert await desk.search("towpath") == []
    assert await reopen(desk.mill.repository, "sync", commit, commit.metadata)
    await desk.sync((await desk.commits())[-1])
    document = await desk.document()
    assert (document.sync["failed"], document.needs_sync) == (False, False)
    assert await desk.search("towpath") == [desk.at(2)]


async def test_segments_are_added_edited_disabled_enabled_and_deleted(desk: Desk) -> None:
    added = new_id()
    await desk.do("add_segment", segment=added, content="Who has the windlass?", answer="Ada has it.")
    assert await desk.search("windlass") == [added]
    await desk.do("edit_segment", segment=added, content="Who has the capstan?")
    assert (await desk.search("windlass"), await desk.search("capstan")) == ([], [added])
    assert (await desk.kept())[added] == (6, "Who has the capstan?", "Ada has it.")
    await desk.do("edit_segment", segment=desk.at(2), content="The towpath is flooded.")
    assert await desk.search("towpath") == [desk.at(2)]
    await desk.do("disable_segment", segment=desk.at(2))
    assert await desk.search("towpath") == []
    await desk.do("enable_segment", segment=desk.at(2))
    assert await desk.search("towpath") == [desk.at(2)]
    await desk.do("delete_segment", segment=desk.at(2))
    await desk.do("delete_segment", segment=added)
    assert (await desk.search("towpath"), await desk.search("capstan")) == ([], [])
    assert await desk.kept() == await desk.wanted()
    assert len(await desk.kept()) == 5


@pytest.mark.parametrize(("hide", "show"), [("disable", "enable"), ("archive", "unarchive")])
async def test_all_of_a_document_is_taken_out_and_comes_back(mill: Mill, hide: str, show: str) -> None:
    desk = await made(mill, 200)
    await desk.do("disable_segment", segment=desk.at(7))
    await desk.do(hide)
    assert await desk.kept() == {}
    await mill.reindex.dataset(mill.tenant, desk.dataset)
    assert await desk.kept() == {}
    await desk.do(show)
    assert await desk.kept() == await desk.wanted()
    assert len(await desk.kept()) == 199


async def test_an_index_that_is_rebuilt_has_the_edits(desk: Desk) -> None:
    added, gone = new_id(), new_id()
    for segment in (added, gone):
        await desk.do("add_segment", segment=segment, content=f"Added as {segment}.", after=desk.at(1))
    await desk.do("edit_segment", segment=desk.at(2), content="The towpath is flooded.")
    await desk.do("disable_segment", segment=desk.at(3))
    await desk.do("delete_segment", segment=desk.at(4))
    await desk.do("delete_segment", segment=gone)
    before = await desk.kept()
    assert before == await desk.wanted()
    await desk.mill.reindex.all()
    assert await desk.kept() == before
    assert await desk.search("towpath") == [desk.at(2)]
    await desk.do("enable_segment", segment=desk.at(3))
    await desk.mill.reindex.dataset(desk.mill.tenant, desk.dataset)
    assert (await desk.kept()).keys() == before.keys() | {desk.at(3)}


async def test_a_model_that_is_away_is_waited_for(desk: Desk) -> None:
    desk.mill.models.models.embedder.away = True
    await desk.record("edit_segment", segment=desk.at(2), content="The towpath is flooded.")
    [*_, commit] = await desk.commits()
    with pytest.raises(Unavailable, match="is away"):
        await desk.sync(commit)
    assert (await desk.document()).needs_sync
    desk.mill.models.models.embedder.away = False
    await desk.sync(commit)
    assert not (await desk.document()).needs_sync
    assert await desk.search("towpath") == [desk.at(2)]
    assert (await desk.mill.calls()).count("model_call.failed.v2") == 1


async def test_an_edit_is_embedded_by_the_model_of_a_provider_which_is_waited_for_or_refuses(desk: Desk) -> None:
    mill = desk.mill
    dataset = await mill.repository.get(Dataset, mill.tenant, desk.dataset)
    assert dataset
    await moved(mill, dataset, REMOTE)
    await desk.record("edit_segment", segment=desk.at(2), content="The towpath is flooded.")
    commit = (await desk.commits())[-1]
    mill.vectorizer.error = ModelError("unreachable", "No connection.", passing=True)
    with pytest.raises(Unavailable, match="No connection"):
        await desk.sync(commit)
    with pytest.raises(Unavailable):
        await desk.sync(replace(commit, at=datetime.now(UTC) - PATIENCE / 2))
    await desk.sync(replace(commit, at=datetime.now(UTC) - 2 * PATIENCE))
    assert (await desk.document()).sync["failed"]
    mill.vectorizer.error = None
    await desk.record("resume_sync")
    await desk.sync((await desk.commits())[-1])
    assert not (await desk.document()).needs_sync
    assert mill.vectorizer.asked[-1] == ("small", ["The towpath is flooded."])
    mill.vectorizer.error = ModelError("unauthorized", "Who?")
    await desk.record("edit_segment", segment=desk.at(3), content="The weir is closed.")
    await desk.sync((await desk.commits())[-1])
    assert (await desk.document()).sync["failed"]


async def test_a_worker_that_was_overtaken_undoes_nothing(desk: Desk) -> None:
    """It has made its entries, is held up, and writes when others have followed what came later."""
    late: list[tuple[Sequence[Entry], int]] = []
    writes = desk.mill.index.write

    async def held_up(*place: Any, model: str, version: int) -> None:
        late.append((place[-1], version))

    await desk.record("edit_segment", segment=desk.at(2), content="The towpath is dry.")
    slow = Sync(desk.mill.repository, desk.mill.files, desk.mill.models, desk.mill.embed, desk.mill.index)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(desk.mill.index, "write", held_up)
        patch.setattr(Attempt, "step", _nothing)
        await slow((await desk.commits())[-1])
    await desk.do("edit_segment", segment=desk.at(2), content="The towpath is flooded.")
    await desk.do("disable_segment", segment=desk.at(2))
    for entries_, version in late:
        await writes(desk.mill.tenant, desk.dataset, desk.id, entries_, model=MODEL, version=version)
    assert await desk.kept() == await desk.wanted()
    await desk.do("enable_segment", segment=desk.at(2))
    for entries_, version in late:
        await writes(desk.mill.tenant, desk.dataset, desk.id, entries_, model=MODEL, version=version)
    assert (await desk.kept())[desk.at(2)][1] == "The towpath is flooded."


async def _nothing(*_: Any) -> None:
    return None


async def test_what_was_changed_before_it_is_reprocessed_waits_for_that(desk: Desk) -> None:
    added = new_id()
    await desk.record("add_segment", segment=added, content="The windlass.")
    await desk.record("disable_segment", segment=desk.at(0))
    await desk.record("reprocess")
    commits = await desk.commits()
    for commit in commits:
        await desk.sync(commit)
    assert added not in await desk.kept()
    await desk.record("start", stage="parsing")
    await desk.record("parsed", pages=None, characters=1)
    await desk.record("split", segments=desk.cut.digest, count=6, tokens=1, model=MODEL)
    await desk.record("indexed", first=0, count=6)
    for commit in await desk.commits():
        await desk.sync(commit)
    assert not (await desk.document()).needs_sync
    assert await desk.kept() == await desk.wanted()
    assert added in await desk.kept()


async def test_a_document_of_a_deleted_dataset_goes_with_it(desk: Desk) -> None:
    await desk.record("disable_segment", segment=desk.at(0))
    dataset = await desk.mill.repository.get(type(await desk.mill.dataset()), desk.mill.tenant, desk.dataset)
    assert dataset is not None
    dataset.delete(NOW)
    await desk.mill.change(dataset)
    await desk.sync((await desk.commits())[-1])
    assert (await desk.document()).deleted


@pytest.mark.parametrize("seed", range(2))
async def test_in_whatever_order_and_however_often_it_is_followed_it_is_followed(desk: Desk, seed: int) -> None:
    random = Random(seed)
    segments = [desk.at(position) for position in range(6)]
    verbs = ["disable", "enable", "archive", "unarchive", "unarchive"]
    verbs += 3 * ["add_segment", "edit_segment", "disable_segment", "enable_segment", "delete_segment"]
    done = len(await desk.commits())
    for number in range(40):
        fields: dict[str, Any] = {}
        verb = random.choice(verbs)
        if verb == "add_segment":
            segments.append(new_id())
            fields = {
                "segment": segments[-1],
                "content": f"Added {number}.",
                "after": random.choice([None, segments[0]]),
            }
        elif verb.endswith("_segment"):
            fields = {"segment": random.choice(segments)}
        if verb == "edit_segment":
            fields["content"] = f"Edited {number}."
        with suppress(Rejection):
            await desk.record(verb, **fields)
        if random.random() < 0.2:
            await desk.sync(random.choice((await desk.commits())[done - 1 :]))
    left = (await desk.commits())[done - 1 :]
    random.shuffle(left)
    for commit in [*left, *left[:3]]:
        await desk.sync(commit)
    assert not (await desk.document()).needs_sync
    assert await desk.kept() == await desk.wanted()
    await desk.mill.reindex.dataset(desk.mill.tenant, desk.dataset)
    assert await desk.kept() == await desk.wanted()
