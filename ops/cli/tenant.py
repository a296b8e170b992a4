"""`headrace tenant`: tenants, their members and invitations, and what they leave."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs, urlsplit

import typer

from adapters.jetstream.client import Client, Outcome
from adapters.privacy.api_keys import digest, invitation_link, new_invitation
from domain.access.tenant import GIVEN_ROLES, HOUSE
from handlers.ports.log import Unavailable
from ops import terminal
from ops.cli.account import account_id
from ops.cli.frame import Failed, Home, Json, Wait, Yes, app, conclude, confirm, connected, read_text, rows, run
from ops.settings import Settings
from ops.terminal import emit, say

tenant = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(
    tenant, name="tenant", help="Create, list, change, archive and export tenants, with members and invitations."
)

TenantName = Annotated[str, typer.Argument(help="Tenant, as in subjects; _house for the operators.", metavar="TENANT")]
Account = Annotated[str, typer.Argument(help="Id or e-mail address of the account.", metavar="ACCOUNT")]
RoleOption = Annotated[str, typer.Option("--role", help=f"{', '.join(GIVEN_ROLES)}.")]


@tenant.command(
    epilog="Examples: [bold]headrace tenant create acme --owner ada@example.org --name Acme[/] · "
    "[bold]headrace tenant create _house --owner ada@example.org[/]"
)
def create(
    tenant: TenantName,
    owner: Annotated[str, typer.Option(help="Id or e-mail address of the owner's account.")],
    name: Annotated[str | None, typer.Option(help="Name, for people; default: as in subjects.")] = None,
    wait: Wait = 10.0,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Create a tenant with its owner. What the name had before, without an owner, stays."""
    _send("create", tenant, wait, Settings.load(home=home), as_json, owner=owner, name=name or tenant)


@tenant.command("list", epilog="Examples: [bold]headrace tenant list[/] · [bold]headrace tenant list --json[/]")
def list_tenants(home: Home = None, as_json: Json = False) -> None:
    """List the tenants that were created, with the number of their members."""
    found = run(rows(Settings.load(home=home), f"{_TENANTS} ORDER BY id"))
    terminal.show_listing(found, ["id", "name", "owner_account_id", "status", "members", "created_at"], as_json)


@tenant.command(epilog="Example: [bold]headrace tenant show acme[/]")
def show(tenant: TenantName, home: Home = None, as_json: Json = False) -> None:
    """Show a tenant."""
    found = run(rows(Settings.load(home=home), f"{_TENANTS} WHERE id = %(id)s", id=tenant))
    if not found:
        raise Failed(f"No tenant {tenant} was created; see `headrace tenant list`.")
    terminal.show_fields(found[0], as_json)


