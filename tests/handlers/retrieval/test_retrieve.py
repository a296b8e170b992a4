"""Records of retrievals, on a real log; the hits of the index are given."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from random import Random
from typing import Any, cast

import pytest

from domain.aggregate import new_id
from domain.chat.app import Configuration, ModelSettings, features, settings
from domain.knowledge.retrieval import Retrieval
from domain.log import Metadata, Subject
from handlers.cause import Cause
from handlers.models.model_calls import ModelCalls
from handlers.ports.documents import Documents, Embedding, EmbeddingModels, Segmenter
from handlers.ports.index import Entry, Hit, Index, Span
from handlers.ports.log import Unavailable
from handlers.ports.models import Access, ModelError, Models, Reranker, Reranking
from handlers.retrieval.extract_filter import ExtractFilter
from handlers.retrieval.rerank import Rerank
from handlers.retrieval.retrieve import Retrieve, Retrieved
from tests.handlers.desk import Desk
from tests.handlers.fakes import OneModel, Words, choosing, embedding_models
from tests.memory import Memory


def hit(id: str, document: str = "living", score: float = 0.5) -> Hit:
    return Hit("set", document, Entry(id, 3, f"Text of {id}.", 2, "Rules > Water"), score, 1)


def but(hit: Hit, **fields: Any) -> Hit:
    """A hit with these fields of its entry."""
    return replace(hit, entry=replace(hit.entry, **fields))


class Shelf:
    """Finds what lies on it."""

    def __init__(
        self, hits: Sequence[Hit] = (), error: Exception | None = None, kept: Sequence[Entry] = (), scores: Any = None
    ) -> None:
        self.hits = list(hits)
        self.error = error
        self.kept = list(kept)
        self.scores = scores
        self.asked: list[dict[str, Any]] = []
        self.server = ""

    async def models(self, tenant: str, datasets: Sequence[str]) -> dict[str, str]:
        return dict.fromkeys(datasets, "a-model")

    async def search(self, *asked: Any, **how: Any) -> list[Hit]:
        if self.error:
            raise self.error
        self.asked.append(how | {"vector": asked[3]})
        return self.hits[: how["top_k"]]

    async def texts(self, tenant: str, wanted: Sequence[Span]) -> list[list[Entry]]:
        return [[entry for entry in self.kept if span.first <= entry.position <= span.last] for span in wanted]

    async def matching(self, tenant: str, datasets: Sequence[str], conditions: Any, *, logical_operator: str) -> Any:
        return [condition["value"] for condition in conditions]

    async def get(self, tenant: str, provider: str, model: str) -> Sequence[Access[Any]]:
        return [Access(self)]

    async def rerank(self, model: str, query: str, texts: Sequence[str]) -> Reranking:
        if isinstance(self.scores, Exception):
            raise self.scores
        return Reranking([self.scores[text.rpartition("\n\n")[2]] for text in texts])


class Library:
    """A desk with a knowledge base of two documents, one of them deleted."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.message = new_id()
        self.dataset = self.living = self.deleted = ""
        self.how: dict[str, Any] = {}

    async def open(self) -> Library:
        self.dataset = await self.desk.done("dataset.create", name="Rules")
        uploads = [
            await self.desk.done("document.upload", dataset=self.dataset, name=name, text="x")
            for name in ("a.txt", "b.txt")
        ]
        self.living, self.deleted = uploads
        await self.desk.done("document.delete", document=self.deleted)
        return self

    async def retrieve(
        self,
        shelf: Shelf,
        attempt: int = 1,
        datasets: list[str] | None = None,
        models: EmbeddingModels | None = None,
    ) -> Retrieved:
        calls = ModelCalls(self.desk.repository)
        how = settings({"mode": "full_text", "top_k": 2, "score_threshold": 0.3, **self.how})
        configuration = Configuration(
            number=1,
            model=ModelSettings(provider="builtin", name="extractive", max_tokens=9, context_window=999, parameters={}),
            prompt="",
            variables=[],
            datasets=[self.dataset] if datasets is None else datasets,
            retrieval=how,
            features=features({}),
        )
        cause = Cause(Metadata(new_id(), self.desk.tenant, self.message), "message", self.message, attempt)
        retrieve = Retrieve(
            self.desk.repository,
            embedding_models(self.desk.repository, cast("OneModel", models)),
            cast("Index", shelf),
            cast("Documents", shelf),
            Rerank(calls, choosing(self.desk.repository, cast("Models[Reranker]", shelf)), "own"),
            cast("ExtractFilter", None),
        )
        return await retrieve(cause, configuration, "When?")

    async def made(self, attempt: int = 1) -> Retrieval.Made:
        """The recorded retrieval of an attempt."""
        id = Cause(Metadata("", "", ""), "message", self.message, attempt).call("retrieve")
        [commit] = await self.desk.store.load(Subject(self.desk.tenant, "retrieval", id))
        assert commit.metadata.correlation == self.message
        [event] = commit.events
        assert isinstance(event, Retrieval.Made)
        return event


