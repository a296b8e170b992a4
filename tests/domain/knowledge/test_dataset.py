from __future__ import annotations

from domain.aggregate import new_id
from domain.knowledge.dataset import Dataset
from domain.knowledge.segmentation import Segmentation
from tests.domain.scenario import NOW, given, made


def dataset() -> Dataset:
    return Dataset.begin(Dataset.Created, new_id(), NOW, name="Handbook", description="What everyone asks")


def test_is_created_empty() -> None:
    made(dataset()).then(Dataset.Created).whole(name="Handbook", description="What everyone asks")
    assert not dataset().deleted


def test_is_deleted_once() -> None:
    scenario = given(dataset()).once(lambda dataset: dataset.delete(NOW), Dataset.Deleted)
    assert scenario.aggregate.deleted


def test_another_model_serves_when_the_index_is_whole() -> None:
    scenario = given(dataset()).once(
        lambda dataset: dataset.configure(NOW, embedding_model="b"), Dataset.Configured, embedding_model="b"
    )
    known = scenario.aggregate
    assert (known.embedding_model, known.next_embedding_model, known.intended_model) == (None, "b", "b")
    scenario.once(lambda dataset: dataset.reindexed(NOW, embedding_model="b"), Dataset.Reindexed, embedding_model="b")
    assert (known.embedding_model, known.next_embedding_model, known.intended_model) == ("b", None, "b")
    scenario.when(lambda dataset: dataset.configure(NOW, embedding_model="b")).nothing()


def test_the_model_that_was_chosen_last_counts() -> None:
    scenario = given(
        dataset(),
        lambda dataset: dataset.configure(NOW, embedding_model="b"),
        lambda dataset: dataset.configure(NOW, embedding_model="c"),
    )
    scenario.when(lambda dataset: dataset.reindexed(NOW, embedding_model="b")).nothing()
    scenario.when(lambda dataset: dataset.reindexed(NOW, embedding_model="c")).then(Dataset.Reindexed)
    assert scenario.aggregate.embedding_model == "c"


def test_a_deleted_one_is_not_reindexed() -> None:
    given(
        dataset(), lambda dataset: dataset.configure(NOW, embedding_model="b"), lambda dataset: dataset.delete(NOW)
    ).when(lambda dataset: dataset.reindexed(NOW, embedding_model="b")).nothing()


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
        lambda dataset: dataset.configure(NOW, embedding_model="b", segmentation=rules),
        Dataset.Configured,
        Dataset.SegmentationChosen,
    )


def test_is_reprocessed_each_time_it_is_asked_for() -> None:
    def reprocess(dataset: Dataset) -> None:
        dataset.reprocess(NOW)

    given(dataset()).when(reprocess).then(Dataset.Reprocessed).when(reprocess).then(Dataset.Reprocessed)
