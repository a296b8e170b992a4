"""`headrace nats`: the accounts of a NATS server of your own."""

from __future__ import annotations

import re
import sys
from typing import Annotated

import typer

from adapters.jetstream import accounts as table
from adapters.jetstream.bus_logins import open_logins
from adapters.jetstream.client import Unreachable
from adapters.jetstream.keys import JetStreamKeys
from adapters.privacy.masters import secret
from handlers.ports.log import Unavailable
from ops.cli.frame import Failed, Home, Json, app, connected, run
from ops.settings import Settings
from ops.terminal import emit

group = typer.Typer(help="Print the accounts for your own NATS.", no_args_is_help=True)
app.add_typer(group, name="nats")


@group.command(
    epilog="Examples: [bold]headrace nats accounts --tenant default > accounts.conf[/] · "
    "[bold]headrace nats accounts --log > accounts.conf[/]"
)
def accounts(
    tenant: Annotated[
        list[str] | None, typer.Option(help="Tenant with an account of its own; repeatable.", show_default=False)
    ] = None,
    include: Annotated[
        str, typer.Option(help="File with the passwords, which the accounts include.", show_default=False)
    ] = "",
    log: Annotated[bool, typer.Option("--log", help="Add the bus logins of the log, with their passwords.")] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Print the accounts, users and permissions of a NATS server, to include in its configuration.

    Passwords are variables of the server's environment, or of a file that is included, such as NATS_WORKER_PASSWORD and
    NATS_TENANT_ACME_PASSWORD.
    Those of bus logins follow from HEADRACE_NATS_KEY, and are written to a file or a pipe only.
    """
    if log and sys.stdout.isatty():
        raise Failed("Passwords are not shown in a terminal: write the accounts to a file.")
    passwords = of_the_log(Settings.load(home=home)) if log else {}
    tenants = {name: [table.login(name)] for name in tenant or ()}
    for name, user in passwords:
        tenants.setdefault(name, []).append(user)
    known = {user: password for (_, user), password in passwords.items()}
    try:
        configured = table.configuration(lambda user: known.get(user) or _variable(user), tenants)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--tenant") from error
    if as_json:
        emit(configured)
    else:
        sys.stdout.write(f"include {include}\n" * bool(include) + table.written(configured))


def of_the_log(settings: Settings) -> dict[tuple[str, str], str]:
    """The password of each open login of the log, by tenant and user. Raises: Unreachable."""

    async def read() -> dict[str, dict[str, str]]:
        async with connected(settings) as client:
            keys = JetStreamKeys(client.connection, settings.vault())
            try:
                return await open_logins(client.connection, keys)
            except Unavailable as error:
                raise Unreachable(str(error)) from error

    key = settings.nats_key.get_secret_value() if settings.nats_key else secret(settings.home / "nats.key")
    found = {}
    for tenant, names in run(read()).items():
        for name, issue in names.items():
            user = table.login(tenant, name)
            found[tenant, user] = table.password(key.encode(), user, issue)
    return found


def _variable(user: str) -> str:
    return f"$NATS_{re.sub('[^A-Z0-9]', '_', user.upper())}_PASSWORD"
