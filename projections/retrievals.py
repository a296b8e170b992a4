"""Searches and their results: the table `retrievals`."""

from __future__ import annotations

from sqlalchemy import Double, Integer, Text
from sqlalchemy.dialects.postgresql import JSONB

from domain.access.end_user import EndUser
from domain.knowledge.retrieval import Retrieval
from domain.log import Recorded
from projections.engine.columns import Id, Time, key, optional, person, required
from projections.engine.read_model import ReadModel, Row, originator

retrievals = ReadModel(
    "retrievals",
    "Searches for what a question may be answered from. They outlive what they were made for.",
    key("id", "Retrieval."),
    required("cause_noun", Text, "Noun that it was made for: message, or dataset where it tests one."),
    required("cause_id", Id, "Message that it was made for, or its own id where it tests datasets."),
    required("attempt", Integer, "Attempt of the cause, from 1."),
    required("query", Text, "Question; empty when the person was erased."),
    required("mode", Text, "semantic, full_text or hybrid."),
    required("datasets", JSONB, "Ids of the datasets that were searched."),
    optional("weight", Double, "Share of the meaning in a hybrid score; null where ranks were fused."),
    required("top_k", Integer, "Maximum number of segments."),
    optional("score_threshold", Double, "Segments with a lower score were dropped; null when none were for that."),
    required("neighbours", Integer, "Segments before and after each hit that were added to it."),
    optional("rerank", JSONB, "Reranking asked for: provider, model and top_n; null for none."),
    optional("metadata_filter", JSONB, "Conditions on the metadata of documents; null where all were searched."),
    optional("documents", Integer, "Documents that met these conditions; null where all were searched."),
    required(
        "hits", JSONB, "Segments that were found, best first: where they are, their ranks, and why any was dropped."
    ),
    required("faults", JSONB, "Steps that it had to do without, each with its code."),
    required("duration_ms", Double, "Milliseconds that it took."),
    optional("error_code", Text, "Error code; null on success."),
    optional("error", Text, "Error message; null on success."),
    required("correlation_id", Id, "Command that began the chain of causes that it belongs to: its trace, in traces."),
    person(),
    required("created_at", Time, "When it ended."),
)
retrievals.looked_up("cause_id")
retrievals.looked_up("correlation_id")
retrievals.sets(EndUser.Erased, {"query": "", "metadata_filter": None, "error": None}, column="person_id")


@retrievals.makes(Retrieval.Made, new=originator)
def made(event: Retrieval.Made, message: Recorded) -> Row:
    return {
        "id": event.originator_id,
        "cause_noun": event.cause_noun,
        "cause_id": event.cause_id,
        "attempt": event.attempt,
        "query": event.query,
        "mode": event.retrieval["mode"],
        "datasets": event.datasets,
        "weight": event.retrieval["weight"],
        "top_k": event.retrieval["top_k"],
        "score_threshold": event.retrieval["score_threshold"],
        "neighbours": event.retrieval["neighbours"],
        "rerank": event.retrieval["rerank"],
        "metadata_filter": event.filter,
        "documents": event.documents,
        "hits": event.hits,
        "faults": event.faults,
        "duration_ms": event.duration_ms,
        "error_code": event.code,
        "error": event.reason,
        "correlation_id": message.metadata.correlation,
        "person_id": message.metadata.person,
    }
