"""Views in schema `headrace`. Each depends on a function alone, whose text finds whatever tables are live.

The planner puts the text of such a function in its place, so that filters reach the indexes of the tables. The
collations of columns must be those of the tables for that, which only a type can state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Identifier, Literal

ID, TEXT, TIME = 'text COLLATE "C"', "text", "timestamptz"


class Column(NamedTuple):
    type: str
    comment: str


@dataclass(frozen=True, slots=True)
class View:
    """A view: `made` makes it, `table` is the last of the tables that it needs."""

    name: str
    about: str
    columns: Mapping[str, str]
    """Comments of the columns."""
    made: str
    table: str

    @property
    def comment(self) -> str:
        version = sha256(f"{self.made}{self.columns}".encode()).hexdigest()[:8]
        return f"{self.about} Version {version}."


def comments(columns: Mapping[str, Column]) -> dict[str, str]:
    return {name: column.comment for name, column in columns.items()}


def row_type(name: str, columns: Mapping[str, Column]) -> str:
    """SQL that makes the type of the rows of a function, where it is missing."""
    types = ", ".join(f"{each} {column.type}" for each, column in columns.items())
    return f"""
DO $$ BEGIN
    IF to_regtype('headrace.{name}') IS NULL THEN
        CREATE TYPE headrace.{name} AS ({types});
    END IF;
END $$;
"""


def view_of(
    name: str, about: str, columns: Mapping[str, Column], *, row: str, function: str, table: str, select: str
) -> View:
    """A view of the rows that a SELECT gives, by a function and a type of these names."""
    made = f"""{row_type(row, columns)}
CREATE OR REPLACE FUNCTION headrace.{function}() RETURNS SETOF headrace.{row}
LANGUAGE sql STABLE PARALLEL SAFE AS $$ {select} $$;
CREATE OR REPLACE VIEW headrace.{name} WITH (security_invoker = true) AS SELECT * FROM headrace.{function}();
"""
    return View(name, about, comments(columns), made, table)


async def make_view(connection: AsyncConnection[TupleRow], view: View, readers: Iterable[str]) -> None:
    """Make the view as this version has it, where the table is that it reads; these roles may read it.

    One that is there is left alone: to replace it locks out its readers.
    """
    cursor = await connection.execute(
        "SELECT to_regclass(%s) IS NOT NULL AND obj_description(to_regclass(%s), 'pg_class') IS DISTINCT FROM %s",
        (f"headrace.{view.table}", f"headrace.{view.name}", view.comment),
    )
    if await cursor.fetchone() == (True,):
        async with connection.transaction():
            await connection.execute("SET LOCAL check_function_bodies = off")
            await connection.execute(view.made.encode())
            name = Identifier("headrace", view.name)
            await connection.execute(SQL("COMMENT ON VIEW {} IS {}").format(name, Literal(view.comment)))
            for column, comment in view.columns.items():
                named = Identifier("headrace", view.name, column)
                await connection.execute(SQL("COMMENT ON COLUMN {} IS {}").format(named, Literal(comment)))
    granted = await connection.execute(
        "SELECT reader FROM unnest(%s::text[]) reader WHERE NOT has_table_privilege(reader, to_regclass(%s), 'SELECT')",
        (list(readers), f"headrace.{view.name}"),
    )
    for (reader,) in await granted.fetchall():
        statement = SQL("GRANT SELECT ON {} TO {}")
        await connection.execute(statement.format(Identifier("headrace", view.name), Identifier(reader)))
