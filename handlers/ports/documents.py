"""Ports of ingest: extractors, segmenters, embedding models, and the documents of the read tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from domain.chat.app import Condition
from domain.knowledge.segmentation import AUTOMATIC, Segmentation
from domain.knowledge.segments import Segment

if TYPE_CHECKING:  # most roles hold no vectors
    import numpy as np
    import numpy.typing as npt

Vectors: TypeAlias = "npt.NDArray[np.float32]"
"""One row per text, L2-normalised, shape (n, dimension)."""


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, list item, heading or table row of an extracted text, with its place: `page` counts from 1,
    `heading` is the path of headings above it joined by ` › `."""

    text: str
    page: int | None = None
    heading: str | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """The text extracted from a file; `pages` is None for a format without pages, `warnings` name what was guessed or
    left out."""

    blocks: list[Block]
    pages: int | None
    title: str | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def characters(self) -> int:
        return sum(len(block.text) for block in self.blocks)


class Unreadable(Exception):
    """No text can be extracted from the file: `code` is for programs, the message for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Extractor(Protocol):
    async def extract(self, tenant: str, data: bytes, media_type: str, name: str) -> Text:
        """Extract in a contained process, which has read no other tenant's files, within time and memory limits.

        Raises: Unreadable (`unsupported_type`, `empty_file`, `broken_file`, `encrypted_file`, `no_text`, `too_slow`,
        `too_large`); Unavailable.
        """
        ...


class Segmenter(Protocol):
    model: str
    """The identity of the embedding model whose tokens are counted."""

    async def segment(self, tenant: str, text: Text, rules: Segmentation = AUTOMATIC) -> list[Segment]:
        """Split by these rules into segments of at most 254 tokens, and parents, which come before their children.

        Only white space is lost, and what the rules remove: separators, cleaned up text, text that is neither question
        nor answer. It is done as `Extractor.extract`. Raises: Unreadable (`no_questions`, `broken_file`, `too_slow`,
        `too_large`); Unavailable.
        """
        ...

    def tokenize(self, text: str) -> list[int]:
        """The token ids of a query, including special ones, truncated to the model's longest input."""
        ...

    def known(self, text: str) -> float:
        """The share of the tokens of a query that the model knows, 0 to 1: the vector of unknown ones says nothing."""
        ...


class Embedder(Protocol):
    @property
    def identity(self) -> str:
        """Model, backend and number type: vectors of different identities are not comparable."""
        ...

    @property
    def dimension(self) -> int: ...

    async def embed(self, token_ids: Sequence[Sequence[int]], *, tenant: str = "", urgent: bool = False) -> Vectors:
        """Vectors of tokenised texts, shape (n, dimension).

        Tenants take turns, and `urgent` questions overtake documents. Raises: Unavailable.
        """
        ...


class Embedding(NamedTuple):
    """An embedding model of the workers: its segmenter and its embedder."""

    segmenter: Segmenter
    embedder: Embedder


class EmbeddingModels(Protocol):
    """The embedding models of the workers."""

    default: str
    """The model of datasets without a choice of their own."""

    @property
    def segmenter(self) -> Segmenter:
        """The one of the default model, whether or not a service runs that."""
        ...

    async def get(self, name: str) -> Embedding:
        """The model of this name, with known identity and dimension.

        Raises: Unavailable when it is not configured, or no service runs it.
        """
        ...


class Documents(Protocol):
    """Documents of the read tables, which follow the log within milliseconds."""

    async def matching(
        self, tenant: str, datasets: Sequence[str], conditions: Sequence[Condition], *, logical_operator: str
    ) -> list[str]:
        """The ids of the documents of these datasets whose metadata meets all conditions (`and`) or one (`or`).

        A value is compared by its type; a missing one, or one of another type, meets `empty` only.
        Raises: Unavailable.
        """
        ...

    async def of(self, tenant: str, dataset: str, sequence: int) -> list[str]:
        """The ids of a dataset's documents, including all that were uploaded up to this sequence of `EVENTS`.

        Raises: Unavailable, also when the tables do not reach it in time.
        """
        ...


Digest = bytes
"""The SHA-256 of the embedded token ids, little-endian int32, or of the characters, in UTF-8."""


class EmbeddingCache(Protocol):
    """Cached vectors per tenant, in half precision; lost ones are computed again."""

    async def get(self, tenant: str, identity: str, digests: Sequence[Digest]) -> dict[Digest, npt.NDArray[np.float32]]:
        """The cached vectors of a model with this identity. Raises: Unavailable."""
        ...

    async def put(self, tenant: str, identity: str, vectors: Mapping[Digest, npt.NDArray[np.float32]]) -> None:
        """Raises: Unavailable."""
        ...
