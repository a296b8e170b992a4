"""`headrace account`: accounts of people and services."""

from __future__ import annotations

import asyncio
import sys
import time
from getpass import getpass
from typing import Annotated, Any

import typer

from adapters.jetstream.client import Client, Outcome
from domain.access.tenant import HOUSE
from ops import terminal
from ops.cli.frame import (
    Failed,
    Home,
    Json,
    Wait,
    Yes,
    app,
    conclude,
    confirm,
    connected,
    read_text,
    rows,
    run,
)
from ops.settings import Settings

LAG_S = 3.0
"""Time in which the tables have an account that was just created, in seconds."""

account = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(account, name="account", help="Create, list, change and erase accounts of people and services.")

Account = Annotated[str, typer.Argument(help="Id or e-mail address of the account.", metavar="ACCOUNT")]
PasswordFile = Annotated[
    str | None,
    typer.Option(help="File with the password; - reads standard input. Default: it is asked for.", show_default=False),
]


@account.command(
    epilog="Examples: [bold]headrace account create ada@example.org --name Ada --owner-of _house[/] · "
    "[bold]headrace account create bo@example.org --name Bo --password-file -[/] · "
    "[bold]headrace account create --service --name Importer[/]"
)
def create(
    name: Annotated[str, typer.Option(help="Name, for people.")],
    email: Annotated[
        str | None, typer.Argument(help="E-mail address of the person.", metavar="[EMAIL]", show_default=False)
    ] = None,
    service: Annotated[
        bool, typer.Option("--service", help="Of a service, which has no address and signs in with API keys.")
    ] = False,
    password_file: PasswordFile = None,
    no_password: Annotated[
        bool, typer.Option("--no-password", help="Without a password: the person cannot sign in until one is set.")
    ] = False,
    owner_of: Annotated[
        list[str] | None,
        typer.Option(help="Tenant that is created with this account as its owner; repeatable.", show_default=False),
    ] = None,
    wait: Wait = 10.0,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Create an account. A password is asked for, or read from a file: it is never an argument."""
    if service == bool(email):
        raise typer.BadParameter("Give either an e-mail address or --service.", param_hint="EMAIL")
    settings = Settings.load(home=home)
    payload: dict[str, Any] = {"name": name}
    if email:
        payload |= {"email": email, "password": None if no_password else run(_hashed(password_file, email))}

    async def work() -> list[Outcome]:
        async with connected(settings) as client:
            house = Client(client.connection, HOUSE)
            made = await house.send("account.create_service" if service else "account.create", payload, wait=wait)
            outcomes = [made]
            for tenant in owner_of or [] if made["status"] == "accepted" else []:
                fields = {"tenant": tenant, "owner": made["ids"]["account"], "name": tenant}
                outcomes.append(await house.send("tenant.create", fields, wait=wait))
            return outcomes

    for outcome in run(work()):
        conclude(outcome, as_json)


@account.command(
    "list", epilog="Examples: [bold]headrace account list[/] · [bold]headrace account list --all --json[/]"
)
def list_accounts(
    everything: Annotated[bool, typer.Option("--all", help="Also those that were erased.")] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """List the accounts with their roles, by tenant, oldest first."""
    found = run(rows(Settings.load(home=home), f"{_ACCOUNTS} ORDER BY created_at, id"))
    shown = [each for each in found if everything or each["status"] != "erased"]
    terminal.show_listing(shown, ["id", "kind", "name", "email", "status", "roles", "created_at"], as_json)


@account.command(epilog="Example: [bold]headrace account show ada@example.org[/]")
def show(account: Account, home: Home = None, as_json: Json = False) -> None:
    """Show an account with its roles, by tenant."""
    settings = Settings.load(home=home)

    async def work() -> list[dict[str, Any]]:
        return await rows(settings, f"{_ACCOUNTS} WHERE id = %(id)s", id=await account_id(settings, account))

    if not (found := run(work())):
        raise Failed(f"There is no account {account}; see `headrace account list`.")
    terminal.show_fields(found[0], as_json)


@account.command(epilog='Example: [bold]headrace account rename ada@example.org "Ada Lovelace"[/]')
def rename(
    account: Account,
    name: Annotated[str, typer.Argument(help="Name, for people.")],
    wait: Wait = 10.0,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Rename an account."""
    _send("rename", account, wait, Settings.load(home=home), as_json, name=name)


@account.command(
    epilog="Examples: [bold]headrace account password ada@example.org[/] · "
    "[bold]headrace account password ada@example.org --password-file secret.txt[/]"
)
def password(
    account: Account,
    password_file: PasswordFile = None,
    wait: Wait = 10.0,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Set the password of an account, and end its sessions."""
    settings = Settings.load(home=home)
    hashed = run(_hashed(password_file, account if "@" in account else ""))
    _send("change_password", account, wait, settings, as_json, password=hashed)


@account.command(epilog="Example: [bold]headrace account disable ada@example.org[/]")
def disable(account: Account, wait: Wait = 10.0, home: Home = None, as_json: Json = False) -> None:
    """Disable an account: its sessions end, its keys are refused."""
    _send("disable", account, wait, Settings.load(home=home), as_json)


@account.command(epilog="Example: [bold]headrace account enable ada@example.org[/]")
def enable(account: Account, wait: Wait = 10.0, home: Home = None, as_json: Json = False) -> None:
    """Enable a disabled account again."""
    _send("enable", account, wait, Settings.load(home=home), as_json)


@account.command("sign-out", epilog="Example: [bold]headrace account sign-out ada@example.org[/]")
def sign_out(account: Account, wait: Wait = 10.0, home: Home = None, as_json: Json = False) -> None:
    """End every session of an account."""
    _send("sign_out", account, wait, Settings.load(home=home), as_json)


@account.command(
    epilog="Examples: [bold]headrace account erase ada@example.org[/] · [bold]headrace account erase ID --yes[/]"
)
def erase(account: Account, yes: Yes = False, wait: Wait = 10.0, home: Home = None, as_json: Json = False) -> None:
    """Erase an account: name, e-mail address and password can never be read again."""
    settings = Settings.load(home=home)
    confirm(f"Erase the account {account} for ever?", yes)
    _send("erase", account, wait, settings, as_json)


async def account_id(settings: Settings, text: str) -> str:
    """The id of the account with this id or e-mail address. Raises: Failed."""
    if "@" not in text:
        return text
    query = "SELECT id FROM headrace.accounts WHERE email = lower(%(email)s) AND status <> 'erased'"
    deadline = time.monotonic() + LAG_S
    while not (found := await rows(settings, query, email=text.strip())):
        if time.monotonic() > deadline:
            raise Failed(f"There is no account of {text}; see `headrace account list`.")
        await asyncio.sleep(0.2)
    return str(found[0]["id"])


_ACCOUNTS = """
    SELECT *, (
        SELECT coalesce(jsonb_object_agg(tenant_id, role), '{}') FROM headrace.tenant_account_joins
        WHERE account_id = accounts.id
    ) AS roles FROM headrace.accounts
"""


async def _hashed(file: str | None, email: str) -> str:
    """The hash of a password that is read, or asked for twice. Raises: Failed."""
    from adapters.privacy import passwords  # its library would slow down all commands

    if file:
        chosen = read_text("Password", file)
    elif not sys.stdin.isatty():
        raise Failed("There is no terminal to ask for the password: name a file with --password-file.")
    else:
        chosen = getpass("Password: ")
        if getpass("Password again: ") != chosen:
            raise Failed("The passwords differ.")
    try:
        return await passwords.hash(chosen, email)
    except ValueError as error:
        raise Failed(str(error)) from error


def _send(verb: str, account: str, wait: float, settings: Settings, as_json: bool, **fields: Any) -> None:
    async def work() -> Outcome:
        payload = {"account": await account_id(settings, account), **fields}
        async with connected(settings) as client:
            return await Client(client.connection, HOUSE).send(f"account.{verb}", payload, wait=wait)

    conclude(run(work()), as_json)
