"""Fusion of the two subqueries of a search."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from adapters.index.opensearch.segments import Found
from adapters.index.versions.store import RARE

SPARE = 50
"""Extra hits of a subquery, since some may be deleted between being found and being read."""

RRF = 60


def by_rank(*subqueries: Sequence[Found]) -> dict[str, float]:
    """Scores by reciprocal rank fusion, by `_id`."""
    scores: dict[str, float] = defaultdict(float)
    for found in subqueries:
        for rank, it in enumerate(found, 1):
            scores[it.key] += 1 / (RRF + rank)
    return scores


def by_weight(
    share: float, products: dict[str, float], full_text: Sequence[Found], exact: Sequence[Found]
) -> dict[str, float]:
    """Weighted sums of inner products and of BM25 as a share of the best, by `_id`; the `exact` are among the first
    `RARE`.
    """
    best = full_text[0].score if full_text else 1.0
    worded = {it.key: it.score / best for it in full_text}
    scores = {
        key: share * products.get(key, 0.0) + (1 - share) * worded.get(key, 0.0) for key in products.keys() | worded
    }
    first = {it.key for it in exact}
    others = sorted((score for key, score in scores.items() if key not in first), reverse=True)
    for level in others[RARE - len(first) :][:1]:
        scores |= {key: max(scores[key], level + (2 + scores[key]) * 1e-9) for key in first}
    return scores
