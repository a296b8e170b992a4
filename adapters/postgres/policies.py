"""Row-level security: the rows of the tables that each role sees. Made with each table, before anyone may read it.

A tenant is found by `session_user`, the role that logged in: neither SET ROLE nor a setting changes it. A policy by a
setting is for connections whose SQL is ours alone, since every session can set every setting.

Each policy names its role, since PostgreSQL joins permissive policies by OR. What a permissive policy of others lets
through, and what another membership of a login would, the restrictive policy of the role takes away again. Row-level
security is not forced: the owner writes, and COPY fails for roles that policies apply to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import LiteralString, NamedTuple

from psycopg import AsyncConnection, errors
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Composed, Identifier

READER = "headrace_reader"
"""The role that reads all rows, and how far the tables are: operators, and our own readers."""

TENANTS = "headrace_tenants"
"""The role of the SQL logins of tenants; each sees the rows of its own tenant (`headrace_access.logins`)."""

GATEWAY = "headrace_gateway"
"""The role of doors of ours that read for one tenant: the setting `headrace.tenant` of the transaction."""

_SEEN: Mapping[str, LiteralString] = {
    READER: "true",
    # As a subquery it is run once for each query, not for each row.
    TENANTS: "(tenant_id = ( SELECT headrace_access.tenant() AS tenant))",
    GATEWAY: "(tenant_id = ( SELECT current_setting('headrace.tenant'::text, true) AS current_setting))",
}
"""The condition on rows by role, as PostgreSQL prints it. A setting that was never set is null, a reset one ''."""

ROLES = tuple(_SEEN)

_SET_UP = b"""
CREATE SCHEMA IF NOT EXISTS headrace_access;
COMMENT ON SCHEMA headrace_access IS 'Logins of tenants. No tenant may read it.';
CREATE TABLE IF NOT EXISTS headrace_access.logins (role name PRIMARY KEY, tenant_id text NOT NULL);
COMMENT ON TABLE headrace_access.logins IS 'Tenant of each SQL login. A login without a row sees no rows.';
COMMENT ON COLUMN headrace_access.logins.role IS 'Role that logs in.';
COMMENT ON COLUMN headrace_access.logins.tenant_id IS 'Tenant whose rows it sees.';
CREATE OR REPLACE FUNCTION headrace_access.tenant() RETURNS text
    LANGUAGE sql STABLE SECURITY DEFINER PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    RETURN (SELECT tenant_id FROM headrace_access.logins WHERE role = session_user);
