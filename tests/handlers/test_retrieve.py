"""What a retrieval puts on record, on a real log; what the index finds is given."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
from nats.aio.client import Client

from domain.aggregate import new_id
from domain.app import Configuration, Model
from domain.app import Retrieval as How
from domain.log import Metadata, Subject
from domain.retrieval import Retrieval
from handlers.model_calls import Cause, ModelCalls
from handlers.ports import EmbeddingModels, Hit, Index, Unavailable
from handlers.retrieve import Retrieve, Retrieved, judged
from tests.handlers.desk import Desk


def hit(id: str, document: str = "living", score: float = 0.5) -> Hit:
    return Hit(id, "set", document, 3, f"Text of {id}.", 2, "Rules > Water", score, 1, None)


def fates(hits: Sequence[Hit], top_k: int, threshold: float | None = None) -> list[tuple[str, int | None, str | None]]:
    found = judged(hits, {"living": "a.txt"}, top_k, threshold)
    return [(candidate["segment"], candidate["rank"], candidate["dropped"]) for candidate in found]


def test_every_candidate_has_a_rank_or_a_reason() -> None:
    hits = [hit("a"), hit("b", "dead"), hit("c", score=0.1), hit("d"), hit("e"), hit("f", "dead"), hit("g", score=0.2)]
    assert fates(hits, 2, 0.3) == [
        ("a", 1, None),
        ("b", None, "deleted"),
        ("c", None, "below_threshold"),
        ("d", 2, None),
        ("e", None, "beyond_top_k"),
        ("f", None, "deleted"),
        ("g", None, "below_threshold"),
    ]
    assert fates([hit("a", score=0.0)], 1) == [("a", 1, None)]
    assert fates([], 4, 0.5) == []


class Shelf:
    """Finds what lies on it."""

    def __init__(self, hits: Sequence[Hit] = (), error: Exception | None = None) -> None:
        self.hits = list(hits)
        self.error = error

    async def models(self, tenant: str, datasets: Sequence[str]) -> dict[str, str]:
        return dict.fromkeys(datasets, "a-model")

    async def search(self, *asked: Any, **how: Any) -> list[Hit]:
        if self.error:
            raise self.error
        return self.hits


class Library:
    """A desk with a knowledge base of two documents, one of them deleted."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.message = new_id()
        self.dataset = self.living = self.deleted = ""

    async def open(self) -> Library:
        self.dataset = await self.desk.done("dataset.create", name="Rules")
        uploads = [
            await self.desk.done("document.upload", dataset=self.dataset, name=name, text="x")
            for name in ("a.txt", "b.txt")
        ]
        self.living, self.deleted = uploads
        await self.desk.done("document.delete", document=self.deleted)
        return self

    async def retrieve(self, shelf: Shelf, attempt: int = 1, datasets: list[str] | None = None) -> Retrieved:
        calls, none = ModelCalls(self.desk.repository), cast("EmbeddingModels", None)
        how = How(mode="full_text", top_k=2, score_threshold=0.3)
        configuration = Configuration(
            number=1,
            model=Model(provider="builtin", name="extractive", max_tokens=9, context_window=999, parameters={}),
            prompt="",
            variables=[],
            datasets=[self.dataset] if datasets is None else datasets,
            retrieval=how,
        )
        cause = Cause(Metadata(new_id(), self.desk.tenant, self.message), "message", self.message, attempt)
        return await Retrieve(self.desk.repository, calls, none, cast("Index", shelf))(cause, configuration, "When?")

    async def made(self, attempt: int = 1) -> Retrieval.Made:
        """The one retrieval of an attempt, as it is on record."""
        id = Cause(Metadata("", "", ""), "message", self.message, attempt).call("retrieve")
        [commit] = await self.desk.store.load(Subject(self.desk.tenant, "retrieval", id))
        assert commit.metadata.correlation == self.message
        [event] = commit.events
        assert isinstance(event, Retrieval.Made)
        return event


@pytest.fixture
async def library(nc: Client, tenant: str) -> Library:
    return await Library(Desk(nc, tenant)).open()


async def test_all_that_was_found_is_on_record(library: Library) -> None:
    hits = [hit("a", library.living), hit("b", library.deleted), hit("c", library.living, 0.1)]
    retrieved = await library.retrieve(Shelf(hits))
    assert (retrieved.hits, retrieved.names) == (hits[:1], {library.living: "a.txt"})
    await retrieved.record()
    made = await library.made()
    assert (made.query, made.mode, made.datasets) == ("When?", "full_text", [library.dataset])
    assert (made.top_k, made.score_threshold, made.attempt) == (2, 0.3, 1)
    assert (made.cause_noun, made.cause_id, made.code, made.reason) == ("message", library.message, None, None)
    assert [(each["rank"], each["dropped"]) for each in made.hits] == [
        (1, None),
        (None, "deleted"),
        (None, "below_threshold"),
    ]
    assert made.hits[0]["heading"] == "Rules > Water"
    assert made.duration_ms > 0


async def test_nothing_found_is_on_record(library: Library) -> None:
    await (await library.retrieve(Shelf())).record()
    assert (await library.made()).hits == []


async def test_an_app_without_knowledge_retrieves_nothing(library: Library) -> None:
    retrieved = await library.retrieve(Shelf([hit("a", library.living)]), datasets=[])
    await retrieved.record()
    assert retrieved.hits == []
    with pytest.raises(ValueError, match="not enough values"):
        await library.made()


@pytest.mark.parametrize(
    ("error", "code"), [(Unavailable("PostgreSQL is away."), "unreachable"), (KeyError("gate"), "internal_error")]
)
async def test_a_search_that_fails_is_on_record(library: Library, error: Exception, code: str) -> None:
    with pytest.raises(type(error)):
        await library.retrieve(Shelf(error=error))
    made = await library.made()
    assert (made.hits, made.code) == ([], code)
    assert type(error).__name__ in str(made.reason)


async def test_an_attempt_is_on_record_once(library: Library) -> None:
    for _ in range(2):
        await (await library.retrieve(Shelf())).record()
    await (await library.retrieve(Shelf(), attempt=2)).record()
    assert [(await library.made(attempt)).attempt for attempt in (1, 2)] == [1, 2]


async def test_nobody_waits_for_the_record(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    taken, change = asyncio.Event(), library.desk.repository.change

    async def slow(kind: Any, *given: Any, **more: Any) -> Any:
        await taken.wait()
        return await change(kind, *given, **more)

    monkeypatch.setattr(library.desk.repository, "change", slow)
    retrieved = await library.retrieve(Shelf([replace(hit("a"), document=library.living)]))
    assert [each.id for each in retrieved.hits] == ["a"]
    record = retrieved.record()
    assert retrieved.record() is record
    taken.set()
    await record
    assert len((await library.made()).hits) == 1
