"""The scan of the log before a build of the index."""

from __future__ import annotations

from datetime import UTC, datetime

from domain.aggregate import Aggregate, new_id
from domain.embedding import EmbeddingModel, of_workers
from domain.knowledge.dataset import Dataset
from domain.knowledge.document import Document
from domain.log import EVENTS, Commit, Metadata, Position, Subject
from handlers.knowledge.scan import Scan

NOW = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)


class Recorded:
    """A scan that notes what aggregates do, in order."""

    def __init__(self) -> None:
        self.scan = Scan("a-model")

    def note(self, aggregate: Aggregate) -> None:
        position = Position(EVENTS, self.scan.sequence + 1)
        subject = Subject("acme", aggregate.TOPIC, aggregate.id)
        self.scan.note(Commit(subject, aggregate.pending(), Metadata(new_id(), "acme", new_id()), position, NOW))


def begun(dataset: str) -> Document:
    document = Document.upload(
        new_id(), NOW, dataset=dataset, name="a", media_type="text/plain", digest="d", size=1, metadata={}
    )
    document.start(NOW, stage="parsing")
    document.parsed(NOW, pages=None, characters=1)
    document.split(NOW, segments="blob", count=300, tokens=1, model="a-model")
    return document


def test_documents_that_a_worker_may_have_in_hand() -> None:
    log, document = Recorded(), begun("some")
    log.note(document)
    assert log.scan.begun == {("acme", document.id): 0}
    document.indexed(NOW, first=0, count=128)
    log.note(document)
    assert log.scan.begun == {("acme", document.id): 128}
    document.fail(NOW, stage="indexing", code="internal_error", reason="?")
    log.note(document)
    assert log.scan.begun == {}
    document.retry(NOW)
    document.start(NOW, stage="indexing")
    log.note(document)
    assert log.scan.begun == {("acme", document.id): 0}
    for first, count in ((128, 128), (256, 44)):
        document.indexed(NOW, first=first, count=count)
    log.note(document)
    assert document.status == "completed"
    assert log.scan.begun == {}
    assert log.scan.sequence == 5


def test_what_was_deleted() -> None:
    log, dataset = Recorded(), Dataset.begin(Dataset.Created, new_id(), NOW, name="Rules", description="")
    document, other = begun(dataset.id), begun(dataset.id)
    document.delete(NOW)
    for noun in (dataset, document, other):
        log.note(noun)
    scan = log.scan
    assert scan.begun.keys() == {("acme", other.id)}
    assert scan.gone("acme", dataset.id, document.id)
    assert not scan.gone("acme", dataset.id, other.id)
    assert not scan.gone("zenith", dataset.id, document.id)
    dataset.delete(NOW)
    log.note(dataset)
    assert scan.gone("acme", dataset.id, other.id)
    assert scan.forbidden() == [("acme", dataset.id, document.id), ("acme", dataset.id, None)]


def test_the_plan_follows_what_is_searched_and_not_what_is_wished() -> None:
    log, dataset = Recorded(), Dataset.begin(Dataset.Created, new_id(), NOW, name="Rules", description="")
    log.note(dataset)
    plan = log.scan.plan
    b = of_workers("b")
    dataset.configure(NOW, embedding=b)
    log.note(dataset)
    assert (log.scan.plan, log.scan.model("acme", dataset.id)) == (plan, "a-model")
    assert b is not None
    dataset.reindexed(NOW, embedding=b)
    log.note(dataset)
    assert log.scan.plan != plan
    assert log.scan.model("acme", dataset.id) == "b"
    assert log.scan.model("zenith", dataset.id) == "a-model"
    assert Scan("b").plan != plan


def test_a_model_of_a_provider_is_one_of_its_tenant() -> None:
    remote = EmbeddingModel(provider="lab", model="small")
    log = Recorded()
    dataset = Dataset.begin(Dataset.Created, new_id(), NOW, name="Rules", description="", embedding=remote)
    log.note(dataset)
    assert log.scan.model("acme", dataset.id) == "acme/lab/small"


def test_former_revisions_are_replaced() -> None:
    log, document = Recorded(), begun("some")
    document.indexed(NOW, first=0, count=300)

    def reprocess(blob: str) -> None:
        document.reprocess(NOW)
        document.start(NOW, stage="parsing")
        document.parsed(NOW, pages=None, characters=1)
        document.split(NOW, segments=blob, count=2, tokens=1, model="a-model")
        document.indexed(NOW, first=0, count=2)
        log.note(document)

    reprocess("other")
    assert log.scan.replaced == {("acme", document.id, "blob")}
    reprocess("blob")
    assert log.scan.replaced == {("acme", document.id, "other")}
