"""A dataset: a knowledge base, the documents that questions are answered from.

It is searched with one embedding model. When another is chosen, that one serves until the index is built anew.
"""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from typing import Self

from domain import aggregate
from domain.aggregate import Aggregate


class Dataset(Aggregate):
    TOPIC = "dataset"
    embedding_model: str | None = field(default=None, init=False)
    next_embedding_model: str | None = field(default=None, init=False)

    class Event(aggregate.Event):
        pass

    class Created(Event, aggregate.Created):
        """A knowledge base was created, empty."""

        TOPIC = "dataset.created.v1"
        name: str
        description: str

    class Configured(Event):
        """Another embedding model was chosen; it serves once the index has been built anew with it."""

        TOPIC = "dataset.configured.v1"
        embedding_model: str

        def apply(self, dataset: Dataset) -> None:
            dataset.next_embedding_model = self.embedding_model

    class Reindexed(Event):
        """The whole index of the knowledge base is of this embedding model; it serves from now on."""

        TOPIC = "dataset.reindexed.v1"
        embedding_model: str

        def apply(self, dataset: Dataset) -> None:
            dataset.embedding_model = self.embedding_model
            dataset.next_embedding_model = None

    class Deleted(Event):
        """The knowledge base and all of its documents are gone from tables and index."""

        TOPIC = "dataset.deleted.v1"

        def apply(self, dataset: Dataset) -> None:
            dataset.deleted = True

    @classmethod
    def create(cls, id: str, at: datetime, *, name: str, description: str) -> Self:
        return cls._create(cls.Created, id=id, timestamp=at, name=name, description=description)

    @property
    def intended_model(self) -> str | None:
        """The embedding model that was chosen last, None when nobody has chosen one."""
        return self.next_embedding_model or self.embedding_model

    def configure(self, at: datetime, *, embedding_model: str) -> None:
        if embedding_model != self.intended_model:
            self.record(self.Configured, at, embedding_model=embedding_model)

    def reindexed(self, at: datetime, *, embedding_model: str) -> None:
        """It counts only if no other model was chosen meanwhile."""
        if embedding_model == self.next_embedding_model and not self.deleted:
            self.record(self.Reindexed, at, embedding_model=embedding_model)

    def delete(self, at: datetime) -> None:
        if not self.deleted:
            self.record(self.Deleted, at)
