"""The index rebuilt from the log, with work in progress, and with missing blobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing
from datetime import UTC, datetime

import pytest
from nats.aio.client import Client

from adapters.embedding.cache import PostgresEmbeddingCache
from adapters.embedding.engine import Engine
from adapters.embedding.lanes import LocalEmbedder
from adapters.embedding.wire import TokenIds
from adapters.index.pgvector.store import pgvector_index
from adapters.index.pgvector.tables import set_up
from adapters.jetstream.blobs import JetStreamBlobs
from adapters.jetstream.log import JetStreamLog
from adapters.jetstream.snapshots import JetStreamSnapshots
from adapters.jetstream.store import JetStreamEventStore
from adapters.segmenting.segmenter import TokenSegmenter
from domain.aggregate import Aggregate, new_id
from domain.embedding import EmbeddingModel, of_workers
from domain.knowledge.dataset import Dataset
from domain.knowledge.document import Document, segment_id
from domain.knowledge.segments import Segment, encode_segments
from domain.log import EVENTS, Metadata, Subject
from domain.models.model_call import ModelCall
from handlers.cause import Cause
from handlers.knowledge.embed import Embed, LoadedRevision
from handlers.knowledge.forget import Forget
from handlers.knowledge.reindex import Reindex
from handlers.models.embeddings import Embeddings
from handlers.ports.documents import Embedding, Vectors
from handlers.ports.index import Index
from handlers.ports.log import Unavailable
from handlers.ports.models import ModelError
from handlers.repository import Repository
from tests.handlers.desk import files_of
from tests.handlers.fakes import Vectorizer, embedding_models
from tests.tiny_model import make_tiny_model

NOW = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)
MODEL = "tiny-64"


class Outage(LocalEmbedder):
    """The model of this process, which can be made unavailable."""

    away = False

    async def embed(self, token_ids: Sequence[TokenIds], *, tenant: str = "", urgent: bool = False) -> Vectors:
        if self.away:
            raise Unavailable("The embedding model is away.")
        return await super().embed(token_ids, tenant=tenant, urgent=urgent)


class OneModel:
    default = MODEL

    def __init__(self, segmenter: TokenSegmenter, embedder: Outage) -> None:
        self.segmenter = segmenter
        self.embedder = embedder

    async def get(self, name: str) -> Embedding:
        assert name == MODEL
        return Embedding(self.segmenter, self.embedder)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_tiny_model(tmp_path_factory.mktemp("models"))


class Mill:
    """The ports of an ingest worker."""

    def __init__(
        self, nc: Client, tenant: str, index: Index, models: Embeddings, embed: Embed, vectorizer: Vectorizer
    ) -> None:
        self.tenant = tenant
        self.blobs = JetStreamBlobs(nc)
        self.files = files_of(nc)
        self.log = JetStreamLog(nc)
        self.store = JetStreamEventStore(nc)
        self.repository = Repository(self.store, JetStreamSnapshots(nc))
        self.index, self.models, self.embed, self.vectorizer = index, models, embed, vectorizer
        self.reindex = Reindex(self.repository, self.log, self.files, models, embed, index)

    async def change(self, aggregate: Aggregate) -> None:
        """Record what is pending."""

        def decide(known: Aggregate | None) -> Aggregate:
            return aggregate

        await self.repository.change(type(aggregate), aggregate.id, Metadata(new_id(), self.tenant, new_id()), decide)

    async def dataset(self) -> Dataset:
        dataset = Dataset.begin(Dataset.Created, new_id(), NOW, name="Rules", description="")
        await self.change(dataset)
        return dataset

    async def document(self, dataset: str, count: int) -> tuple[Document, LoadedRevision]:
        """A document that was begun and split, and of which nothing is indexed."""
        document = Document.upload(
            new_id(), NOW, dataset=dataset, name="a.txt", media_type="text/plain", digest="d", size=1, metadata={}
        )
        return document, await self.segment(document, count)

    async def segment(self, document: Document, count: int) -> LoadedRevision:
        """Split a pending document into `count` segments."""
        texts = [f"Sluice {number} of {document.id}." for number in range(count)]
        token_ids = [self.models.segmenter.tokenize(text) for text in texts]
        segments = [
            Segment(number, text, 0, 1, None, None, len(ids), ids)
            for number, (text, ids) in enumerate(zip(texts, token_ids, strict=True))
        ]
        digest = await self.blobs.put(self.tenant, encode_segments(MODEL, segments))
        document.start(NOW, stage="parsing")
        document.parsed(NOW, pages=None, characters=1)
        document.split(NOW, segments=digest, count=count, tokens=1, model=MODEL)
        await self.change(document)
        return LoadedRevision(digest, MODEL, segments)

    async def write(self, document: Document, cut: LoadedRevision, first: int, count: int) -> None:
        cause = Cause(Metadata(new_id(), self.tenant, new_id()), "document", document.id, 1)
        embedding = await self.models.get(MODEL)
        entries, recorded = await self.embed(cause, f"embed:{first}", embedding, document.id, cut, first, count)
        await recorded
        await self.index.write(self.tenant, document.dataset, document.id, entries, model=MODEL, version=1)

    async def record(self, document: Document, first: int, count: int) -> None:
        document.indexed(NOW, first=first, count=count)
        await self.change(document)

    async def holds(self, document: Document, cut: LoadedRevision) -> list[int]:
        """The positions of a document's segments that can be found."""
        async with aclosing(self.index.contents()) as chunks:
            found = {id async for chunk in chunks for tenant, _, id in chunk if tenant == self.tenant}
        positions = range(len(cut.segments))
        return [position for position in positions if segment_id(document.id, cut.digest, position) in found]

    async def forget_all(self, document: Document) -> None:
        """React once more to all that happened to a document."""
        subject = Subject(self.tenant, document.TOPIC, document.id)
        for commit in await self.store.load(subject):
            await Forget(self.index)(commit)

    async def calls(self) -> list[str]:
        """Return the states of the tenant's model calls for documents."""
        stands: dict[str, str] = {}
        async with aclosing(self.log.read(EVENTS, 0, follow=False)) as chunks:
            async for chunk in chunks:
                for commit in chunk:
                    if commit.subject.tenant == self.tenant and commit.subject.noun == ModelCall.TOPIC:
                        stands[commit.subject.id] = commit.events[-1].TOPIC
        return sorted(stands.values())


