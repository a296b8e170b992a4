"""A retrieval: what was found for a question, what the model was given of it, and why not the rest."""

from __future__ import annotations

from datetime import datetime
from typing import Self, TypedDict

from domain import aggregate
from domain.aggregate import Aggregate


class Candidate(TypedDict):
    """A segment that was found; `score` compares within one search only, a rank (from 1) is null in a leg without it.

    `rank` is its final one, null when it was dropped: `deleted`, `below_threshold` or `beyond_top_k` says why.
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
    rank: int | None
    dropped: str | None


class Retrieval(Aggregate):
    TOPIC = "retrieval"

    class Event(aggregate.Event):
        pass

    class Made(Event, aggregate.Created):
        """Segments were looked for in `datasets`, for the `attempt`-th try at `cause_noun` `cause_id` (a message).

        `hits` are all candidates, best first; none, and a `code` with its `reason`, when the search failed.
        """

        TOPIC = "retrieval.made.v1"
        PERSONAL = frozenset({"query", "reason"})
        query: str
        mode: str
        datasets: list[str]
        top_k: int
        score_threshold: float | None
        cause_noun: str
        cause_id: str
        attempt: int
        hits: list[Candidate]
        duration_ms: float
        code: str | None
        reason: str | None

    @classmethod
    def make(
        cls,
        id: str,
        at: datetime,
        *,
        query: str,
        mode: str,
        datasets: list[str],
        top_k: int,
        score_threshold: float | None,
        cause_noun: str,
        cause_id: str,
        attempt: int,
        hits: list[Candidate],
        duration_ms: float,
        code: str | None = None,
        reason: str | None = None,
    ) -> Self:
        return cls._create(
            cls.Made,
            id=id,
            timestamp=at,
            query=query,
            mode=mode,
            datasets=datasets,
            top_k=top_k,
            score_threshold=score_threshold,
            cause_noun=cause_noun,
            cause_id=cause_id,
            attempt=attempt,
            hits=hits,
            duration_ms=duration_ms,
            code=code,
            reason=reason,
        )
