"""A query that tests datasets: what it finds is put on record as a retrieval with the same id."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from domain import aggregate
from domain.aggregate import Aggregate
from domain.chat.app import RetrievalSettings


class DatasetQuery(Aggregate):
    TOPIC = "dataset_query"

    class Event(aggregate.Event):
        pass

    class Requested(Event, aggregate.Created):
        """Somebody wants to know what is found for a query in datasets."""

        TOPIC = "dataset_query.requested.v1"
        PERSONAL = frozenset({"query"})
        query: str
        datasets: list[str]
        retrieval: RetrievalSettings

    @classmethod
    def request(cls, id: str, at: datetime, *, query: str, datasets: list[str], retrieval: RetrievalSettings) -> Self:
        return cls._create(cls.Requested, id=id, timestamp=at, query=query, datasets=datasets, retrieval=retrieval)
