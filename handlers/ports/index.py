"""Ports of the search index."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from handlers.ports.log import Unavailable


@dataclass(frozen=True, slots=True)
class Entry:
    """A segment as the index keeps it; `id` is the segment's.

    One without a vector is kept but never found, neither by words nor by vector: what `parent`, the position in the
    same cut of the document, names is given to the model in place of what was found. With an `answer` the content is
    the question, and only that is matched.
    """

    id: str
    position: int
    content: str
    page: int | None
    heading: str | None
    vector: npt.NDArray[np.float32] | None
    parent: int | None = None
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """A segment that was found; `score` is comparable within one search only; a rank (from 1) is None in a leg that
    did not find it."""

    id: str
    dataset: str
    document: str
    position: int
    content: str
    page: int | None
    heading: str | None
    score: float
    semantic_rank: int | None
    full_text_rank: int | None
    parent: int | None = None
    answer: str | None = None


class Span(NamedTuple):
    """A document's positions from `first` to `last`, both included."""

    dataset: str
    document: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A segment as the index has it, whether or not a search can find it."""

    id: str
    dataset: str
    document: str
    position: int
    content: str
    page: int | None
    heading: str | None
    answer: str | None


Mode = Literal["hybrid", "semantic", "full_text"]


class Moved(Unavailable):
    """A dataset is not, or no longer, searched with this embedding model: the work is to begin with the other one."""


class Index(Protocol):
    """Versions of segments, words and vectors, each for the vectors of one embedding model.

    A dataset is searched in one of them, that of its first write, until a build moves it into another.

    `version` is the sequence in `EVENTS` of what caused a change. Late and repeated changes undo nothing: an entry is
    left as it is by a write or removal that is older than what last wrote or removed it.
    """

    async def models(self, tenant: str, datasets: Sequence[str]) -> dict[str, str]:
        """The embedding model that each dataset is searched with; those are left out that nothing was written of.

        Raises: Unavailable.
        """
        ...

    async def write(
        self, tenant: str, dataset: str, document: str, entries: Sequence[Entry], *, model: str, version: int
    ) -> None:
        """Put entries in, replacing those of the same id; they can be found when this returns.

        Does nothing for a document or dataset that was deleted, whichever came first. Raises: Moved, Unavailable.
        """
        ...

    async def remove(self, tenant: str, dataset: str, document: str, ids: Sequence[str], *, version: int) -> None:
        """Take entries out, of every version, until a write that is not older brings them back.

        Raises: Unavailable.
        """
        ...

    async def delete(self, tenant: str, dataset: str, document: str | None = None, *, version: int) -> None:
        """Take a document, or all of a dataset, out for good, of every version: later writes of it are ignored.

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
        """The best hits first, only of these documents if some are given; `vector` (shape (dimension,)) may be None in
        mode `full_text`.

        Mode `hybrid` ranks by reciprocal rank fusion (k = 60), or with a `weight` from 0 to 1 by
        weight · cosine + (1 - weight) · BM25 / best BM25: the cosine is that of every segment that either leg found,
        BM25 is 0 for what the full text leg did not find. Raises: Moved, Unavailable.
        """
        ...

    async def texts(self, tenant: str, wanted: Sequence[Span]) -> list[Kept]:
        """The entries in these places, by dataset, document, position and id; each once. Raises: Unavailable."""
        ...

    def contents(self) -> AsyncGenerator[list[tuple[str, str, str]]]:
        """Every entry, as tenant, dataset and id, in this order, some thousands at a time; without a vector as well.

        All as they were at one moment. Raises: Unavailable.
        """
        ...

    def build(self, tenant: str | None = None, dataset: str | None = None) -> AbstractAsyncContextManager[Build]:
        """Build all anew, or one dataset, beside what is searched; one does so at a time, others wait for their turn.

        Raises: Unavailable.
        """
        ...


class Build(Protocol):
    """New versions of an index, which nobody searches before they are swapped in. Every method raises: Unavailable."""

    id: str
    attempt: int
    """Counts from 1."""
    reached: int
    """The sequence of the log up to which all is in."""

    async def searched(self) -> str | None:
        """The model that the dataset is searched with now."""
        ...

    async def begin(self, plan: str, end: int) -> None:
        """Go on with what was broken off, if it followed the same plan (of models) and the log, which ends with
        sequence `end`, has all that it has; else begin from nothing."""
        ...

    async def open(self, model: str, dimension: int) -> None:
        """Make the version for this model, unless it is there."""
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
        """As the index does, into the version for this model."""
        ...

    async def remove(self, tenant: str, dataset: str, document: str, ids: Sequence[str], *, version: int) -> None:
        """As the index does, also while the swap holds writers up."""
        ...

    async def delete(self, tenant: str, dataset: str, document: str | None = None, *, version: int) -> None:
        """As the index does, also while the swap holds writers up."""
        ...

    async def bury(self, deleted: Sequence[tuple[str, str, str | None]]) -> None:
        """Ignore writes of these (tenant, dataset, and document or None for all of it) from now on."""
        ...

    async def reach(self, sequence: int, goal: int) -> None:
        """Note that all up to this sequence of the log is in, of `goal`."""
        ...

    async def complete(self) -> None:
        """Do what is quicker done when most is in."""
        ...

    def swap(self, *, keep_old: bool = False) -> AbstractAsyncContextManager[None]:
        """Nothing is written elsewhere meanwhile; at the end what was built takes the place of what was searched.

        What nobody searches any more is dropped, unless it is to be kept. An error leaves all as it was.
        """
        ...
