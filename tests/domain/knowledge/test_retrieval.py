from __future__ import annotations

from domain.aggregate import new_id
from domain.chat.app import settings
from domain.knowledge.retrieval import Candidate, Retrieval
from tests.domain.scenario import NOW, made

CANDIDATE = Candidate(
    segment=new_id(),
    dataset=new_id(),
    document=new_id(),
    position=4,
    page=None,
    heading="Rules > Water",
    score=0.8,
    semantic_rank=1,
    full_text_rank=None,
    fusion_rank=1,
    rerank_score=None,
    rerank_rank=None,
    rank=None,
    dropped="deleted",
    first=None,
    last=None,
)
MADE = {
    "query": "When?",
    "datasets": [new_id()],
    "retrieval": settings({"mode": "hybrid", "top_k": 4, "score_threshold": None}),
    "cause_noun": "message",
    "cause_id": new_id(),
    "attempt": 2,
    "hits": [CANDIDATE],
    "duration_ms": 8.5,
}


def test_is_recorded_with_all_that_was_found() -> None:
    retrieval = Retrieval.begin(Retrieval.Made, new_id(), NOW, **MADE)  # type: ignore[arg-type]
    made(retrieval).then(Retrieval.Made).whole(**MADE, filter=None, documents=None, faults=[], code=None, reason=None)
