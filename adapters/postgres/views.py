"""Views in schema `headrace`. Each depends on a function alone, whose text finds whatever tables are live."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256

from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Identifier, Literal


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
