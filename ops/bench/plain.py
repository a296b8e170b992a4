"""Plain BM25 over whole documents: the baseline of full text search."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from snowballstemmer import stemmer  # type: ignore[import-untyped]

K1, B = 1.2, 0.75

STOP_WORDS = frozenset(
    (
        *("a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it", "no", "not"),
        *("of", "on", "or", "such", "that", "the", "their", "then", "there", "these", "they"),
        *("this", "to", "was", "will", "with"),
    )
)
"""The usual English stop words: those of Lucene."""


class PlainBM25:
    """Lucene's formula, with stems of words of two characters or more. A word that a query repeats counts as often."""

    def __init__(self, documents: Mapping[str, str]) -> None:
        self._ids = list(documents)
        self._stem = stemmer("english").stemWords
        counts = [self._words(text) for text in documents.values()]
        lengths = np.array([of.total() for of in counts], float)
        self._norms = K1 * (1 - B + B * lengths / (lengths.mean() or 1))
        self._postings: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for place, of in enumerate(counts):
            for word, frequency in of.items():
                self._postings[word].append((place, frequency))

    def _words(self, text: str) -> Counter[str]:
        return Counter(self._stem([word for word in re.findall(r"\b\w\w+\b", text.lower()) if word not in STOP_WORDS]))

    def search(self, query: str, depth: int) -> Sequence[str]:
        """Ids of the best documents, best first; only those with a word of the query."""
        scores = np.zeros(len(self._ids))
        for word, times in self._words(query).items():
            if postings := self._postings.get(word):
                places, frequencies = np.array(postings).T
                idf = math.log(1 + (len(self._ids) - len(postings) + 0.5) / (len(postings) + 0.5))
                scores[places] += times * idf * frequencies / (frequencies + self._norms[places])
        best = np.argsort(-scores, kind="stable")[:depth]
        return [self._ids[place] for place in best if scores[place] > 0]
