"""Ports of the search index."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from handlers.ports.log import Unavailable
from handlers.ports.models import ModelError

if TYPE_CHECKING:  # most roles hold no vectors
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Entry:
    """A segment as the index keeps it; `id` is the segment's.

    One without a vector is never found, neither by words nor by vector: the model is given the entry at position
    `parent`, of the same revision of the document, in place of a found one. With an `answer` the content is the
    question, and only that is matched. Searches and `texts` return entries without their vectors.
    """

    id: str
    position: int
    content: str
    page: int | None = None
    heading: str | None = None
    vector: npt.NDArray[np.float32] | None = None
    parent: int | None = None
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """An entry that was found; `score` is comparable within one search only; a rank (from 1) is None in a subquery that
    did not find it. It is `personal` where an end user uploaded the document: its words are that person's."""

    dataset: str
    document: str
    entry: Entry
    score: float
    semantic_rank: int | None = None
    full_text_rank: int | None = None
    personal: bool = False

    @property
    def id(self) -> str:
        """The segment's id."""
        return self.entry.id

    @property
    def is_of_file(self) -> bool:
        """True for a segment of a file of a question, which is in no dataset: `document` is the file."""
        return not self.dataset


class Span(NamedTuple):
    """A document's positions from `first` to `last`, both included."""

    dataset: str
    document: str
    first: int
    last: int

    def holds(self, dataset: str, document: str, entry: Entry) -> bool:
        return (dataset, document) == self[:2] and self.first <= entry.position <= self.last


Mode = Literal["hybrid", "semantic", "full_text"]


class Moved(Unavailable):
    """A dataset is not searched with this embedding model (any more): the work must start over with the other one."""


def changed(model: str, had: int, given: int) -> ModelError:
    """The error of an embedding model whose vectors have another length than those before."""
    return ModelError(
        "embedding_changed",
        f"The embedding model {model} gives vectors of {given:,} numbers, and those before have {had:,}: its "
        "server runs another model now. Let it run the one before, choose another embedding model, or have the index "
        "of the knowledge base rebuilt.",
    )


def too_long(given: int, most: int) -> ModelError:
    """The error of vectors that the index does not take."""
    return ModelError("unsupported", f"The index takes vectors of at most {most:,} numbers, and these have {given:,}.")


