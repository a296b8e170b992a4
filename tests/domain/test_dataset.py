from __future__ import annotations

from domain.aggregate import new_id
from domain.dataset import Dataset
from tests.domain.scenario import NOW, given, made


def dataset() -> Dataset:
    return Dataset.create(new_id(), NOW, name="Handbook", description="What everyone asks")


def test_is_created_empty() -> None:
    made(dataset()).then(Dataset.Created).whole(name="Handbook", description="What everyone asks")
    assert not dataset().deleted


def test_is_deleted_once() -> None:
    scenario = given(dataset()).once(lambda dataset: dataset.delete(NOW), Dataset.Deleted)
    assert scenario.aggregate.deleted
