"""A retrieval: the segments found for a question, those given to the model, and why not the others."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, TypedDict

from domain import aggregate
from domain.aggregate import Aggregate
from domain.chat.app import MetadataFilter, RetrievalSettings, settings


class Candidate(TypedDict):
    """A segment that was found."""

    segment: Annotated[str, "Segment."]
    dataset: Annotated[str, "Knowledge base of the segment."]
    document: Annotated[str, "Document of the segment."]
    position: Annotated[int, "Position of the segment in the document, from 0."]
    page: Annotated[int | None, "Page, from 1; null where the format has none."]
    heading: Annotated[
        str | None,
        "Headings above the segment, outermost first; null for none, and in a document that a user uploaded.",
    ]
    score: Annotated[float, "Score, comparable within one search only."]
    semantic_rank: Annotated[int | None, "Rank by meaning, from 1; null where that search did not find it."]
    full_text_rank: Annotated[int | None, "Rank by words, from 1; null where that search did not find it."]
    fusion_rank: Annotated[int, "Rank among the hits of all searches, from 1."]
    rerank_score: Annotated[float | None, "Score by the reranker; null where it was not reranked."]
    rerank_rank: Annotated[int | None, "Rank by that score, from 1."]
    rank: Annotated[int | None, "Final rank, from 1; null when dropped."]
    dropped: Annotated[
        str | None,
        "Reason for dropping it: `deleted`, `disabled`, `below_threshold`, `duplicate` (a better hit has the same "
        "text), `joined` (part of what is given for a better hit) or `beyond_top_k`; null when it was not dropped.",
    ]
    first: Annotated[int | None, "First position of the document given to the model for it; null when dropped."]
    last: Annotated[int | None, "Last position of the document given to the model for it; null when dropped."]


class Fault(TypedDict):
    """A step that failed, without which the retrieval went on."""

    step: Annotated[str, "`filter` or `rerank`."]
    code: Annotated[str, "Error code; the model call has the message."]


class Retrieval(Aggregate):
    TOPIC = "retrieval"

    class Event(aggregate.Event):
        pass

    class Made(Event, aggregate.Created):
        """Knowledge bases were searched for a message, or for a test query."""

        TOPIC = "retrieval.made.v2"
        PERSONAL = frozenset({"query", "reason", "filter"})
        PACKED = frozenset({"hits"})
        class_version = 2
        query: Annotated[str, "Question."]
        datasets: Annotated[list[str], "Knowledge bases that were searched."]
        retrieval: Annotated[RetrievalSettings, "Retrieval settings."]
        cause_noun: Annotated[str, "Purpose of the search: `message`, or `dataset` for a test query."]
        cause_id: Annotated[str, "Id of that message or query."]
        attempt: Annotated[int, "Attempt at its purpose, from 1."]
        hits: Annotated[list[Candidate], "All hits, best first; none when the search failed."]
        duration_ms: Annotated[float, "Duration in milliseconds."]
        filter: Annotated[MetadataFilter | None, "Filter that selected the documents; null when all were searched."] = (
            None
        )
        documents: Annotated[int | None, "Number of documents that passed the filter; null without one."] = None
        faults: Annotated[list[Fault], "Steps that failed, without which the retrieval went on."] = field(
            default_factory=list
        )
        code: Annotated[str | None, "Error code, `unreachable` or `internal_error`; null on success."] = None
        reason: Annotated[str | None, "Error message; null on success."] = None

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            how = {name: state.pop(name) for name in ("mode", "top_k", "score_threshold")}
            state |= {"retrieval": settings(how), "filter": None, "documents": None, "faults": []}
            for number, hit in enumerate(state["hits"], 1):
                given = hit["position"] if hit["rank"] else None
                hit |= {"fusion_rank": number, "rerank_score": None, "rerank_rank": None, "first": given, "last": given}