class Index(Protocol):
    """Versions of segments, words and vectors, each for the vectors of one embedding model.

    A dataset is searched in one of them, that of its first write, until a build moves it into another.

    `version` is the sequence in `EVENTS` of the cause of a change. Late and repeated changes undo nothing: a write or
    removal leaves an entry alone whose last write or removal is newer.
    """

    async def models(self, tenant: str, datasets: Sequence[str]) -> dict[str, str]:
        """The embedding model that each dataset is searched with, without datasets that nothing was written of.

        Raises: Unavailable.
        """
        ...

    async def dimension(self, tenant: str, dataset: str) -> int | None:
        """The length of the vectors that a dataset is searched with; None where nothing was written of it.

        Raises: Unavailable.
        """
        ...

    async def write(
        self, tenant: str, dataset: str, document: str, entries: Sequence[Entry], *, model: str, version: int
    ) -> None:
        """Write entries in place of those with the same ids; they can be found when this returns.

        Does nothing for a document or dataset that was deleted, whichever came first. Raises: Moved; ModelError
        `embedding_changed` for vectors of another length than those of the dataset, `unsupported` for vectors that are
        too long; Unavailable.
        """
        ...

    async def remove(self, tenant: str, dataset: str, document: str, ids: Sequence[str], *, version: int) -> None:
        """Remove entries from every version, until a write that is not older brings them back.

        Raises: Unavailable.
        """
        ...

    async def delete(self, tenant: str, dataset: str, document: str | None = None, *, version: int) -> None:
        """Remove a document, or all of a dataset, from every version for good: later writes of it are ignored.

        Raises: Unavailable.
        """
        ...

    async def search(
        self,
        tenant: str,
        datasets: Sequence[str],
        query: str,
        vector: npt.NDArray[np.float32] | None,
        *,
        model: str,
        mode: Mode,
        top_k: int,
        weight: float | None = None,
        documents: Sequence[str] | None = None,
    ) -> list[Hit]:
        """The hits, best first, only of these documents if any are given; `vector` (shape (dimension,)) may be None in
        mode `full_text`.

        Mode `hybrid` ranks by reciprocal rank fusion (k = 60), or with a `weight` from 0 to 1 by
        weight · cosine + (1 - weight) · BM25 / best BM25: the cosine is that of every segment that either subquery
        found, BM25 is 0 for segments that the full text subquery did not find. With a weight, segments that hold every
        rare word of the query are among the first three: every word that is in three of the searched segments at most,
        if one has a digit, or together they have a tenth of the weight of the query's words.

        Except in mode `semantic`, segments that hold all quoted phrases of the query come before all others.
        Raises: Moved; ModelError `embedding_changed` for a vector of another length than those of a dataset;
        Unavailable.
        """
        ...

    async def texts(self, tenant: str, wanted: Sequence[Span]) -> list[list[Entry]]:
        """The entries in each of these spans, by position and id. Raises: Unavailable."""
        ...

    def contents(self) -> AsyncGenerator[list[tuple[str, str, str]]]:
        """Every entry, with or without vector, as tenant, dataset and id, in this order, some thousands at a time.

        They are of one point in time. Raises: Unavailable.
        """
        ...

    def build(self, tenant: str | None = None, dataset: str | None = None) -> AbstractAsyncContextManager[Build]:
        """Rebuild all, or one dataset, while the current versions are searched; concurrent builds wait for their turn.

        Raises: Unavailable.
        """
        ...


class Build(Protocol):
    """New versions of an index, not searched before they are swapped in. Every method raises: Unavailable."""

    id: str
    attempt: int
    """Counts from 1; 0 before `begin`."""
    reached: int
    """The sequence of the log up to which the build is complete."""

    async def searched(self) -> str | None:
        """The model that the dataset is searched with now."""
        ...

    async def begin(self, plan: str, end: int) -> None:
        """Resume an interrupted build with the same plan (of models), if the log, which ends with sequence `end`, holds
        everything in it; else start from nothing."""
        ...

    async def open(self, model: str, dimension: int) -> None:
        """Make the version for this model unless it is there.

        Raises: ModelError `embedding_changed` where it is there for vectors of another length; `unsupported`, as
        `Index.write`.
        """
        ...

    async def write(
        self,
        tenant: str,
        dataset: str,
        document: str,
        entries: Sequence[Entry],
        *,
        model: str,
        version: int,
    ) -> None:
        """As `Index.write`, into the version for this model."""
        ...

    async def remove(self, tenant: str, dataset: str, document: str, ids: Sequence[str], *, version: int) -> None:
        """As the index does, also while the swap holds up writers."""
        ...

    async def delete(self, tenant: str, dataset: str, document: str | None = None, *, version: int) -> None:
        """As the index does, also while the swap holds up writers."""
        ...

    async def forbid(self, deleted: Sequence[tuple[str, str, str | None]]) -> None:
        """Ignore writes of these (tenant, dataset, and document or None for all of it) from now on."""
        ...

    async def reach(self, sequence: int, goal: int) -> None:
        """Record that the build is complete up to this sequence of the log, of `goal`."""
        ...

    async def complete(self) -> None:
        """Do the work that is faster once most entries are in."""
        ...

    def swap(self, *, keep_old: bool = False) -> AbstractAsyncContextManager[None]:
        """Hold up writers, and at the end replace the searched versions by those that were built.

        Versions that are not searched any more are dropped, unless `keep_old`. An error leaves everything unchanged.
        """
        ...
