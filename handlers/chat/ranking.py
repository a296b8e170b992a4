"""Ranks passages by the words that they share with a question."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from handlers.chat.questions import weights
from handlers.chat.terms import terms

K1, B = 1.2, 0.75
"""Parameters of BM25: saturation of repeated terms, and normalisation by length."""


def ranked(question: str, passages: Sequence[str]) -> list[int]:
    """The numbers of the passages by their score in BM25, the best first; equal ones in their order."""
    asked = weights(question)
    found, lengths, frequency = list[dict[str, int]](), list[int](), Counter[str]()
    for passage in passages:
        words = terms(passage)
        counts = Counter(word for word in words if word in asked)
        found.append(counts)
        lengths.append(len(words))
        frequency.update(counts.keys())
    mean = sum(lengths) / max(len(lengths), 1) or 1.0
    rarity = {
        term: weight * math.log(1 + (len(passages) - frequency[term] + 0.5) / (frequency[term] + 0.5))
        for term, weight in asked.items()
    }

    def score(number: int) -> float:
        norm = K1 * (1 - B + B * lengths[number] / mean)
        return sum(rarity[term] * count * (K1 + 1) / (count + norm) for term, count in found[number].items())

    return sorted(range(len(passages)), key=lambda number: (-score(number), number))
