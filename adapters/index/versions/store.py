"""What keeps the entries of the versions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol, TypeVar

from adapters.index.versions.connection import Connection, Cursor
from adapters.index.versions.schema import Schema
from handlers.ports.index import Entry
from handlers.ports.log import Unavailable


class Scope(NamedTuple):
    """What a change is of: a document, or without one all of a dataset."""

    tenant: str
    dataset: str
    document: str | None = None


class Gone(Unavailable):
    """A version is gone that was there a moment ago."""


class Prepared(Protocol):
    @property
    def dimension(self) -> int | None:
        """Of the vectors, None when there are none."""
        ...


P = TypeVar("P", bound=Prepared)


class Store(Protocol[P]):
    """Versions by their numbers. A cursor is that of the transaction in which the rows that lead here change.

    Every method raises: Unavailable.
    """

    schema: Schema

    def holding(self, number: int) -> str:
        """The query for the tenant and dataset of all that a version has something of."""
        ...

    async def make(self, cursor: Cursor, number: int, dimension: int, *, live: bool) -> None:
        """Make an empty version; one that is not live is loaded, and then finished."""
        ...

    async def finish(self, cursor: Cursor, number: int) -> None:
        """Make what was loaded fit to be searched, unless it is."""
        ...

    async def complete(self, connection: Connection, number: int) -> None:
        """Do what is quicker done when most is in."""
        ...

    async def drop(self, cursor: Cursor, numbers: Sequence[int]) -> None:
        """Drop these, which are no versions any more, and what else is of none."""
        ...

    async def point(self, cursor: Cursor) -> None:
        """Show people under one name what is searched."""
        ...

    async def counts(self, cursor: Cursor, numbers: Sequence[int]) -> dict[int, int]:
        """How many entries each holds that can be found."""
        ...

    async def prepare(self, scope: Scope, entries: Sequence[Entry], sequence: int) -> P:
        """Make of the entries of a document what is written; of those with the same id the last counts."""
        ...

    async def put(
        self, cursor: Cursor, number: int, scope: Scope, prepared: P, sequence: int, *, found: bool = False
    ) -> None:
        """Write entries in place of those with the same ids, but for those that were written or removed later in the
        log; they can be `found` when this returns."""
        ...

    async def remove(self, cursor: Cursor, number: int, scope: Scope, ids: Sequence[str], sequence: int) -> None:
        """Take entries out, unless they were written later in the log."""
        ...

    async def delete(self, cursor: Cursor, number: int, scope: Scope) -> None:
        """Take all of a document or dataset out, for good."""
        ...

    async def purge(self, cursor: Cursor, number: int, scope: Scope) -> None:
        """Take all of a dataset out, which may come back."""
        ...


S = TypeVar("S", bound=Store)  # type: ignore[type-arg]  # whatever it prepares
Stored = Callable[[], AbstractAsyncContextManager[S]]
"""Opens a store."""