COMMENT ON FUNCTION headrace_access.tenant IS 'Tenant of the login of this session; null when it has none.';
REVOKE ALL ON FUNCTION headrace_access.tenant FROM PUBLIC;
"""
"""The schema with the tenants of logins. The function answers for the login of the session alone."""


GRANTED = "headrace_granted"
"""The policy of roles that were granted SELECT on a table before it had policies: they go on to see all rows."""


class Policy(NamedTuple):
    """A policy of a table, as the catalog has it."""

    name: str
    restrictive: bool
    command: str
    """`r` for SELECT, `*` for every command."""
    roles: list[str]
    condition: str


def _policies(role: str) -> list[Policy]:
    """The policies of a role on a table."""
    condition = _SEEN[role]
    seen, only = Policy(role, False, "r", [role], condition), Policy(f"{role}_only", True, "*", [role], condition)
    return [seen] if condition == "true" else [seen, only]


NAMES = tuple(policy.name for role in ROLES for policy in _policies(role))
"""Names of our policies; a rebuild makes them itself, and carries over those of others."""


async def make_roles(connection: AsyncConnection[TupleRow]) -> None:
    """Make the missing roles; without those of tenants and doors, the tables have no policies for them.

    Raises: InsufficientPrivilege, when the user may not make the reader's role.
    """
    for role in set(ROLES).difference(await existing(connection)):
        try:
            await connection.execute(SQL("CREATE ROLE {} NOLOGIN").format(Identifier(role)))
        except (errors.DuplicateObject, errors.UniqueViolation):  # another database's set-up was faster
            pass
        except errors.InsufficientPrivilege as error:
            if role == READER:
                raise errors.InsufficientPrivilege(
                    f"{error}. A superuser makes the roles: see `headrace postgres roles`."
                ) from error


async def set_up(connection: AsyncConnection[TupleRow]) -> None:
    """Make the schema with the tenants of logins; the roles that are there may use what they need."""
    await connection.execute(_SET_UP)
    for role in await existing(connection):
        await connection.execute(SQL("GRANT USAGE ON SCHEMA headrace TO {}").format(Identifier(role)))
        if role == TENANTS:
            grant = SQL("GRANT EXECUTE ON FUNCTION headrace_access.tenant TO {}")
            await connection.execute(grant.format(Identifier(role)))


async def protect(connection: AsyncConnection[TupleRow], schema: str, table: str) -> None:
    """Make the missing policies of a table; tenants and doors may read it when theirs are there.

    For a transaction that holds the lock of the set-up, or a table that no other session changes.
    """
    statements = (await missing(connection, schema, [table])).get(table)
    if statements:
        await connection.execute(SQL("; ").join(statements))


async def missing(
    connection: AsyncConnection[TupleRow], schema: str, tables: Iterable[str]
) -> Mapping[str, Sequence[Composed]]:
    """The statements that make what is missing, for each of these tables that is there and lacks something."""
    roles = await existing(connection)
    cursor = await connection.execute(_FOUND, (list(ROLES), schema, list(tables)))
    found = {
        table: _statements(
            Identifier(schema, table),
            roles,
            {policy[0]: Policy(*policy) for policy in policies},
            None if on else others,
        )
        for table, on, others, policies in await cursor.fetchall()
    }
    return {table: statements for table, statements in found.items() if statements}


_FOUND = """
SELECT relname::text, relrowsecurity, ARRAY(
    SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END
    FROM (SELECT relacl UNION ALL SELECT attacl FROM pg_attribute WHERE attrelid = pg_class.oid) rights(acl),
        aclexplode(acl)
    WHERE privilege_type = 'SELECT' AND grantee <> relowner
        AND grantee NOT IN (SELECT oid FROM pg_roles WHERE rolname = ANY(%s)) ORDER BY 1
), ARRAY(
    SELECT jsonb_build_array(polname, NOT polpermissive, polcmd,
        ARRAY(SELECT coalesce(rolname, 'public') FROM unnest(polroles) each LEFT JOIN pg_roles r ON r.oid = each),
        pg_get_expr(polqual, polrelid))
    FROM pg_policy WHERE polrelid = pg_class.oid
) FROM pg_class WHERE relnamespace = to_regnamespace(%s) AND relkind = 'r' AND relname = ANY(%s) ORDER BY 1
"""


async def crossings(connection: AsyncConnection[TupleRow], tables: Iterable[str]) -> list[str]:
    """Find ways to rows of other tenants: sentences on these live tables, on what else can be read, and on logins."""
    made = await missing(connection, "headrace", tables)
    cursor = await connection.execute(_CROSSINGS.encode(), {"bound": [TENANTS, GATEWAY], "tenants": TENANTS})
    return [
        *(f"the policies of the table {table} are missing or altered" for table in made),
        *(sentence for (sentence,) in await cursor.fetchall()),
    ]


async def blind(connection: AsyncConnection[TupleRow]) -> list[str]:
    """The roles that were granted SELECT on a table, and see no rows of it, since no policy lets them."""
    return [role for (role,) in await (await connection.execute(_BLIND)).fetchall()]


_CROSSINGS = """
WITH bound AS (
    SELECT oid, rolname FROM pg_roles WHERE rolname = ANY(%(bound)s)
), relations AS (
    SELECT c.oid, relkind, format('%%I.%%I', nspname, relname) AS name, relrowsecurity,
        EXISTS (SELECT FROM unnest(reloptions) AS option(it) WHERE it ~ '^security_invoker=(true|on|yes|1)$') AS invokes
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND (nspname = 'headrace' OR relkind IN ('v', 'm') AND EXISTS (
        SELECT FROM pg_rewrite r JOIN pg_depend d ON (classid, objid) = ('pg_rewrite'::regclass, r.oid)
            JOIN pg_class t ON (refclassid, t.oid) = ('pg_class'::regclass, refobjid)
        WHERE ev_class = c.oid AND t.oid <> c.oid AND t.relnamespace::regnamespace::text ^@ 'headrace'))
        AND EXISTS (SELECT FROM bound WHERE has_schema_privilege(bound.oid, n.oid, 'USAGE')
            AND has_any_column_privilege(bound.oid, c.oid, 'SELECT'))
)
SELECT CASE relkind WHEN 'v' THEN format('the view %%s shows rows with the rights of its owner', name)
    WHEN 'm' THEN format('the materialized view %%s shows rows of all tenants', name)
    ELSE format('the table %%s has no row-level security', name) END