@pytest.fixture
async def library(memory: Memory, tenant: str) -> Library:
    return await Library(Desk(memory, tenant)).open()


async def test_all_hits_are_recorded(library: Library) -> None:
    hits = [hit("a", library.living), hit("b", library.deleted), hit("c", library.living, 0.1)]
    retrieved = await library.retrieve(Shelf(hits))
    assert (retrieved.hits, retrieved.names) == (hits[:1], {library.living: "a.txt"})
    await retrieved.record()
    made = await library.made()
    assert (made.query, made.datasets, made.attempt) == ("When?", [library.dataset], 1)
    assert made.retrieval == settings({"mode": "full_text", "top_k": 2, "score_threshold": 0.3})
    assert (made.cause_noun, made.cause_id, made.code, made.reason) == ("message", library.message, None, None)
    assert [(each["rank"], each["dropped"]) for each in made.hits] == [
        (1, None),
        (None, "deleted"),
        (None, "below_threshold"),
    ]
    assert made.hits[0]["heading"] == "Rules > Water"
    assert made.duration_ms > 0


async def test_an_empty_result_is_recorded(library: Library) -> None:
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
async def test_a_failed_search_is_recorded(library: Library, error: Exception, code: str) -> None:
    with pytest.raises(type(error)):
        await library.retrieve(Shelf(error=error))
    made = await library.made()
    assert (made.hits, made.code) == ([], code)
    assert type(error).__name__ in str(made.reason)


async def test_hits_that_are_too_large_to_be_recorded_are_found_all_the_same(library: Library) -> None:
    heading = "".join(map(chr, Random(1).choices(range(0x4E00, 0x9FA5), k=2_000_000)))  # it cannot be compressed
    hits = [but(hit(id, library.living), heading=id + heading) for id in ("a", "b")]
    retrieved = await library.retrieve(Shelf(hits))
    await retrieved.record()
    made = await library.made()
    assert [each.id for each in retrieved.hits] == ["a", "b"]
    assert (made.query, made.hits, made.code) == ("When?", [], "too_large")
    assert "bytes" in str(made.reason)


async def test_an_attempt_is_recorded_once(library: Library) -> None:
    for _ in range(2):
        await (await library.retrieve(Shelf())).record()
    await (await library.retrieve(Shelf(), attempt=2)).record()
    assert [(await library.made(attempt)).attempt for attempt in (1, 2)] == [1, 2]


