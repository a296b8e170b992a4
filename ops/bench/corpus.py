"""Corpora of hundreds of thousands of segments, with queries close to some of them and synthetic vectors."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt

from domain.aggregate import new_id
from handlers.ports.documents import Vectors
from handlers.ports.index import Entry
from ops.bench.indexes import OF_DOCUMENT, Documents
from ops.bench.prose import passages
from projections.values.words import words

DIMENSION = 384
TOP_K = 10


class Query(NamedTuple):
    """A query, and its similarity to the tenth nearest segment by exact comparison."""

    text: str
    words: list[str]
    vector: npt.NDArray[np.float32]
    tenth: float


@dataclass(frozen=True, slots=True)
class Corpus:
    """Segments with vectors of shape (n, DIMENSION), and queries made of words of some of them."""

    texts: list[str]
    vectors: Vectors
    queries: list[Query]

    @classmethod
    def made(cls, segments: int, searches: int) -> Corpus:
        texts, dice = passages(segments), random.Random(0)
        projection = Projection([words(text) for text in texts])
        queries = []
        for _ in range(searches):
            spoken = texts[dice.randrange(segments)].split()
            first = dice.randrange(max(1, len(spoken) - 12))
            text = " ".join(spoken[first : first + dice.randint(4, 12)])
            counts = words(text)
            vector = projection.vector(counts)
            nearest = np.partition(projection.vectors @ vector, -min(TOP_K, segments))
            queries.append(Query(text, list(counts), vector, float(nearest[-min(TOP_K, segments)])))
        return cls(texts, projection.vectors, queries)

    def documents(self, part: int, parts: int) -> Documents:
        """Segments of one part of the corpus, in whole documents; positions are those in the corpus."""
        for number, first in enumerate(range(0, len(self.texts), OF_DOCUMENT)):
            if number % parts == part:
                places = range(first, min(first + OF_DOCUMENT, len(self.texts)))
                entries = [Entry(new_id(), at, self.texts[at], None, None, self.vectors[at]) for at in places]
                yield new_id(), entries

    def recall(self, query: Query, hits: Sequence[Any]) -> float:
        """Share of the nearest segments among the hits; equally near segments are interchangeable."""
        near = [hit for hit in hits if self.vectors[hit.entry.position] @ query.vector >= query.tenth - 1e-6]
        return len(near) / min(TOP_K, len(self.texts))


class Projection:
    """Synthetic vectors of texts: the more rare words two texts share, the nearer they are.

    Every word has a vector, drawn with a fixed seed from a space of `LATENT` dimensions plus noise, which is about as
    dense as the vectors of a sentence model; a text has the sum of its words' vectors, weighted by rarity.
    """

    LATENT, NOISE = 40, 0.2
    BUCKETS = 1 << 15

    def __init__(self, counts: Sequence[Counter[str]]) -> None:
        dice = np.random.default_rng(0)
        latent = dice.standard_normal((self.BUCKETS, self.LATENT)) @ dice.standard_normal((self.LATENT, DIMENSION))
        noise = dice.standard_normal((self.BUCKETS, DIMENSION)) * self.NOISE * self.LATENT**0.5
        self._of_word = (latent + noise).astype(np.float32)
        seen = Counter(self._bucket(word) for count in counts for word in count)
        self._rareness = np.zeros(self.BUCKETS, np.float32)
        for bucket, times in seen.items():
            self._rareness[bucket] = np.log(1 + len(counts) / times)
        self.vectors: Vectors = np.stack([self.vector(count) for count in counts])

    def vector(self, counts: Counter[str]) -> npt.NDArray[np.float32]:
        """Unit vector of shape (DIMENSION,)."""
        buckets = [self._bucket(word) for word in counts] or [0]
        often = 1 + np.log(np.fromiter(counts.values() or [1], np.float32))
        found = (often * self._rareness[buckets]) @ self._of_word[buckets]
        length = float(np.linalg.norm(found))
        unit: npt.NDArray[np.float32] = (found / length if length else self._of_word[0]).astype(np.float32)
        return unit

    def _bucket(self, word: str) -> int:
        return crc32(word.encode()) % self.BUCKETS