FROM relations WHERE NOT CASE relkind WHEN 'v' THEN invokes WHEN 'm' THEN false ELSE relrowsecurity END
UNION ALL
SELECT format('the role %%s may use the schema %%I', rolname, nspname) FROM bound, pg_namespace
WHERE nspname ^@ 'headrace' AND nspname <> 'headrace' AND has_schema_privilege(bound.oid, pg_namespace.oid, 'USAGE')
UNION ALL
SELECT format('the function %%s runs with the rights of its owner', p.oid::regprocedure) FROM pg_proc p
WHERE prosecdef AND pronamespace = 'headrace'::regnamespace
    AND EXISTS (SELECT FROM bound WHERE has_function_privilege(bound.oid, p.oid, 'EXECUTE'))
UNION ALL
SELECT format('the login %%s is %%s', rolname, concat_ws(', ',
    CASE WHEN rolsuper THEN 'a superuser' END, CASE WHEN rolbypassrls THEN 'free from policies' END,
    CASE WHEN rolcreaterole THEN 'able to make roles' END, CASE WHEN rolreplication THEN 'able to replicate' END,
    'in ' || others))
FROM pg_auth_members m JOIN pg_roles r ON r.oid = member, LATERAL (
    SELECT string_agg(other.rolname, ', ' ORDER BY other.rolname) FROM pg_roles other
    WHERE pg_has_role(r.oid, other.oid, 'MEMBER') AND other.oid NOT IN (r.oid, m.roleid)
) AS memberships(others)
WHERE roleid = to_regrole(%(tenants)s) AND NOT admin_option
    AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolreplication OR others IS NOT NULL)
ORDER BY 1
"""

_BLIND = """
SELECT DISTINCT rolname::text FROM pg_class c, aclexplode(relacl) JOIN pg_roles r ON r.oid = grantee
WHERE relnamespace = 'headrace'::regnamespace AND relkind = 'r' AND relrowsecurity AND privilege_type = 'SELECT'
    AND NOT rolsuper AND NOT rolbypassrls AND NOT pg_has_role(r.oid, relowner, 'USAGE') AND NOT EXISTS (
        SELECT FROM pg_policy, unnest(polroles) AS bound(role)
        WHERE polrelid = c.oid AND polpermissive AND (role = 0 OR pg_has_role(r.oid, role, 'USAGE')))
ORDER BY 1
"""


def _statements(
    table: Identifier, roles: Iterable[str], found: Mapping[str, Policy], others: Sequence[LiteralString] | None
) -> Sequence[Composed]:
    """The statements for a table with these policies; `others` may read it, and no policy has applied to them yet."""
    wanted = [policy for role in roles for policy in _policies(role)]
    made = [_make(policy, table) for policy in wanted if found.get(policy.name) != policy]
    # No grant of the reader's: others may have revoked it.
    granted = [role for role in roles if role != READER and role not in found]
    if others is not None:
        made.append(SQL("ALTER TABLE {} ENABLE ROW LEVEL SECURITY").format(table))
    if others:
        every = SQL("CREATE POLICY {} ON {} FOR SELECT TO {} USING (true)")
        made.append(every.format(Identifier(GRANTED), table, SQL(", ").join(map(SQL, others))))
    return [
        *made,
        *(SQL("GRANT SELECT ON {} TO {}").format(table, Identifier(role)) for role in granted),
    ]


def _make(policy: Policy, table: Identifier) -> Composed:
    statement = SQL(
        "DROP POLICY IF EXISTS {name} ON {table}; "
        "CREATE POLICY {name} ON {table} AS {kind} FOR {command} TO {role} USING ({condition})"
    )
    return statement.format(
        name=Identifier(policy.name),
        table=table,
        kind=SQL("RESTRICTIVE" if policy.restrictive else "PERMISSIVE"),
        command=SQL("ALL" if policy.command == "*" else "SELECT"),
        role=Identifier(*policy.roles),
        condition=SQL(_SEEN[policy.roles[0]]),
    )


async def existing(connection: AsyncConnection[TupleRow]) -> list[str]:
    """Those of the roles that exist. Only a user that may make roles makes the others."""
    cursor = await connection.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", (list(ROLES),))
    found = {role for (role,) in await cursor.fetchall()}
    return [role for role in ROLES if role in found]
