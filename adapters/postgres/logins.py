"""Logins of the roles in a PostgreSQL of the operator's own, as a script for psql.

On the embedded server, `reader` and `indexer` make them instead.
"""

from __future__ import annotations

from psycopg.conninfo import make_conninfo

from adapters.postgres import rights
from adapters.postgres.policies import READER, ROLES, TENANTS
from adapters.postgres.reader import FIXED, RESERVED
from adapters.postgres.tables import connect

OWNER, INDEXER = "headrace_owner", "headrace_indexer"
"""Owner of the tables (setup, `project`), owner of the search index (`ingest`, `answer`)."""

VIEWER, EXPORTER = "headrace_viewer", "headrace_exporter"
"""Readers (`view`, `export`); the exporter takes a lock as well, since one exporter works at a time."""

PASSWORDS = {
    OWNER: "POSTGRES_OWNER_PASSWORD",
    INDEXER: "POSTGRES_INDEX_PASSWORD",
    VIEWER: "POSTGRES_VIEW_PASSWORD",
    EXPORTER: "POSTGRES_EXPORT_PASSWORD",
}
"""Files of the passwords, by login."""

_HEAD = """\
-- Logins of Headrace's roles: docs/security.md. Made by `headrace postgres roles`. Run it with psql as a superuser, in
-- the database of Headrace; again to change passwords. They are read from files in the folder SECRETS.
\\set ON_ERROR_STOP on
"""


def script() -> str:
    """The script for psql; it can be run again."""
    names = [*ROLES, *PASSWORDS]
    passwords = [
        f'\\set {login}_password `cat "${{SECRETS:-/run/secrets}}/{file}"`\n' for login, file in PASSWORDS.items()
    ]
    logins = [
        f"ALTER ROLE {login} LOGIN NOSUPERUSER NOCREATEDB {_roles(login)} PASSWORD :'{login}_password';\n"
        for login in PASSWORDS
    ]
    missing = (
        f"SELECT format('CREATE ROLE %I', role) FROM unnest('{{{','.join(names)}}}'::text[]) role\n"
        "WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) \\gexec\n"
    )
    granted = (
        f"GRANT {READER} TO {INDEXER}, {VIEWER}, {EXPORTER};\n"
        f"GRANT {RESERVED} TO {', '.join(PASSWORDS)};\n"
        "-- `project` makes the SQL logins of tenants, and ends their sessions.\n"
        f"GRANT {TENANTS} TO {OWNER} WITH ADMIN OPTION;\n"
        f"GRANT EXECUTE ON FUNCTION pg_terminate_backend TO {OWNER};\n"
        f"GRANT SET ON PARAMETER {', '.join(FIXED)} TO {OWNER};\n"
        "-- `headrace setup` makes the index on behalf of its owner.\n"
        f"GRANT {INDEXER} TO {OWNER};\n"
        f"SELECT format('GRANT CREATE ON DATABASE %I TO {OWNER}, {INDEXER}', current_database()) \\gexec\n"
        "CREATE EXTENSION IF NOT EXISTS vector;\n"
        "-- Readers run no function that does more than read.\n"
        f"{rights.for_psql(OWNER, INDEXER, EXPORTER)}"
    )
    return "".join([_HEAD, *passwords, missing, *logins, granted])


def _roles(login: str) -> str:
    """The attribute for making roles. With it, a role can change those that it has made, and no others."""
    return "CREATEROLE" if login == OWNER else "NOCREATEROLE"


async def as_indexer(url: str) -> str:
    """The address with the rights of the owner of the index, if there is such a login and the user is its member."""
    async with connect(url) as connection:
        found = await connection.execute(
            "SELECT FROM pg_roles WHERE rolname = %s AND pg_has_role(user, oid, 'MEMBER') "
            "AND has_database_privilege(oid, current_database(), 'CREATE')",
            (INDEXER,),
        )
        return make_conninfo(url, options=f"-c role={INDEXER}") if found.rowcount else url