@pytest.fixture
async def mill(nc: Client, database_url: str, tenant: str, model: str) -> AsyncIterator[Mill]:
    await set_up(database_url)
    async with AsyncExitStack() as stack:
        index = await stack.enter_async_context(pgvector_index(database_url))
        cache = await stack.enter_async_context(PostgresEmbeddingCache(database_url))
        embedder = await stack.enter_async_context(Outage(await asyncio.to_thread(Engine, model, device="cpu")))
        repository = Repository(JetStreamEventStore(nc), JetStreamSnapshots(nc))
        vectorizer = Vectorizer()
        models = embedding_models(repository, OneModel(TokenSegmenter(model), embedder), vectorizer)
        yield Mill(nc, tenant, index, models, Embed(cache), vectorizer)


async def test_written_slices_that_are_not_recorded_yet_are_included(mill: Mill) -> None:
    dataset = await mill.dataset()
    document, cut = await mill.document(dataset.id, 300)
    await mill.write(document, cut, 0, 128)
    await mill.record(document, 0, 128)
    await mill.write(document, cut, 128, 128)
    made = await mill.calls()
    await mill.reindex.all()
    assert await mill.holds(document, cut) == list(range(256))
    await mill.record(document, 128, 128)
    await mill.write(document, cut, 256, 44)
    await mill.record(document, 256, 44)
    assert document.status == "completed"
    assert await mill.holds(document, cut) == list(range(300))
    await mill.reindex.all()
    assert await mill.holds(document, cut) == list(range(300))
    assert len(await mill.calls()) == len(made) + 1


async def test_a_failed_document_has_what_is_recorded(mill: Mill) -> None:
    dataset = await mill.dataset()
    document, cut = await mill.document(dataset.id, 200)
    await mill.write(document, cut, 0, 128)
    await mill.record(document, 0, 128)
    await mill.write(document, cut, 128, 72)
    document.fail(NOW, stage="indexing", code="internal_error", reason="?")
    await mill.change(document)
    await mill.reindex.all()
    assert await mill.holds(document, cut) == list(range(128))


