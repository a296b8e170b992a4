"""A retrieval: what was found for a question, what the model was given of it, and why not the rest."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self, TypedDict

from domain import aggregate
from domain.aggregate import Aggregate
from domain.chat.app import MetadataFilter, RetrievalSettings, settings


class Candidate(TypedDict):
    """A segment that was found; `score` compares within one search only, a rank (from 1) is null in a leg without it.

    `fusion_rank` is its place among all that the legs found; `rerank_rank` that by the `rerank_score`, both null where
    no reranker had it. `rank` is the final one, null when it was dropped: `dropped` says why, one of `deleted`,
    `disabled`, `below_threshold`, `duplicate` (its text is that of a better one), `joined` (it is part of what is given
    for a better one) and `beyond_top_k`. The model is given the positions `first` to `last` of the document for it,
    which are null when it was dropped.
    """

    segment: str
    dataset: str
    document: str
    position: int
    page: int | None
    heading: str | None
    score: float
    semantic_rank: int | None
    full_text_rank: int | None
    fusion_rank: int
    rerank_score: float | None
    rerank_rank: int | None
    rank: int | None
    dropped: str | None
    first: int | None
    last: int | None


class Fault(TypedDict):
    """Why a step could not be done, `filter` (a model was to make it) or `rerank`; its call has the reason."""

    step: str
    code: str


class Retrieval(Aggregate):
    TOPIC = "retrieval"

    class Event(aggregate.Event):
        pass

    class Made(Event, aggregate.Created):
        """Segments were looked for in `datasets`, for the `attempt`-th try at `cause_noun` `cause_id`: a message, or
        for a dataset the query that tests it.

        `hits` are all candidates, best first; none, and a `code` with its `reason`, when the search failed. With a
        `filter` so many `documents` were searched, and no others. `faults` are the steps that it had to do without.
        """

        TOPIC = "retrieval.made.v2"
        PERSONAL = frozenset({"query", "reason", "filter"})
        class_version = 2
        query: str
        datasets: list[str]
        retrieval: RetrievalSettings
        filter: MetadataFilter | None
        documents: int | None
        faults: list[Fault]
        cause_noun: str
        cause_id: str
        attempt: int
        hits: list[Candidate]
        duration_ms: float
        code: str | None
        reason: str | None

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            how = {name: state.pop(name) for name in ("mode", "top_k", "score_threshold")}
            state |= {"retrieval": settings(how), "filter": None, "documents": None, "faults": []}
            for number, hit in enumerate(state["hits"], 1):
                given = hit["position"] if hit["rank"] else None
                hit |= {"fusion_rank": number, "rerank_score": None, "rerank_rank": None, "first": given, "last": given}

    @classmethod
    def make(
        cls,
        id: str,
        at: datetime,
        *,
        query: str,
        datasets: list[str],
        retrieval: RetrievalSettings,
        cause_noun: str,
        cause_id: str,
        attempt: int,
        hits: list[Candidate],
        duration_ms: float,
        filter: MetadataFilter | None = None,
        documents: int | None = None,
        faults: list[Fault] | None = None,
        code: str | None = None,
        reason: str | None = None,
    ) -> Self:
        return cls._create(
            cls.Made,
            id=id,
            timestamp=at,
            query=query,
            datasets=datasets,
            retrieval=retrieval,
            filter=filter,
            documents=documents,
            faults=faults or [],
            cause_noun=cause_noun,
            cause_id=cause_id,
            attempt=attempt,
            hits=hits,
            duration_ms=duration_ms,
            code=code,
            reason=reason,
        )
