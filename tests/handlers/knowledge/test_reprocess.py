"""All documents of a knowledge base reprocessed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from domain.knowledge.document import Document
from domain.log import Commit
from handlers.knowledge.reprocess import AT_ONCE, Reprocess
from handlers.ports.documents import Documents
from handlers.ports.log import Unavailable
from tests.handlers.desk import Desk
from tests.memory import Memory


class Table:
    """The documents of a dataset as a table has them, up to a place in the log."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.reached: int | None = None
        self.asked: list[tuple[str, str, int]] = []

    async def of(self, tenant: str, dataset: str, sequence: int) -> Sequence[str]:
        self.asked.append((tenant, dataset, sequence))
        if self.reached is not None and self.reached < sequence:
            raise Unavailable("The table has not come so far.")
        return self.ids


class Shop:
    """A knowledge base of documents that were all completed."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.table = desk, Table()
        self.reprocess = Reprocess(desk.repository, cast("Documents", self.table))
        self.dataset = ""

    async def open(self, count: int) -> Shop:
        self.dataset = await self.desk.done("dataset.create", name="Rules")
        for _ in range(count):
            self.table.ids.append(await self.document())
        return self

    async def document(self) -> str:
        id = await self.desk.done("document.upload", dataset=self.dataset, name="a.txt", text="x")

        def finish(document: Document) -> None:
            document.start(document.created_on, stage="parsing")
            document.parsed(document.created_on, pages=None, characters=1)
            document.split(document.created_on, segments="d", count=1, tokens=1, model="words")
            document.indexed(document.created_on, first=0, count=1)

        await self.desk.change("document", id, finish)
        return id

    async def asked(self) -> Commit:
        await self.desk.done("dataset.reprocess", dataset=self.dataset)
        return (await self.desk.commits("dataset", self.dataset))[-1]

    async def begun(self) -> list[int]:
        """Number of times that each document was reprocessed."""
        types = [await self.desk.types("document", id) for id in self.table.ids]
        return [each.count(Document.Reprocessed.TOPIC) for each in types]


@pytest.fixture
def desk(memory: Memory, tenant: str) -> Desk:
    return Desk(memory, tenant)


async def test_every_document_is_reprocessed(desk: Desk) -> None:
    shop = await Shop(desk).open(AT_ONCE + 3)
    commit = await shop.asked()
    await shop.reprocess(commit)
    assert await shop.begun() == [1] * (AT_ONCE + 3)
    assert shop.table.asked == [(desk.tenant, shop.dataset, commit.position.sequence)]
    last = (await desk.commits("document", shop.table.ids[0]))[-1]
    assert last.metadata.causation == commit.metadata.id
    assert last.metadata.correlation == commit.metadata.correlation


async def test_twice_is_once(desk: Desk) -> None:
    shop = await Shop(desk).open(3)
    commit = await shop.asked()
    for _ in range(2):
        await shop.reprocess(commit)
    assert await shop.begun() == [1, 1, 1]
    again = await shop.asked()
    await shop.reprocess(again)
    assert await shop.begun() == [1, 1, 1]  # they already wait


async def test_those_that_are_archived_or_deleted_stay_as_they_are(desk: Desk) -> None:
    shop = await Shop(desk).open(3)
    archived, deleted, _ = shop.table.ids
    await desk.done("document.archive", document=archived)
    await desk.done("document.delete", document=deleted)
    await shop.reprocess(await shop.asked())
    assert await shop.begun() == [0, 0, 1]


async def test_one_that_is_in_hand_is_reprocessed_afterwards(desk: Desk) -> None:
    shop = await Shop(desk).open(1)
    in_hand = await desk.done("document.upload", dataset=shop.dataset, name="b.txt", text="x")
    await desk.change("document", in_hand, lambda it: it.start(it.created_on, stage="parsing"))
    shop.table.ids.append(in_hand)
    await shop.reprocess(await shop.asked())
    assert await shop.begun() == [1, 0]
    assert (await desk.types("document", in_hand))[-1] == Document.ReprocessRequested.TOPIC


async def test_a_table_that_has_not_come_so_far_is_waited_for(desk: Desk) -> None:
    shop = await Shop(desk).open(2)
    commit = await shop.asked()
    shop.table.reached = commit.position.sequence - 1
    with pytest.raises(Unavailable):
        await shop.reprocess(commit)
    assert await shop.begun() == [0, 0]
    shop.table.reached = commit.position.sequence
    await shop.reprocess(commit)
    assert await shop.begun() == [1, 1]


async def test_what_was_broken_off_goes_on(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = await Shop(desk).open(3)
    commit = await shop.asked()
    append, appended = desk.store.append, list[Any]()

    async def breaks_off(*given: Any) -> Any:
        if len(appended) == 2:
            raise Unavailable("The log is away.")
        appended.append(given)
        return await append(*given)

    with monkeypatch.context() as broken:
        broken.setattr(desk.store, "append", breaks_off)
        with pytest.raises(Unavailable):
            await shop.reprocess(commit)
    assert sum(await shop.begun()) == 2
    await shop.reprocess(commit)
    assert await shop.begun() == [1, 1, 1]
