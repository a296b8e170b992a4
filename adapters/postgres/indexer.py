"""A login for workers that write the search index: it reads the tables, and owns the index and its cache."""

from __future__ import annotations

from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from adapters.postgres.reader import credentials, make_login
from adapters.postgres.rights import grant_locks
from adapters.postgres.tables import connect, make_roles

SCHEMAS = ["headrace_index", "headrace_opensearch", "headrace_cache"]
"""The schemas that it owns, and makes where they are missing."""


async def login(url: str, key: bytes) -> str:
    """The address of the same database with this login, made when missing; `url` is a superuser's.

    Raises: psycopg.Error.
    """
    async with connect(url) as connection:
        database = connection.info.dbname
        role, password = credentials("index", database, key)
        await make_roles(connection)
        async with connection.transaction():
            await make_login(connection, role, password)
            await grant_locks(connection, role)
            grant = SQL("GRANT CREATE ON DATABASE {} TO {}")
            await connection.execute(grant.format(Identifier(database), Identifier(role)))
            await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            cursor = await connection.execute(_OWNED_BY_OTHERS, {"role": role, "schemas": SCHEMAS})
            for (statement,) in await cursor.fetchall():
                await connection.execute(statement.encode())
    return make_conninfo(url, user=role, password=password)


_OWNED_BY_OTHERS = """
SELECT format('ALTER SCHEMA %%I OWNER TO %%I', nspname, %(role)s::text) FROM pg_namespace
WHERE nspname = ANY(%(schemas)s) AND pg_get_userbyid(nspowner) <> %(role)s
UNION ALL
SELECT format('ALTER %%s %%I.%%I OWNER TO %%I', CASE relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, nspname, relname,
    %(role)s::text)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname = ANY(%(schemas)s) AND relkind IN ('r', 'v') AND pg_get_userbyid(relowner) <> %(role)s
"""
"""Statements for what a superuser has made there."""
