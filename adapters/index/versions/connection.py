"""Connections to the database in which the rows are that lead to the versions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from psycopg import AsyncConnection, AsyncCursor, OperationalError
from psycopg.rows import TupleRow

from handlers.ports.log import Unavailable

Connection = AsyncConnection[TupleRow]
Cursor = AsyncCursor[TupleRow]


@contextmanager
def answering() -> Iterator[None]:
    """Raises: Unavailable, where the database does not answer."""
    try:
        yield
    except OperationalError as error:
        raise Unavailable(f"The tables of the index do not answer: {error}") from error


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    """A connection that commits every statement outside of a transaction. Raises: Unavailable."""
    with answering():
        async with await AsyncConnection.connect(url, autocommit=True, connect_timeout=10) as connection:
            yield connection


@asynccontextmanager
async def transaction(url: str) -> AsyncIterator[Cursor]:
    """A transaction on a connection of its own. Raises: Unavailable."""
    async with connected(url) as connection, connection.transaction(), connection.cursor() as cursor:
        yield cursor