async def test_a_model_that_is_away_breaks_it_off(mill: Mill) -> None:
    dataset = await mill.dataset()
    known, known_cut = await mill.document(dataset.id, 10)
    await mill.write(known, known_cut, 0, 10)
    await mill.record(known, 0, 10)
    new, new_cut = await mill.document(dataset.id, 10)
    await mill.record(new, 0, 10)
    mill.models.models.embedder.away = True
    with pytest.raises(Unavailable, match="is away"):
        await mill.reindex.all()
    assert await mill.holds(known, known_cut) == list(range(10))
    mill.models.models.embedder.away = False
    built = await mill.reindex.all()
    assert built.segments >= 10
    for document, cut in ((known, known_cut), (new, new_cut)):
        assert await mill.holds(document, cut) == list(range(10))
    assert await mill.calls() == ["model_call.completed.v5", "model_call.completed.v5", "model_call.failed.v2"]


async def test_segments_that_the_store_lacks_are_named(mill: Mill) -> None:
    dataset = await mill.dataset()
    document, cut = await mill.document(dataset.id, 3)
    await mill.record(document, 0, 3)
    lost = Document.upload(
        new_id(), NOW, dataset=dataset.id, name="b", media_type="text/plain", digest="d", size=1, metadata={}
    )
    lost.start(NOW, stage="parsing")
    lost.parsed(NOW, pages=None, characters=1)
    lost.split(NOW, segments="0" * 64, count=2, tokens=1, model=MODEL)
    lost.indexed(NOW, first=0, count=2)
    await mill.change(lost)
    built = await mill.reindex.dataset(mill.tenant, dataset.id)
    assert built.lost == {(mill.tenant, lost.id)}
    assert await mill.holds(document, cut) == [0, 1, 2]
    lost.delete(NOW)
    await mill.change(lost)
    assert (await mill.reindex.all()).lost == set()


async def test_a_choice_that_was_overtaken_is_not_followed(mill: Mill) -> None:
    dataset = await mill.dataset()
    for model in ("one", MODEL):
        dataset.configure(NOW, embedding=of_workers(model))
        await mill.change(dataset)
    commits = await mill.store.load(Subject(mill.tenant, "dataset", dataset.id))
    for commit in [*commits, *commits]:
        await mill.reindex(commit)
    known = await mill.repository.get(Dataset, mill.tenant, dataset.id)
    assert known
    assert (known.embedding, known.next_embedding, known.version) == (of_workers(MODEL), None, 4)
    assert await mill.index.models(mill.tenant, [dataset.id]) == {dataset.id: MODEL}


REMOTE = EmbeddingModel(provider="lab", model="small")


async def moved(mill: Mill, dataset: Dataset, embedding: EmbeddingModel) -> Dataset:
    """Choose a model for a dataset, and have a worker rebuild its index."""
    dataset.configure(NOW, embedding=embedding)
    await mill.change(dataset)
    *_, commit = await mill.store.load(Subject(mill.tenant, "dataset", dataset.id))
    await mill.reindex(commit)
    known = await mill.repository.get(Dataset, mill.tenant, dataset.id)
    assert known
    return known


async def test_a_dataset_moves_to_the_model_of_a_provider_and_back(mill: Mill) -> None:
    dataset = await mill.dataset()
    document, cut = await mill.document(dataset.id, 40)
    await mill.write(document, cut, 0, 40)
    await mill.record(document, 0, 40)
    dataset = await moved(mill, dataset, REMOTE)
    assert (dataset.embedding, dataset.next_embedding) == (REMOTE, None)
    assert await mill.index.models(mill.tenant, [dataset.id]) == {dataset.id: f"{mill.tenant}/lab/small"}
    assert await mill.index.dimension(mill.tenant, dataset.id) == 3
    assert await mill.holds(document, cut) == list(range(40))
    assert [len(texts) for _, texts in mill.vectorizer.asked] == [1, 32, 8]
    workers = of_workers(MODEL)
    assert workers
    assert (await moved(mill, dataset, workers)).embedding == workers
    assert await mill.index.models(mill.tenant, [dataset.id]) == {dataset.id: MODEL}


