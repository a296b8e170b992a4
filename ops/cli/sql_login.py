"""`headrace sql-login`: create, list and revoke logins that read a tenant's rows by SQL."""

from __future__ import annotations

import asyncio
import shlex
import sys
from contextlib import suppress
from typing import Annotated

import psycopg
import typer
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from adapters.privacy.scram import new_password, verifier
from domain.access.sql_login import role_of
from handlers.commands.fields import is_uuid
from ops import terminal
from ops.cli.frame import Failed, Home, Json, Tenant, Wait, app, conclude, outcome_of, rows, run
from ops.settings import READER, Settings
from ops.terminal import emit, say

logins = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(logins, name="sql-login", help="Create, list or revoke logins that read a tenant's rows by SQL.")

INCOMPLETE = 3
"""Exit status of `create` when PostgreSQL does not accept the login yet."""

VARIABLES = {
    "host": "PGHOST",
    "port": "PGPORT",
    "dbname": "PGDATABASE",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
}
"""Variables that `psql` and other clients of libpq read, by the parts of an address."""


@logins.command(
    epilog="Examples: [bold]headrace sql-login create bi --tenant acme[/] · "
    "[bold]headrace sql-login create bi > bi.env[/] · [bold]headrace sql-login create bi --json[/]"
)
def create(
    name: Annotated[str, typer.Argument(help="Name, for people.")],
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Create a login that reads the rows of one tenant, and show its password, which cannot be shown again.

    Into a file or pipe, it writes exports for a shell. The exit status is 3 when PostgreSQL does not accept the login
    within the wait; see `headrace doctor`.
    """
    settings = Settings.load(home=home, tenant=tenant)
    address = settings.located("postgres", role=READER).postgres_url
    password = new_password()
    outcome = run(outcome_of(settings, "sql_login.create", {"name": name, "verifier": verifier(password)}, wait))
    if outcome["status"] == "rejected":
        conclude(outcome, as_json)
    role = role_of(settings.tenant, outcome["command"])
    url = make_conninfo(address, user=role, password=password)
    refusal = run(_refusal(url, wait))
    login = {part: str(value) for part, value in conninfo_to_dict(url).items() if part in VARIABLES}
    if as_json:
        emit({"id": outcome["command"], "name": name, **login})
    elif sys.stdout.isatty():
        say(f"SQL login {name}, {outcome['command']}. Its password is shown only now.")
        for part in VARIABLES:
            if part in login:
                say(f"  {part:<12}{login[part]}")
    else:
        sys.stdout.writelines(
            f"export {variable}={shlex.quote(login[part])}\n" for part, variable in VARIABLES.items() if part in login
        )
    if refusal:
        terminal.complain(f"PostgreSQL does not accept the login yet ({refusal}): see `headrace doctor`.")
        raise typer.Exit(INCOMPLETE)


@logins.command(
    "list", epilog="Examples: [bold]headrace sql-login list[/] · [bold]headrace sql-login list --tenant acme --json[/]"
)
def list_logins(tenant: Tenant = None, home: Home = None, as_json: Json = False) -> None:
    """List the SQL logins of a tenant, revoked ones as well."""
    settings = Settings.load(home=home, tenant=tenant)
    query = "SELECT * FROM headrace.sql_logins WHERE tenant_id = %(tenant)s ORDER BY created_at, id"
    found = run(rows(settings, query, tenant=settings.tenant))
    terminal.show_listing(found, ["id", "name", "role", "status", "created_at", "revoked_at"], as_json)


@logins.command(
    epilog="Examples: [bold]headrace sql-login revoke bi[/] · [bold]headrace sql-login revoke ID --tenant acme[/]"
)
def revoke(
    login: Annotated[
        str, typer.Argument(help="SQL login, by its id, or by a name or role that no other active one has.")
    ],
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Revoke a login for good. Its sessions are ended."""
    settings = Settings.load(home=home, tenant=tenant)
    id = login if is_uuid(login) else _active(settings, login)
    conclude(run(outcome_of(settings, "sql_login.revoke", {"sql_login": id}, wait)), as_json)


def _active(settings: Settings, login: str) -> str:
    """The id of the one active login with this name or role. Raises: Failed."""
    query = (
        "SELECT id FROM headrace.sql_logins "
        "WHERE tenant_id = %(tenant)s AND status = 'active' AND %(login)s IN (name, role)"
    )
    found = [row["id"] for row in run(rows(settings, query, tenant=settings.tenant, login=login))]
    if len(found) != 1:
        many = f"{len(found)} active SQL logins are" if found else "No active SQL login is"
        raise Failed(f"{many} named {login!r}: give its id, from `headrace sql-login list`.")
    return str(found[0])


async def _refusal(url: str, wait: float) -> str:
    """Wait until PostgreSQL accepts a login; return its last error after `wait` seconds, else an empty text."""
    error = ""
    with suppress(TimeoutError):
        async with asyncio.timeout(wait):
            while True:
                try:
                    async with await psycopg.AsyncConnection.connect(url):
                        return ""
                except psycopg.OperationalError as refused:
                    error = terminal.one_line(refused)
                await asyncio.sleep(0.05)
    return error or "no answer"
