"""A login that can read the tables and nothing else, for what runs the statements of people."""

from __future__ import annotations

import hmac
from contextlib import suppress
from hashlib import sha256
from typing import Literal

from psycopg import AsyncConnection, errors, sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Identifier

from adapters.postgres.policies import READER
from adapters.postgres.rights import grant_locks
from adapters.postgres.tables import connect, make_roles

ROLES_LOCK = 0x6865616472616365 + 101
"""Advisory lock of the database: roles that two sessions change at once are an error."""

RESERVED = "pg_use_reserved_connections"
"""The role of PostgreSQL whose members have the connections that are kept from others, such as tenants."""

POSTGRES = "postgres logins"
"""Purpose of the key that the passwords of logins follow from."""

Kind = Literal["view", "people", "export"]

SHARES: dict[Kind, float] = {"view": 0.5, "people": 0.25, "export": 0.1}
"""Shares of the server's connections that the sessions of each login may have: together they leave some to workers."""

FIXED = {"temp_file_limit": "1GB", "log_min_messages": "fatal"}
"""Settings of the sessions of a role that reads, which it cannot change: maximum size of the temporary files, and which
of its messages the server logs. An error quotes a value of any length: a thousand of them would fill the disk."""


async def login(url: str, key: bytes, kind: Kind = "view") -> str:
    """The address of the same database for a role that is a member of `headrace_reader` alone; made when missing.

    The viewer's and people's logins are two, since a role can change its own password. The exporter's can take advisory
    locks as well: one exporter works at a time. Passwords follow from the key and the database, so that every worker
    with this key has the same. Where the user of `url` may not make roles, `url` itself comes back when that user
    owns nothing of Headrace's, and is no superuser.
    Raises: psycopg.OperationalError; InsufficientPrivilege, which says what to do.
    """
    async with connect(url) as connection:
        if await _reads_only(connection):
            return url
        role, password = credentials(kind, connection.info.dbname, key)
        try:
            await make_roles(connection)
            async with connection.transaction():
                await make_login(connection, role, password)
                await _limit(connection, role, SHARES[kind])
                if kind == "export":
                    await grant_locks(connection, role)
        except errors.InsufficientPrivilege as error:
            user = connection.info.user
            raise errors.InsufficientPrivilege(
                f"The user {user!r} may not make a role for the viewer: GRANT it CREATEROLE, or give the viewer a "
                f"user of its own: CREATE ROLE headrace_viewer LOGIN PASSWORD '…' IN ROLE {READER}."
            ) from error
    return make_conninfo(url, user=role, password=password)


def credentials(kind: str, database: str, key: bytes) -> tuple[str, str]:
    """Name and password of a login to a database, which follow from its kind and the key."""
    name = f"headrace_{kind}_{sha256(database.encode()).hexdigest()[:12]}"
    return name, hmac.new(key, f"{kind} of {database}".encode(), sha256).hexdigest()


async def make_login(connection: AsyncConnection[TupleRow], role: str, password: str) -> None:
    """Make a role that logs in and reads the tables, within the transaction; give it this password if there is one."""
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (ROLES_LOCK,))
    found = await connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,))
    # Servers may log their statements.
    sealed = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
    verb = SQL("ALTER" if found.rowcount else "CREATE")
    statement = SQL("{} ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD {}")
    await connection.execute(statement.format(verb, Identifier(role), sql.Literal(sealed)))
    await connection.execute(SQL("GRANT {} TO {}").format(Identifier(READER), Identifier(role)))
    with suppress(errors.InsufficientPrivilege, errors.UndefinedObject):  # of a superuser, since PostgreSQL 16
        async with connection.transaction():
            await connection.execute(SQL("GRANT {} TO {}").format(Identifier(RESERVED), Identifier(role)))


async def _limit(connection: AsyncConnection[TupleRow], role: str, share: float) -> None:
    """Set limits that a session of this role cannot raise: sessions at once, and as a superuser what is fixed."""
    cursor = await connection.execute(
        "SELECT ceil(current_setting('max_connections')::int * %s)::int, rolsuper FROM pg_roles WHERE rolname = user",
        (share,),
    )
    [(sessions, mighty)] = await cursor.fetchall()
    statement = SQL("ALTER ROLE {} CONNECTION LIMIT {}").format(Identifier(role), sql.Literal(sessions))
    await connection.execute(statement)
    for name, value in FIXED.items() if mighty else ():
        statement = SQL("ALTER ROLE {} SET {} = {}").format(Identifier(role), Identifier(name), sql.Literal(value))
        await connection.execute(statement)


async def _reads_only(connection: AsyncConnection[TupleRow]) -> bool:
    """Return True when the user of this connection can change nothing of Headrace's, and make no role."""
    cursor = await connection.execute(
        "SELECT NOT rolsuper AND NOT rolcreaterole "
        "AND NOT coalesce(has_schema_privilege(to_regnamespace('headrace')::oid, 'CREATE'), false) "
        "FROM pg_roles WHERE rolname = user"
    )
    return await cursor.fetchone() == (True,)
