"""A dataset: a knowledge base, the documents that questions are answered from."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from domain import aggregate
from domain.aggregate import Aggregate


class Dataset(Aggregate):
    TOPIC = "dataset"

    class Event(aggregate.Event):
        pass

    class Created(Event, aggregate.Created):
        """A knowledge base was created, empty."""

        TOPIC = "dataset.created.v1"
        name: str
        description: str

    class Deleted(Event):
        """The knowledge base and all of its documents are gone from tables and index."""

        TOPIC = "dataset.deleted.v1"

        def apply(self, dataset: Dataset) -> None:
            dataset.deleted = True

    @classmethod
    def create(cls, id: str, at: datetime, *, name: str, description: str) -> Self:
        return cls._create(cls.Created, id=id, timestamp=at, name=name, description=description)

    def delete(self, at: datetime) -> None:
        if not self.deleted:
            self.record(self.Deleted, at)
