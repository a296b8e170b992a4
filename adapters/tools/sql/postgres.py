"""Queries of a PostgreSQL database in transactions that only read."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import psycopg

from adapters.tools.sql.answer import MOST_ROWS, table
from handlers.ports.tools import ToolError

CONNECT_S = 10
"""Time to connect, in seconds."""

_SCHEMA = """
SELECT table_schema, table_name, string_agg(column_name || ' ' || data_type, ', ' ORDER BY ordinal_position)
FROM information_schema.columns WHERE table_schema NOT IN ('pg_catalog', 'information_schema')
GROUP BY 1, 2 ORDER BY 1, 2 LIMIT 200
"""

_ROLE = """
SELECT rolsuper OR pg_has_role(oid, 'pg_execute_server_program', 'USAGE') FROM pg_roles WHERE rolname = current_user
"""

LONGEST_ROW = 20_000
"""Maximum length of a row as JSON, in characters."""

_WRAPPED = "SELECT left(row_to_json(q)::text, {longest}) FROM (\n{statement}\n) q LIMIT {most}"
"""The server sends no more rows than are read, and no longer ones."""


class PostgresDatabase:
    def __init__(self, url: str, seconds: float) -> None:
        self._url = url
        self._seconds = seconds

    async def schema(self) -> str:
        """The tables that the role sees, with their columns. Raises: ToolError."""
        rows = await self._read(_SCHEMA)
        return "\n".join(f"{schema}.{name}: {columns}" for schema, name, columns in rows) or "There are no tables."

    async def query(self, statement: str) -> str:
        """The rows of one SELECT, as a table. Raises: ToolError."""
        statement = statement.strip().removesuffix(";")
        wrapped = _WRAPPED.format(longest=LONGEST_ROW, statement=statement, most=MOST_ROWS + 1)
        rows = [_pairs(text) for (text,) in await self._read(wrapped)]
        columns = [name for name, _ in rows[0]] if rows else []
        return table(columns, [[value for _, value in row] for row in rows])

    async def _read(self, statement: str) -> list[tuple[Any, ...]]:
        try:
            async with asyncio.timeout(self._seconds + CONNECT_S):
                return await self._rows(statement)
        except TimeoutError:
            raise ToolError("timeout", f"The query took longer than {self._seconds:g} s.") from None
        except psycopg.OperationalError as error:
            if error.sqlstate:  # of the statement
                raise _refused(error) from None
            raise ToolError("unreachable", "The database does not answer.") from None  # its words name the address
        except psycopg.Error as error:
            raise _refused(error) from None

    async def _rows(self, statement: str) -> list[tuple[Any, ...]]:
        milliseconds = int(self._seconds * 1000)
        options = (
            f"-c default_transaction_read_only=on -c statement_timeout={milliseconds}"
            f" -c idle_in_transaction_session_timeout={2 * milliseconds} -c lock_timeout={milliseconds}"
        )
        connection = await psycopg.AsyncConnection.connect(
            self._url, connect_timeout=CONNECT_S, options=options, application_name="headrace sql tool"
        )
        async with connection:
            await connection.set_read_only(True)
            [dangerous] = cast("tuple[bool]", await (await connection.execute(_ROLE)).fetchone())
            if dangerous:
                reason = (
                    "The operator's login for this database may change the server: it needs a role that only reads."
                )
                raise ToolError("unsupported", reason)
            # Prepared, since the extended protocol takes one statement only.
            cursor = await connection.execute(statement, prepare=True)
            return await cursor.fetchall()


def _pairs(row: str) -> list[tuple[str, Any]]:
    """The columns of a row as JSON, with their values; one column with its beginning, where the row was cut."""
    try:
        pairs: list[tuple[str, Any]] = json.loads(row, object_pairs_hook=list, parse_float=str)
    except ValueError:
        return [("row", row)]
    return pairs


def _refused(error: psycopg.Error) -> ToolError:
    first = error.diag.message_primary or type(error).__name__
    hint = f" {error.diag.message_hint}" if error.diag.message_hint else ""
    return ToolError("bad_request", f"The database refused it: {first}.{hint}"[:1000])