async def test_the_record_is_not_waited_for_and_has_the_time_of_the_end(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, change = asyncio.Event(), library.desk.repository.change

    async def slow(kind: Any, *given: Any, **more: Any) -> Any:
        await taken.wait()
        return await change(kind, *given, **more)

    monkeypatch.setattr(library.desk.repository, "change", slow)
    began = datetime.now(UTC)
    retrieved = await library.retrieve(Shelf([replace(hit("a"), document=library.living)]))
    ended = datetime.now(UTC)
    assert [each.id for each in retrieved.hits] == ["a"]
    record = retrieved.record()
    assert retrieved.record() is record
    taken.set()
    await record
    made = await library.made()
    assert len(made.hits) == 1
    assert began <= made.timestamp <= ended


async def test_a_reranker_decides_and_every_rank_is_recorded(library: Library) -> None:
    hits = [but(hit(name, library.living), position=n) for n, name in enumerate("abc")]
    library.how = {"rerank": {"provider": "builtin", "model": None, "top_n": 3}, "score_threshold": 0.2}
    shelf = Shelf(hits, scores={"Text of a.": 0.3, "Text of b.": 0.1, "Text of c.": 0.9})
    retrieved = await library.retrieve(shelf)
    await retrieved.record()
    assert [(each.id, each.score) for each in retrieved.hits] == [("c", 0.9), ("a", 0.3)]
    fates = [
        (each["segment"], each["fusion_rank"], each["rerank_rank"], each["rank"], each["dropped"])
        for each in (await library.made()).hits
    ]
    assert fates == [("c", 3, 1, 1, None), ("a", 1, 2, 2, None), ("b", 2, 3, None, "below_threshold")]


async def test_a_reranker_that_fails_is_gone_without(library: Library) -> None:
    library.how = {"rerank": {"provider": "builtin", "model": None, "top_n": 3}}
    shelf = Shelf(
        [hit("a", library.living), hit("b", library.living)], scores=ModelError("timeout", "It said nothing.")
    )
    retrieved = await library.retrieve(shelf)
    await retrieved.record()
    assert [each.id for each in retrieved.hits] == ["a", "b"]
    made = await library.made()
    assert made.faults == [{"step": "rerank", "code": "timeout"}]
    assert [each["rerank_rank"] for each in made.hits] == [None, None]


async def test_a_filter_narrows_the_search(library: Library) -> None:
    condition = {"name": "id", "comparison_operator": "is", "value": library.living}
    filter = {"mode": "manual", "logical_operator": "and", "conditions": [condition]}
    library.how = {"metadata_filter": filter, "weight": 0.4, "mode": "full_text"}
    shelf = Shelf()
    await (await library.retrieve(shelf)).record()
    assert [(asked["documents"], asked["weight"]) for asked in shelf.asked] == [([library.living], 0.4)]
    made = await library.made()
    assert (made.filter, made.documents) == (filter, 1)


async def test_more_hits_are_searched_when_many_lead_to_the_same_text(library: Library) -> None:
    children = [but(hit(f"child {n}", library.living), position=n, parent=100) for n in range(1, 9)]
    last = but(hit("last", library.living), position=40)
    shelf = Shelf([*children, last])
    retrieved = await library.retrieve(shelf)
    assert [asked["top_k"] for asked in shelf.asked] == [4, 16]
    assert [each.id for each in retrieved.hits] == ["child 1", "last"], "no parent is kept"


async def test_passages_are_fetched_in_their_places(library: Library) -> None:
    document = library.living

    def kept(position: int) -> Entry:
        return Entry(f"kept-{position}", position, f"Part {position}.")

    library.how = {"neighbours": 1}
    found = but(hit("kept-4", document), position=4, content="Part 4.")
    child = but(hit("child", document), position=21, parent=20)
    shelf = Shelf([found, child], kept=[kept(n) for n in (3, 4, 5, 6, 20)])
    retrieved = await library.retrieve(shelf)
    assert [(each.id, each.entry.content) for each in retrieved.hits] == [
        ("kept-4", "Part 3.\n\nPart 4.\n\nPart 5."),
        ("kept-20", "Part 20."),
    ]
    await retrieved.record()
    assert [(each["first"], each["last"]) for each in (await library.made()).hits] == [(3, 5), (20, 20)]


class Foreign:
    """A model that knows this share of a question's tokens."""

    default = "a-model"

    def __init__(self, share: float) -> None:
        self.share = share
        self.words = Words()

    async def get(self, name: str) -> Embedding:
        return Embedding(cast("Segmenter", self), self.words)

    def tokenize(self, text: str) -> list[int]:
        return self.words.tokenize(text)

    def known(self, text: str) -> float:
        return self.share


@pytest.mark.parametrize(("mode", "share", "counts"), [("hybrid", 0.4, 0), ("hybrid", 0.5, 1), ("semantic", 0.0, 1)])
async def test_a_hybrid_search_leaves_out_a_vector_of_unknown_tokens(
    library: Library, mode: str, share: float, counts: int
) -> None:
    library.how, shelf, model = {"mode": mode}, Shelf(), Foreign(share)
    retrieved = await library.retrieve(shelf, models=cast("EmbeddingModels", model))
    await retrieved.record()
    [asked] = shelf.asked
    assert (asked["mode"], asked["vector"] is not None) == (mode, counts == 1)
    assert model.words.embedded == [1] * counts
