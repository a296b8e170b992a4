"""A test query of datasets; its result is the retrieval with the same id."""

from __future__ import annotations

from typing import Annotated

from domain import aggregate
from domain.aggregate import Aggregate
from domain.chat.app import RetrievalSettings


class DatasetQuery(Aggregate):
    TOPIC = "dataset_query"

    class Event(aggregate.Event):
        pass

    class Requested(Event, aggregate.Created):
        """A test query of datasets was requested."""

        TOPIC = "dataset_query.requested.v1"
        PERSONAL = frozenset({"query"})
        query: Annotated[str, "Question."]
        datasets: Annotated[list[str], "Knowledge bases to search."]
        retrieval: Annotated[RetrievalSettings, "Retrieval settings."]
