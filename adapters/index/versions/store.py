"""The store of an index: it keeps the entries of the versions, and searches them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from adapters.index.versions.database import Connection, Cursor, Database
from adapters.index.versions.schema import Schema, Scope
from handlers.ports.index import Entry, Hit, Mode, Span

CANDIDATES = 100
"""Minimum of hits that each subquery of a search brings to the fusion, so that a larger `top_k` does not change the
first hits."""


RARE = 3
"""Maximum number of searched segments that hold a rare word."""

DECISIVE = 0.1
"""Minimum share of the weight of a query's words that its rare words must have to decide: among the words of a long
question some are rare by chance. Those with digits always decide."""


@dataclass(frozen=True, slots=True)
class Question:
    """A search for words, for what is near a vector, or both; never for nothing. A `weight` is of mode `hybrid`.

    `words` are those of the query, with the number of times that it repeats them; `held` are those that every hit must
    hold.
    """

    tenant: str
    words: Mapping[str, int]
    vector: npt.NDArray[np.float32] | None
    mode: Mode
    weight: float | None
    documents: Sequence[str] | None
    top_k: int
    held: Sequence[str] = ()


class Placed(NamedTuple):
    """An entry with its dataset and document."""

    dataset: str
    document: str
    entry: Entry


class Prepared(Protocol):
    @property
    def dimension(self) -> int | None:
        """Dimension of the vectors, None without vectors."""
        ...


P = TypeVar("P", bound=Prepared)


class Store(Protocol[P]):
    """Versions by their numbers. A cursor is that of the transaction in which the rows that lead here change.

    Every method raises: Unavailable.
    """

    schema: Schema
    longest: int
    """Maximum dimension of a vector."""

    async def configure(self, connection: Connection) -> None:
        """Prepare a connection of the pool for searches."""
        ...

    # --- versions ------------------------------------------------------------------------------------------------

    def holding(self, number: int) -> str:
        """The query for the tenant and dataset of everything in a version."""
        ...

    async def make(self, cursor: Cursor, number: int, dimension: int, *, live: bool) -> None:
        """Make an empty version; one that is not live is loaded, and then finished."""
        ...

    async def finish(self, cursor: Cursor, number: int) -> None:
        """Make a loaded version fit to be searched, unless it is."""
        ...

    async def complete(self, connection: Connection, number: int) -> None:
        """Do the work that is faster once most entries are in."""
        ...

    async def drop(self, cursor: Cursor, numbers: Sequence[int]) -> None:
        """Drop these, which are no versions any more, and whatever else belongs to none."""
        ...

    async def point(self, cursor: Cursor) -> None:
        """Show people the searched entries under one name."""
        ...

    async def counts(self, cursor: Cursor, numbers: Sequence[int]) -> dict[int, int]:
        """The number of entries in each version that can be found."""
        ...

    # --- changes -------------------------------------------------------------------------------------------------

    async def prepare(self, scope: Scope, entries: Sequence[Entry], sequence: int) -> P:
        """Encode entries of a document for `put`; the last of those with the same id counts."""
        ...

    async def put(
        self, cursor: Cursor, number: int, scope: Scope, prepared: P, sequence: int, *, found: bool = False
    ) -> None:
        """Write entries in place of those with the same ids, except those written or removed later in the log.

        They can be `found` when this returns.
        """
        ...

    async def remove(self, cursor: Cursor, number: int, scope: Scope, ids: Sequence[str], sequence: int) -> None:
        """Remove entries, unless they were written later in the log."""
        ...

    async def delete(self, cursor: Cursor, number: int, scope: Scope) -> None:
        """Remove all of a document or dataset for good."""
        ...

    async def purge(self, cursor: Cursor, number: int, scope: Scope) -> None:
        """Remove all of a dataset, which may come back."""
        ...

    # --- searches ------------------------------------------------------------------------------------------------

    async def search(
        self, database: Database, number: int, datasets: list[str], question: Question
    ) -> list[Hit] | None:
        """The best hits of these datasets; None when not all of them are searched in this version any more."""
        ...

    async def read(
        self, database: Database, number: int, datasets: list[str], tenant: str, spans: Sequence[Span]
    ) -> list[Placed] | None:
        """The entries in these spans; None when not all datasets are searched in this version any more."""
        ...

    def contents(self, database: Database) -> AsyncGenerator[list[tuple[str, str, str]]]:
        """As `Index.contents`."""
        ...


AnyStore = Store[Any]
