"""`headrace nats`: the accounts of a NATS server of your own."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from adapters.jetstream import accounts as table
from adapters.jetstream.client import Unreachable
from adapters.jetstream.keys import JetStreamKeys
from adapters.jetstream.registry import JetStreamRegistry
from adapters.privacy.masters import secret
from domain.access.register import Register
from handlers.ports.log import Unavailable
from ops.cli.frame import Failed, Home, Json, app, connected, run
from ops.settings import Settings
from ops.terminal import emit

group = typer.Typer(help="Print the accounts for your own NATS.", no_args_is_help=True)
app.add_typer(group, name="nats")


@group.command(
    epilog="Examples: [bold]headrace nats accounts --tenant default > accounts.conf[/] · "
    "[bold]headrace nats accounts --log --callout > accounts.conf[/]"
)
def accounts(
    tenant: Annotated[
        list[str] | None, typer.Option(help="Tenant with an account of its own; repeatable.", show_default=False)
    ] = None,
    include: Annotated[
        str, typer.Option(help="File with the passwords, which the accounts include.", show_default=False)
    ] = "",
    log: Annotated[bool, typer.Option("--log", help="Add the tenants with bus logins or API keys in the log.")] = False,
    callout: Annotated[
        bool, typer.Option("--callout", help="Have the servers ask the role `commands` about all other users.")
    ] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Print the accounts, users and permissions of a NATS server, to include in its configuration.

    Passwords are variables of the server's environment, or of a file that is included, such as NATS_WORKER_PASSWORD and
    NATS_TENANT_ACME_PASSWORD.
    Those of bus logins follow from HEADRACE_NATS_KEY, and are written to a file or a pipe only.
    With --callout, bus logins and API keys are checked when they connect, and none is written: only a tenant's first
    one needs a reload. The public keys of the callout follow from HEADRACE_NATS_KEY.
    """
    if log and not callout and sys.stdout.isatty():
        raise Failed("Passwords are not shown in a terminal: write the accounts to a file.")
    settings = Settings.load(home=home)
    tenants = {name: [table.login(name)] for name in tenant or ()}
    known: dict[str, str] = {}
    if log:
        register = of_the_log(settings)
        for name in sorted({name for name, _ in (*register.logins, *register.keys)}):
            tenants.setdefault(name, [])
        if not callout:
            known = {user: table.password(key(settings), user, issue) for user, issue in users(register, tenants)}
    try:
        public = asked(settings) if callout else None
        configured = table.configuration(lambda user: known.get(user) or _variable(user), tenants, callout=public)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--tenant") from error
    if as_json:
        emit(configured)
    else:
        sys.stdout.write(f"include {include}\n" * bool(include) + table.written(configured))


def of_the_log(settings: Settings) -> Register:
    """The register of the log. Raises: Unreachable."""

    async def read() -> Register:
        async with connected(settings) as client:
            keys = JetStreamKeys(client.connection, settings.vault())
            try:
                return await JetStreamRegistry(client.connection, keys).now()
            except Unavailable as error:
                raise Unreachable(str(error)) from error

    return run(read())


def asked(settings: Settings) -> table.Callout:
    """The public keys of the callout."""
    from adapters.jetstream.callout import Keys  # its ciphers would slow down all commands

    return Keys.of(key(settings)).public


def users(register: Register, tenants: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    """Add the users of open logins to their tenants, and return each with the issue of its password."""
    for (tenant, name), issue in sorted(register.logins.items()):
        user = table.login(tenant, name)
        tenants[tenant].append(user)
        yield user, issue


def key(settings: Settings) -> bytes:
    """The key from which passwords follow, and the keys of the callout."""
    given = settings.nats_key.get_secret_value() if settings.nats_key else secret(settings.home / "nats.key")
    return given.encode()


def _variable(user: str) -> str:
    return f"$NATS_{re.sub('[^A-Z0-9]', '_', user.upper())}_PASSWORD"
