"""Ranking metrics against human judgements, with confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000
AT_ONCE = 1_000_000
"""Values drawn at once; this bounds memory."""

Grades = Mapping[str, int]
"""Grades by document id; missing is 0, above 0 is relevant."""


class Interval(NamedTuple):
    """A mean with its 95 % bootstrap interval over queries."""

    mean: float
    low: float
    high: float


def ndcg(ranking: Sequence[str], grades: Grades, depth: int = 10) -> float:
    """Normalised discounted cumulative gain: grades divided by log2(1 + rank), relative to the ideal ranking; same as
    `ndcg_cut` of trec_eval. 0 when nothing is relevant."""
    best = _gain(sorted(grades.values(), reverse=True)[:depth])
    return _gain([grades.get(document, 0) for document in ranking[:depth]]) / best if best else 0.0


def ndcg_exponential(ranking: Sequence[str], grades: Grades, depth: int = 10) -> float:
    """As `ndcg`, with the gain 2^grade - 1. Equal to it if all relevant documents have grade 1."""
    return ndcg(ranking, {document: 2 ** max(grade, 0) - 1 for document, grade in grades.items()}, depth)


def _gain(grades: Sequence[int]) -> float:
    return sum(max(grade, 0) / math.log2(rank + 1) for rank, grade in enumerate(grades, 1))


def recall(ranking: Sequence[str], grades: Grades, depth: int) -> float:
    """Share of the relevant documents among the first `depth`."""
    relevant = {document for document, grade in grades.items() if grade > 0}
    return len(relevant.intersection(ranking[:depth])) / len(relevant) if relevant else 0.0


def reciprocal_rank(ranking: Sequence[str], grades: Grades, depth: int = 10) -> float:
    """1 / rank of the first relevant document; 0 when it is not among the first `depth`."""
    ranks = (rank for rank, document in enumerate(ranking[:depth], 1) if grades.get(document, 0) > 0)
    return next((1 / rank for rank in ranks), 0.0)


def interval(values: Sequence[float], seed: int = 0) -> Interval:
    """Mean with its 95 % bootstrap interval; equal for equal seeds."""
    dice, known = np.random.default_rng(seed), np.asarray(values)
    rows = max(1, AT_ONCE // len(known))
    means = [
        known[dice.integers(0, len(known), (min(rows, RESAMPLES - done), len(known)))].mean(axis=1)
        for done in range(0, RESAMPLES, rows)
    ]
    low, high = np.percentile(np.concatenate(means), (2.5, 97.5))
    return Interval(float(known.mean()), float(low), float(high))


def difference(values: Sequence[float], others: Sequence[float], seed: int = 0) -> Interval:
    """Interval of the difference to other values of the same queries, paired by query."""
    return interval([value - other for value, other in zip(values, others, strict=True)], seed)
