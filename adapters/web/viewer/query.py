"""Queries of users: one statement, read-only, as a login that can only read the tables.

Statements are neither trusted nor inspected: their rights are those of their login. Resetting a role or a setting gains
nothing. Every query has a session of its own, which ends with it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Literal

import orjson
import psycopg
from psycopg import AsyncConnection, AsyncServerCursor, IsolationLevel
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Composed, Identifier

from adapters.postgres.policies import READER
from adapters.web.viewer.sheet import line

Form = Literal["csv", "jsonl"]
Cells = tuple[str | None, ...]

LIMIT_S = 10.0
"""Time limit of a query, and of each part of a download, in seconds."""

EXPORT_S = 600.0
"""Time limit of a download, in seconds: meanwhile the database keeps old row versions."""

SHOWN_ROWS, SHOWN_CHARACTERS, SHOWN_CELL = 1000, 1_000_000, 2000
"""Limits of a shown result: rows, total characters, characters of a cell."""

CELL = 8 * 2**20
"""Maximum length of a downloaded cell, in characters."""

_PART = 2**20
"""Approximate size of a fetch, in characters."""

_RUNS, _EXPORTS = asyncio.Semaphore(4), asyncio.Semaphore(4)
"""Maximum number of concurrent queries."""

_SKIPPED = r"\A(?:\s++|--[^\n]*+(?:\n|$)|/\*.*?\*/)*+"
_EXPLAIN = re.compile(rf"{_SKIPPED}explain\b", re.IGNORECASE | re.DOTALL)
_QUERY = re.compile(rf"{_SKIPPED}[\s(]*(?:select|with|values|table|explain)\b", re.IGNORECASE | re.DOTALL)


class Refused(Exception):
    """The query cannot be answered; `line` and `column`, from 1, are the place of the fault, if known."""

    def __init__(self, message: str, line: int | None = None, column: int | None = None) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True)
class Table:
    """The shown part of a result; `more`: there are further rows."""

    columns: list[str]
    rows: list[Cells]
    more: bool
    seconds: float


async def run(url: str, statement: str, *, within_s: float = LIMIT_S) -> Table:
    """The beginning of the result. Raises: Refused."""
    began = perf_counter()
    async with _RUNS, _opened(url, statement, within_s, "text", SHOWN_CELL) as (columns, batches):
        rows: list[Cells] = []
        characters = 0
        async for batch in batches:
            for row in batch:
                rows.append(row)
                characters += sum(len(cell or "") for cell in row)
                if len(rows) > SHOWN_ROWS or characters > SHOWN_CHARACTERS:
                    return Table(columns, rows[:SHOWN_ROWS], True, perf_counter() - began)
        return Table(columns, rows, False, perf_counter() - began)


async def export(
    url: str, statement: str, form: Form, *, raw: bool = False, within_s: float = LIMIT_S
) -> AsyncGenerator[bytes]:
    """The whole result in pieces, one in memory at a time; `raw` CSV may hold formulas. Raises: Refused."""
    until = perf_counter() + EXPORT_S  # no asyncio.timeout: different tasks may read the first piece and the others
    async with _EXPORTS, _opened(url, statement, within_s, form, CELL) as (columns, batches):
        if form == "csv":
            yield line(columns, raw=raw)
        names = [orjson.dumps(name) + b":" for name in _distinct(columns)]
        async for batch in batches:
            if any(cell is not None and len(cell) > CELL for row in batch for cell in row):
                raise Refused(f"A value has more than {CELL:,} characters.")
            if perf_counter() > until:
                raise Refused(f"It takes longer than {EXPORT_S:g} s.")
            yield b"".join(line(row, raw=raw) if form == "csv" else _json_line(names, row) for row in batch)


@asynccontextmanager
async def _opened(
    url: str, statement: str, within_s: float, form: Form | Literal["text"], cell: int
) -> AsyncIterator[tuple[list[str], AsyncIterator[Sequence[Cells]]]]:
    """The names of the columns, and the rows. Raises: Refused."""
    statement = statement.strip().rstrip(";")
    _check(statement)
    try:
        async with _session(url, within_s) as connection:
            if _EXPLAIN.match(statement):
                yield await _explained(connection, statement, within_s)
                return
            columns = await _columns(connection, statement, within_s)
            async with connection.cursor("rows") as rows:
                async with asyncio.timeout(within_s + 1):
                    await rows.execute(_wrapped(statement, len(columns), form, cell))
                yield columns, _batches(connection, rows, within_s)
    except psycopg.errors.QueryCanceled:
        raise Refused(f"It takes longer than {within_s:g} s: narrow it down, by time or by tenant.") from None
    except TimeoutError:
        raise Refused(f"It takes longer than {within_s:g} s.") from None
    except psycopg.Error as error:
        raise _refused(error, statement) from error


def _check(statement: str) -> None:
    if not statement:
        raise Refused("There is no query.")
    if "\0" in statement or any("\ud800" <= letter <= "\udfff" for letter in statement):
        raise Refused("The query has characters that texts cannot hold.")
    if not _QUERY.match(statement):
        raise Refused("A query begins with SELECT, WITH, VALUES, TABLE or EXPLAIN: the tables can only be read.")


@asynccontextmanager
async def _session(url: str, within_s: float) -> AsyncIterator[AsyncConnection[TupleRow]]:
    """A session in a read-only transaction that is never committed. Raises: Refused when its login can do more."""
    connection = await AsyncConnection.connect(url, connect_timeout=5, application_name="headrace sql")
    try:
        await connection.set_read_only(True)
        await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        await _refuse_more(connection)
        await connection.execute(
            "SET LOCAL search_path = headrace, headrace_projection; SET LOCAL timezone = 'UTC'; SET LOCAL jit = off; "
            "SET LOCAL idle_in_transaction_session_timeout = '60s'; SET LOCAL cursor_tuple_fraction = 1"
        )
        await _limit(connection, within_s)
        yield connection
    finally:
        await connection.close()


_RIGHTS = """
SELECT rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls
    OR EXISTS (SELECT FROM pg_namespace WHERE nspname ^@ 'headrace' AND has_schema_privilege(oid, 'CREATE')),
    ARRAY(SELECT rolname FROM pg_roles AS other WHERE pg_has_role(session_user, oid, 'MEMBER')
          AND rolname NOT IN (session_user, %s, 'pg_use_reserved_connections') ORDER BY 1)
