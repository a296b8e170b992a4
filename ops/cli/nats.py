"""`headrace nats`: the accounts of a NATS server of your own."""

from __future__ import annotations

import re
import sys
from typing import Annotated

import typer

from adapters.jetstream import accounts as table
from ops.cli.frame import Json, app
from ops.terminal import emit

group = typer.Typer(help="Print the accounts for your own NATS.", no_args_is_help=True)
app.add_typer(group, name="nats")


@group.command(epilog="Example: [bold]headrace nats accounts --tenant default --tenant acme > accounts.conf[/]")
def accounts(
    tenant: Annotated[
        list[str] | None, typer.Option(help="Tenant with an account of its own; repeatable.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the accounts, users and permissions of a NATS server, to include in its configuration.

    Passwords are variables of the server's environment: NATS_WORKER_PASSWORD, NATS_TENANT_ACME_PASSWORD.
    """
    configured = table.configuration(_variable, tenant or ())
    if as_json:
        emit(configured)
    else:
        sys.stdout.write(table.written(configured))


def _variable(user: str) -> str:
    return f"$NATS_{re.sub('[^A-Z0-9]', '_', user.upper())}_PASSWORD"
