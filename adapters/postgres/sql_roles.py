"""Roles of SQL logins: made, ended, and watched.

A session can raise all limits of its role but those that only a superuser sets, and can change its password.
So a watcher ends transactions that last too long, and the passwords are compared with those of the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

import psycopg
import structlog
from psycopg import AsyncConnection, errors
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Composed, Identifier, Literal

from adapters.postgres.policies import TENANTS
from adapters.postgres.reader import FIXED, ROLES_LOCK
from adapters.postgres.tables import connect
from handlers.ports.log import Unavailable
from handlers.ports.sql_roles import NotAllowed, Role

log = structlog.get_logger(__name__)

SWEEP_S = 0.5
"""Interval at which the watcher looks at the sessions, in seconds."""

GRACE_S = 2.0
"""Time by which a transaction may exceed the limit, in seconds: the limits of the role give a clearer error."""

ENDING_S = 5.0
"""Maximum wait for sessions to end, in seconds."""

OUTAGES = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    errors.UndefinedTable,
    errors.InvalidSchemaName,
    errors.DuplicateObject,
    errors.UniqueViolation,
    errors.InternalError_,
)
"""Errors that pass: when the server is back, when the tables are made, when no other database changes the same role."""

NAMES = "^t_[0-9a-f]{16}$"
"""Names of the roles of SQL logins."""


class PostgresSqlRoles:
    """Of the logins in `headrace_access.logins`; `seconds` is the maximum length of a transaction."""

    def __init__(self, url: str, *, connections: int, seconds: float) -> None:
        self._url = url
        self._connections = connections
        milliseconds = str(round(seconds * 1000))
        self._limits = {"statement_timeout": milliseconds, "idle_in_transaction_session_timeout": milliseconds}
        self._seconds = seconds

    async def held(self) -> Mapping[str, Role]:
        async with self._connected() as connection:
            cursor = await connection.execute("SELECT has_table_privilege('pg_authid', 'SELECT')")
            [[shown]] = await cursor.fetchall()
            password = "(SELECT coalesce(rolpassword, '') FROM pg_authid WHERE pg_authid.oid = r.oid)"
            query = f"""
                SELECT coalesce(l.role, rolname)::text, l.tenant_id,
                    CASE WHEN coalesce(rolcanlogin AND rolconnlimit = %(connections)s AND rolconfig @> %(limits)s
                        AND pg_has_role(r.oid, to_regrole('{TENANTS}'), 'USAGE'), false)
                    THEN {password if shown else "NULL"} ELSE '' END
                FROM headrace_access.logins l
                FULL JOIN (SELECT * FROM pg_roles WHERE rolname ~ '{NAMES}') r ON r.rolname = l.role
            """
            limits = [f"{name}={value}" for name, value in self._limits.items()]
            cursor = await connection.execute(query.encode(), {"connections": self._connections, "limits": limits})
            return {role: Role(*found) for role, *found in await cursor.fetchall()}

    async def make(self, tenant: str, role: str, verifier: str) -> None:
        async with self._connected() as connection, connection.transaction():
            await _take_turn(connection)
            name = Identifier(role)
            cursor = await connection.execute("SELECT tenant_id FROM headrace_access.logins WHERE role = %s", (role,))
            if await cursor.fetchone() not in (None, (tenant,)):
                raise NotAllowed(f"The role {role} belongs to another tenant.")
            if not await _exists(connection, role):
                await connection.execute(SQL("CREATE ROLE {}").format(name))
            make = SQL("ALTER ROLE {} LOGIN CONNECTION LIMIT {} PASSWORD {}")
            await connection.execute(make.format(name, Literal(self._connections), Literal(verifier)))
            for limit, value in self._limits.items():
                await connection.execute(_set(role, limit, value))
            with suppress(errors.InsufficientPrivilege):  # a superuser can, and those that it lets
                async with connection.transaction():
                    for fixed, value in FIXED.items():
                        await connection.execute(_set(role, fixed, value))
            await connection.execute(SQL("GRANT {} TO {}").format(Identifier(TENANTS), name))
            await connection.execute(
                "INSERT INTO headrace_access.logins VALUES (%s, %s) ON CONFLICT DO NOTHING", (role, tenant)
            )

    async def end(self, role: str) -> None:
        async with self._connected() as connection:
            # First: without its row, the role reads no rows, even where the role itself cannot be changed.
            await connection.execute("DELETE FROM headrace_access.logins WHERE role = %s", (role,))
            name = Identifier(role)
            async with connection.transaction():
                await _take_turn(connection)
                if not await _exists(connection, role):
                    return
                await connection.execute(SQL("ALTER ROLE {} NOLOGIN PASSWORD NULL").format(name))
                await connection.execute(SQL("REVOKE {} FROM {}").format(Identifier(TENANTS), name))
            await _end_sessions(connection, role)
            try:
                async with connection.transaction():
                    await _take_turn(connection)
                    await connection.execute(SQL("DROP ROLE IF EXISTS {}").format(name))
            except errors.DependentObjectsStillExist as error:  # of an administrator
                log.warning("not dropped", role=role, reason=str(error), advice="DROP OWNED BY this role, then drop it")

    async def watch(self) -> None:
        """End sessions of logins that are too long in a transaction, or in another database, until cancelled.

        What a session does in a transaction keeps PostgreSQL from removing dead rows of all tenants.
        Raises: Unavailable, NotAllowed.
        """
        limit = self._seconds + GRACE_S
        async with self._connected() as connection:
            while True:
                cursor = await connection.execute(_SWEEP, (limit,))
                for pid, role, seconds in await cursor.fetchall():
                    await connection.execute(_END + " AND pid = %s", (role, pid))
                    log.info("ended a session", role=role, pid=pid, seconds=seconds, most=self._seconds)
                await asyncio.sleep(SWEEP_S)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncConnection[TupleRow]]:
        """A connection that may end sessions of the roles that it makes. Raises: Unavailable, NotAllowed."""
        try:
            async with connect(self._url) as connection:
                if connection.info.server_version >= 160000:
                    await connection.execute("SET createrole_self_grant = 'inherit'")
                try:
                    yield connection
                except (errors.InsufficientPrivilege, errors.UndefinedObject) as error:
                    raise NotAllowed(
                        f"The user {connection.info.user!r} may not change the roles of SQL logins "
                        f"({error.diag.message_primary}): give it "
                        f"CREATEROLE, {TENANTS} WITH ADMIN OPTION, and EXECUTE ON FUNCTION pg_terminate_backend."
                    ) from error
        except OUTAGES as error:
            raise Unavailable(f"The roles of SQL logins cannot be changed yet: {error!r}") from error


async def end_transactions(connection: AsyncConnection[TupleRow]) -> None:
    """End the sessions of SQL logins that are in a transaction, as far as the user may: they hold locks of tables."""
    with suppress(errors.InsufficientPrivilege):
        await connection.execute(_END_TRANSACTIONS)


def _set(role: str, name: str, value: str) -> Composed:
    return SQL("ALTER ROLE {} SET {} = {}").format(Identifier(role), Identifier(name), Literal(value))


async def _take_turn(connection: AsyncConnection[TupleRow]) -> None:
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (ROLES_LOCK,))


async def _exists(connection: AsyncConnection[TupleRow], role: str) -> bool:
    cursor = await connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,))
    return cursor.rowcount > 0


async def _end_sessions(connection: AsyncConnection[TupleRow], role: str) -> None:
    """End the sessions of a role in all databases. Raises: Unavailable, when one does not end in time."""
    try:
        async with asyncio.timeout(ENDING_S):
            while (await connection.execute(_END, (role,))).rowcount:
                await asyncio.sleep(0.01)
    except TimeoutError as error:
        raise Unavailable(f"A session of {role} has not ended within {ENDING_S:g} s.") from error


_END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s AND backend_type = 'client backend'"

_END_TRANSACTIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity JOIN headrace_access.logins ON role = usename
WHERE backend_type = 'client backend' AND datname = current_database() AND xact_start IS NOT NULL
"""

_SWEEP = """
SELECT pid, role::text, extract(epoch FROM clock_timestamp() - xact_start)::float
FROM pg_stat_activity JOIN headrace_access.logins ON role = usename
WHERE backend_type = 'client backend'
    AND (datname <> current_database() OR clock_timestamp() - xact_start > %s * interval '1 second')
"""
