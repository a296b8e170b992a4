"""`headrace postgres`: the logins of a PostgreSQL of your own."""

from __future__ import annotations

import sys

import typer

from adapters.postgres import logins
from ops.cli.frame import Json, app
from ops.terminal import emit

group = typer.Typer(help="Print the logins for your own PostgreSQL.", no_args_is_help=True)
app.add_typer(group, name="postgres")


@group.command(epilog="Example: [bold]headrace postgres roles | SECRETS=/srv/secrets psql -d headrace[/]")
def roles(as_json: Json = False) -> None:
    """Print a script for psql that makes a login for each role of Headrace, with no more rights than it needs.

    It reads the passwords from files in the folder SECRETS: POSTGRES_OWNER_PASSWORD, POSTGRES_INDEX_PASSWORD,
    POSTGRES_VIEW_PASSWORD and POSTGRES_EXPORT_PASSWORD.
    """
    if as_json:
        emit({"script": logins.script(), "passwords": logins.PASSWORDS})
    else:
        sys.stdout.write(logins.script())