FROM pg_roles WHERE rolname = session_user
"""


async def _refuse_more(connection: AsyncConnection[TupleRow]) -> None:
    """Check that the login is a member of no other role, to which a statement could switch."""
    [(mighty, further)] = await (await connection.execute(_RIGHTS, (READER,))).fetchall()
    if mighty or further:
        can = f"has the roles {', '.join(further)}" if further and not mighty else "can do more than read"
        user = connection.info.user
        raise Refused(f"The viewer's login {user!r} {can}: queries need one that is in {READER} alone.")


async def _limit(connection: AsyncConnection[TupleRow], within_s: float) -> None:
    """Set the limits before every step, since the statement may have changed them."""
    await connection.execute("SELECT set_config('statement_timeout', %s, true)", (str(int(within_s * 1000)),))


async def _columns(connection: AsyncConnection[TupleRow], statement: str, within_s: float) -> list[str]:
    """Declare the query without running it, and return its columns; only a single query can be declared."""
    async with asyncio.timeout(within_s + 1), connection.cursor("probe") as probe:
        await probe.execute(statement.encode())
        return [column.name for column in probe.description or ()]


def _wrapped(statement: str, columns: int, form: Form | Literal["text"], cell: int) -> Composed:
    """The query with its values as text, of at most `cell` characters and one."""
    value = SQL("left(to_json({})::text, {})") if form == "jsonl" else SQL("left({}::text, {})")
    names = [Identifier(f"column {number}") for number in range(columns)]
    if not names:
        raise Refused("The query has no columns.")
    # The line end closes a comment at the end of the statement.
    return SQL("SELECT {} FROM (\n{}\n) AS query ({})").format(
        SQL(", ").join(value.format(name, cell + 1) for name in names),
        SQL(statement),
        SQL(", ").join(names),
    )


async def _batches(
    connection: AsyncConnection[TupleRow], rows: AsyncServerCursor[TupleRow], within_s: float
) -> AsyncIterator[Sequence[Cells]]:
    """Fetch parts of about equal size, estimated from the rows before."""
    count = 10
    while True:
        await _limit(connection, within_s)
        async with asyncio.timeout(within_s + 1):
            batch: Sequence[Cells] = await rows.fetchmany(count)
        if not batch:
            return
        yield batch
        size = max(1, sum(len(cell or "") for row in batch for cell in row))
        count = max(1, min(4 * count, len(batch) * _PART // size, 5000))


async def _explained(
    connection: AsyncConnection[TupleRow], statement: str, within_s: float
) -> tuple[list[str], AsyncIterator[Sequence[Cells]]]:
    """The plan: EXPLAIN cannot be declared. Preparing allows a single statement only."""
    async with asyncio.timeout(within_s + 1):
        cursor = await connection.execute(statement.encode(), prepare=True)
        plan = [
            (row[0] if isinstance(row[0], str) else orjson.dumps(row[0]).decode(),) for row in await cursor.fetchall()
        ]

    async def batches() -> AsyncIterator[Sequence[Cells]]:
        yield plan

    return [column.name for column in cursor.description or ()], batches()


def _refused(error: psycopg.Error, statement: str) -> Refused:
    """PostgreSQL's message, and its place in the statement."""
    said = error.diag.message_primary or " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, psycopg.OperationalError) and not error.sqlstate:
        return Refused(f"PostgreSQL does not answer: {said}")
    if "multiple commands" in said:
        said = "only one statement at a time"
    said = f"{said[0].upper()}{said[1:]}." + (f" {error.diag.message_hint}" if error.diag.message_hint else "")
    position = error.diag.statement_position
    if position is None:
        return Refused(said)
    place = int(position) - 1 - (0 if _EXPLAIN.match(statement) else len('DECLARE "probe" CURSOR FOR '))
    before = statement[: max(place, 0)]
    return Refused(said, before.count("\n") + 1, len(before) - before.rfind("\n"))


def _distinct(names: Sequence[str]) -> list[str]:
    """Unique names: id, id_2."""
    found: dict[str, None] = {}
    for name in names:
        number, own = 1, name
        while own in found:
            number += 1
            own = f"{name}_{number}"
        found[own] = None
    return list(found)


def _json_line(names: Sequence[bytes], row: Cells) -> bytes:
    values = (b"null" if cell is None else cell.encode() for cell in row)
    return b"{" + b",".join(name + value for name, value in zip(names, values, strict=True)) + b"}\n"