@tenant.command(epilog='Example: [bold]headrace tenant rename acme "Acme Ltd"[/]')
def rename(
    tenant: TenantName,
    name: Annotated[str, typer.Argument(help="Name, for people.")],
    wait: Wait = 10.0,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Rename a tenant; its name in subjects stays."""
    _send("rename", tenant, wait, Settings.load(home=home), as_json, name=name)


# --- members -----------------------------------------------------------------------------------------------------


@tenant.command(epilog="Examples: [bold]headrace tenant members acme[/] · [bold]headrace tenant members acme --json[/]")
def members(tenant: TenantName, home: Home = None, as_json: Json = False) -> None:
    """List the members of a tenant with their roles."""
    query = """
        SELECT account_id, role, accounts.kind, accounts.name, accounts.email, accounts.status, joins.created_at
        FROM headrace.tenant_account_joins joins LEFT JOIN headrace.accounts ON accounts.id = account_id
        WHERE joins.tenant_id = %(id)s ORDER BY joins.created_at, account_id
    """
    found = run(rows(Settings.load(home=home), query, id=tenant))
    terminal.show_listing(found, ["account_id", "role", "kind", "name", "email", "status", "created_at"], as_json)


@tenant.command(epilog="Example: [bold]headrace tenant add acme bo@example.org --role editor[/]")
def add(
    tenant: TenantName,
    account: Account,
    role: RoleOption,
    wait: Wait = 10.0,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Make an account a member of a tenant."""
    _send("add_member", tenant, wait, Settings.load(home=home), as_json, account=account, role=_one_of(role))


@tenant.command(epilog="Example: [bold]headrace tenant role acme bo@example.org --role viewer[/]")
def role(
    tenant: TenantName,
    account: Account,
    role: RoleOption,
    wait: Wait = 10.0,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Give a member another role."""
    _send("set_role", tenant, wait, Settings.load(home=home), as_json, account=account, role=_one_of(role))


@tenant.command(epilog="Example: [bold]headrace tenant remove acme bo@example.org[/]")
def remove(tenant: TenantName, account: Account, wait: Wait = 10.0, home: Home = None, as_json: Json = False) -> None:
    """Remove a member from a tenant."""
    _send("remove_member", tenant, wait, Settings.load(home=home), as_json, account=account)


@tenant.command(epilog="Example: [bold]headrace tenant transfer acme bo@example.org[/]")
def transfer(tenant: TenantName, account: Account, wait: Wait = 10.0, home: Home = None, as_json: Json = False) -> None:
    """Make another account the owner; the former one becomes an admin."""
    _send("transfer", tenant, wait, Settings.load(home=home), as_json, account=account)


# --- invitations -------------------------------------------------------------------------------------------------


@tenant.command(
    epilog="Examples: [bold]headrace tenant invite acme --role editor[/] · "
    "[bold]headrace tenant invite acme --role viewer --days 2 > invitation.txt[/]"
)
def invite(
    tenant: TenantName,
    role: RoleOption,
    days: Annotated[int, typer.Option(min=1, max=90, help="Days after which the invitation ends.")] = 7,
    address: Annotated[
        str | None,
        typer.Option(help="Address of the viewer; default: the one that runs on this home.", show_default=False),
    ] = None,
    wait: Wait = 10.0,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Invite to a tenant: print a link, once, or where there is no viewer its secret. It makes one account a member."""
    settings, secret = Settings.load(home=home), new_invitation()
    viewer = address or settings.viewer or ""
    link = invitation_link(viewer, tenant, secret) if viewer else None
    ends_at = (datetime.now(UTC) + timedelta(days=days)).isoformat()
    fields = {"digest": digest(secret), "role": _one_of(role), "ends_at": ends_at}
    outcome = run(_outcome("invite", tenant, wait, settings, fields))
    if outcome["status"] == "rejected":
        conclude(outcome, as_json)
    terminal.give_secret(link or secret, outcome, as_json, secret=secret, link=link)


@tenant.command(
    epilog="Examples: [bold]headrace tenant accept acme bo@example.org[/] · "
    "[bold]headrace tenant accept acme bo@example.org --secret-file invitation.txt[/]"
)
def accept(
    tenant: TenantName,
    account: Account,
    secret_file: Annotated[
        str, typer.Option(help="File with the link or the secret; - reads standard input, hidden in a terminal.")
    ] = "-",
    wait: Wait = 10.0,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Make an account a member by an invitation, as the operator who knows the person."""
    settings = Settings.load(home=home)
    given = read_text("Link or secret", secret_file).strip()
    [secret] = parse_qs(urlsplit(given).query).get("secret", [given])
    _send("accept", tenant, wait, settings, as_json, account=account, digest=digest(secret))


@tenant.command(
    epilog="Examples: [bold]headrace tenant invitations acme[/] · "
    "[bold]headrace tenant invitations acme --all --json[/]"
)
def invitations(
    tenant: TenantName,
    everything: Annotated[bool, typer.Option("--all", help="Also those that were used, withdrawn, or have ended.")] = (
        False
    ),
    home: Home = None,
    as_json: Json = False,
) -> None:
    """List the invitations of a tenant, oldest first."""
    query = """
        SELECT *, status = 'open' AND ends_at > now() AS open FROM headrace.tenant_invitations
        WHERE tenant_id = %(id)s ORDER BY created_at, id
    """
    found = [each for each in run(rows(Settings.load(home=home), query, id=tenant)) if everything or each["open"]]
    terminal.show_listing(found, ["id", "role", "status", "ends_at", "account_id", "created_by"], as_json)


@tenant.command(epilog="Example: [bold]headrace tenant withdraw acme ID[/]")
def withdraw(
    tenant: TenantName,
    id: Annotated[str, typer.Argument(help="Id of the invitation, as in the list.", metavar="ID")],
    wait: Wait = 10.0,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Withdraw an invitation."""
    _send("withdraw", tenant, wait, Settings.load(home=home), as_json, digest=id)


# --- the end -----------------------------------------------------------------------------------------------------


@tenant.command(epilog="Examples: [bold]headrace tenant archive acme[/] · [bold]headrace tenant archive acme --yes[/]")
def archive(tenant: TenantName, yes: Yes = False, wait: Wait = 10.0, home: Home = None, as_json: Json = False) -> None:
    """Archive a tenant: it can be read, and nothing in it changes. `unarchive` undoes it."""
    settings = Settings.load(home=home)
    confirm(f"Archive the tenant {tenant}? Its apps stop answering.", yes)
    _send("archive", tenant, wait, settings, as_json)


@tenant.command(epilog="Example: [bold]headrace tenant unarchive acme[/]")
def unarchive(tenant: TenantName, wait: Wait = 10.0, home: Home = None, as_json: Json = False) -> None:
    """Let an archived tenant change again."""
    _send("unarchive", tenant, wait, Settings.load(home=home), as_json)


@tenant.command(
    epilog="Examples: [bold]headrace tenant export acme /backup/acme[/] · "
    "[bold]cd /backup/acme && sha256sum --check SHA256SUMS[/]"
)
def export(
    tenant: TenantName,
    folder: Annotated[Path, typer.Argument(help="Folder that is made, or empty.", metavar="FOLDER")],
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Export all of a tenant, readable: its events, blobs, and rows of the tables. If interrupted, run it again.

    The folder holds words of people, and is yours to protect and delete: no erasure reaches it.
    """
    settings = Settings.load(home=home)
    from ops.upkeep.tenant_export import NoExport
    from ops.upkeep.tenant_export import export as work

    with terminal.counting(as_json) as progress:
        try:
            exported = run(work(settings, tenant, folder, progress))
        except (NoExport, Unavailable) as error:
            raise Failed(str(error)) from error
    if as_json:
        emit(exported)
    else:
        number = sum(exported["rows"].values())
        say(f"Exported {exported['commits']:,} commits, {exported['blobs']:,} blobs and {number:,} rows to {folder}.")
    for name, reason in exported["unreadable"].items():
        terminal.complain(f"{name} {reason}.")
    if exported["unreadable"]:
        raise typer.Exit(1)


_TENANTS = """
    SELECT *, (
        SELECT count(*) FROM headrace.tenant_account_joins joins WHERE joins.tenant_id = tenants.id
    ) AS members FROM headrace.tenants
"""


def _one_of(role: str) -> str:
    if role not in GIVEN_ROLES:
        raise typer.BadParameter(f"{role!r} is not one of {', '.join(GIVEN_ROLES)}.", param_hint="--role")
    return role


def _send(verb: str, tenant: str, wait: float, settings: Settings, as_json: bool, **fields: Any) -> None:
    conclude(run(_outcome(verb, tenant, wait, settings, fields)), as_json)


async def _outcome(verb: str, tenant: str, wait: float, settings: Settings, fields: dict[str, Any]) -> Outcome:
    """Send a command about a tenant, with the ids of the accounts that it names."""
    for name in ("account", "owner"):
        if name in fields:
            fields = {**fields, name: await account_id(settings, fields[name])}
    async with connected(settings) as client:
        return await Client(client.connection, HOUSE).send(f"tenant.{verb}", {"tenant": tenant, **fields}, wait=wait)
