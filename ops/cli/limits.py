"""`headrace limits`: list, set and remove limits of a tenant."""

from __future__ import annotations

from typing import Annotated

import typer

from domain.access.limits import OPERATOR, counted, parsed
from ops import terminal
from ops.cli.frame import Home, Json, Tenant, Wait, app, rows, run, send
from ops.settings import Settings

limits = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(limits, name="limits", help="List, set or remove limits of what a tenant sends, spends and has waiting.")

Operator = Annotated[bool, typer.Option("--operator", help="The operator's limit; default: the tenant's own.")]
Subject = Annotated[
    str, typer.Option(help="App id, user name or key that it is for; default: each of them, or the tenant.")
]

_DEFAULT = "default"


@limits.command(
    "list", epilog="Examples: [bold]headrace limits list[/] · [bold]headrace limits list --tenant acme --json[/]"
)
def list_limits(tenant: Tenant = None, home: Home = None, as_json: Json = False) -> None:
    """List the limits of a tenant: its own, the operator's, and the default ones that none of these replaces."""
    settings = Settings.load(home=home, tenant=tenant)
    query = "SELECT * FROM headrace.limits WHERE tenant_id = %(tenant)s ORDER BY quantity, period, scope, subject"
    found = run(rows(settings, query, tenant=settings.tenant))
    imposed = {row["id"] for row in found}
    found += [
        {"set_by": _DEFAULT, **counted(name)[0]._asdict(), "subject": "", "most": most}
        for name, most in parsed(settings.limits).items()
        if f"{OPERATOR}/{name}" not in imposed
    ]
    terminal.show_listing(found, ["set_by", "quantity", "period", "scope", "subject", "most"], as_json)


@limits.command(
    "set",
    epilog="Examples: [bold]headrace limits set messages/minute/user=60[/] · "
    "[bold]headrace limits set tokens/day=1000000 --tenant acme --operator[/] · "
    "[bold]headrace limits set messages/day/user=500 --subject maria[/]",
)
def set_limit(
    limit: Annotated[str, typer.Argument(help="Limit, as in the setting.", metavar="QUANTITY/PERIOD[/SCOPE]=MAXIMUM")],
    subject: Subject = "",
    operator: Operator = False,
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Set a limit. It holds after 5 s at the latest, for what comes then."""
    [(name, most)] = _one(limit).items()
    fields = {**counted(name)[0]._asdict(), "subject": subject, "most": most}
    send(f"limits.{'impose' if operator else 'set'}", fields, wait, tenant, home, as_json)


@limits.command(
    epilog="Examples: [bold]headrace limits remove messages/minute/user[/] · "
    "[bold]headrace limits remove tokens/day --tenant acme --operator[/]"
)
def remove(
    limit: Annotated[str, typer.Argument(help="Name of the limit.", metavar="QUANTITY/PERIOD[/SCOPE]")],
    subject: Subject = "",
    operator: Operator = False,
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Remove a limit. Where the operator's is removed, the default one holds again."""
    [name] = _one(f"{limit}=0")
    fields = {**counted(name)[0]._asdict(), "subject": subject}
    send(f"limits.{'lift' if operator else 'remove'}", fields, wait, tenant, home, as_json)


def _one(text: str) -> dict[str, int]:
    try:
        found = parsed(text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}.") from None
    if len(found) != 1:
        raise typer.BadParameter("Give exactly one limit.")
    return found