async def test_a_provider_that_is_away_is_waited_for_and_one_that_refuses_leaves_the_old_model(mill: Mill) -> None:
    dataset = await mill.dataset()
    document, cut = await mill.document(dataset.id, 3)
    await mill.write(document, cut, 0, 3)
    await mill.record(document, 0, 3)
    mill.vectorizer.error = ModelError("unreachable", "No connection.", passing=True)
    with pytest.raises(Unavailable, match="No connection"):
        await moved(mill, dataset, REMOTE)
    mill.vectorizer.error = ModelError("unauthorized", "Who?")
    *_, commit = await mill.store.load(Subject(mill.tenant, "dataset", dataset.id))
    await mill.reindex(commit)
    [*_, failed] = (await mill.store.load(Subject(mill.tenant, "dataset", dataset.id)))[-1].events
    assert isinstance(failed, Dataset.ReindexFailed)
    assert (failed.embedding, failed.code, failed.reason) == (REMOTE, "unauthorized", "Who?")
    assert await mill.index.models(mill.tenant, [dataset.id]) == {dataset.id: MODEL}
    assert await mill.holds(document, cut) == [0, 1, 2]


async def test_one_provider_that_is_gone_does_not_stop_a_build_of_everything(mill: Mill) -> None:
    dataset = await mill.dataset()
    kept, cut = await mill.document(dataset.id, 3)
    await mill.record(kept, 0, 3)
    gone = Dataset.begin(
        Dataset.Created,
        new_id(),
        NOW,
        name="Rules",
        description="",
        embedding=EmbeddingModel(provider="removed", model="small"),
    )
    await mill.change(gone)
    lost, _ = await mill.document(gone.id, 3)
    await mill.record(lost, 0, 3)
    built = await mill.reindex.all()
    assert (mill.tenant, lost.id) in built.lost
    assert (mill.tenant, kept.id) not in built.lost
    assert await mill.holds(kept, cut) == [0, 1, 2]


async def test_a_rebuilt_dataset_has_the_vectors_that_the_server_gives_now(mill: Mill) -> None:
    dataset = await moved(mill, await mill.dataset(), REMOTE)
    document, cut = await mill.document(dataset.id, 3)
    await mill.record(document, 0, 3)
    await mill.reindex.dataset(mill.tenant, dataset.id)
    assert await mill.index.dimension(mill.tenant, dataset.id) == 3
    mill.vectorizer.dimension = 7
    await mill.reindex.dataset(mill.tenant, dataset.id)
    assert await mill.index.dimension(mill.tenant, dataset.id) == 7
    assert await mill.holds(document, cut) == [0, 1, 2]


async def test_a_dataset_that_is_not_there(mill: Mill) -> None:
    with pytest.raises(KeyError):
        await mill.reindex.dataset(mill.tenant, new_id())


async def test_a_reprocessed_document_has_its_old_segments_until_the_new_are_in(mill: Mill) -> None:
    dataset = await mill.dataset()
    document, old = await mill.document(dataset.id, 3)
    await mill.write(document, old, 0, 3)
    await mill.record(document, 0, 3)
    document.reprocess(NOW)
    new = await mill.segment(document, 130)
    await mill.write(document, new, 0, 128)
    await mill.record(document, 0, 128)
    await mill.reindex.all()
    assert await mill.holds(document, old) == [0, 1, 2]
    assert await mill.holds(document, new) == list(range(130))  # also what a worker may have in hand
    await mill.record(document, 128, 2)
    await mill.reindex.all()
    assert await mill.holds(document, old) == []
    assert await mill.holds(document, new) == list(range(130))


async def test_a_document_that_returns_to_an_earlier_revision_has_those_segments_again(mill: Mill) -> None:
    dataset = await mill.dataset()
    document, first = await mill.document(dataset.id, 3)
    await mill.record(document, 0, 3)
    document.reprocess(NOW)
    second = await mill.segment(document, 2)
    await mill.record(document, 0, 2)
    document.reprocess(NOW)
    assert await mill.segment(document, 3) == first
    await mill.record(document, 0, 3)
    await mill.reindex.all()
    assert await mill.holds(document, first) == [0, 1, 2]
    assert await mill.holds(document, second) == []
    await mill.forget_all(document)
    assert await mill.holds(document, first) == [0, 1, 2]
