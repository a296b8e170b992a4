"""Secrets of end users for toolsets whose servers know each user: `headrace toolset set-user-secret` and others."""

from __future__ import annotations

from typing import Annotated

import typer

from ops import terminal
from ops.cli.frame import Home, Json, Tenant, Wait, read_text, rows, run, send
from ops.cli.toolset import Name, toolset
from ops.settings import Settings

User = Annotated[str, typer.Argument(help="End user, as apps name them.", metavar="USER")]

QUERY = """
SELECT s.toolset, u.session_id AS "user", s.person_id, s.set_by, s.updated_at FROM headrace.user_secrets s
LEFT JOIN LATERAL (SELECT session_id FROM headrace.end_users u
    WHERE u.tenant_id = s.tenant_id AND u.person_id = s.person_id LIMIT 1) u ON true
WHERE s.tenant_id = %(tenant)s AND (%(toolset)s::text IS NULL OR s.toolset = %(toolset)s)
ORDER BY s.toolset, s.person_id"""


@toolset.command(
    "set-user-secret", epilog="Example: [bold]headrace toolset set-user-secret crm ada --secret-file ada.txt[/]"
)
def set_user_secret(
    toolset: Name,
    user: User,
    secret_file: Annotated[
        str, typer.Option(help="File with the secret; - asks for it, or reads standard input.")
    ] = "-",
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Set the secret of an end user, which the calls of this user's turns send."""
    fields = {"toolset": toolset, "user": user, "secret": read_text("Secret", secret_file)}
    send("user_secret.set", fields, wait, tenant, home, as_json)


@toolset.command("remove-user-secret", epilog="Example: [bold]headrace toolset remove-user-secret crm ada[/]")
def remove_user_secret(
    toolset: Name,
    user: User,
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Remove the secret of an end user."""
    send("user_secret.remove", {"toolset": toolset, "user": user}, wait, tenant, home, as_json)


@toolset.command(
    "user-secrets",
    epilog="Examples: [bold]headrace toolset user-secrets[/] · [bold]headrace toolset user-secrets crm --json[/]",
)
def user_secrets(
    toolset: Annotated[str | None, typer.Argument(help="Name of the toolset. Default: all.", metavar="TOOLSET")] = None,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """List the end users who have a secret."""
    settings = Settings.load(home=home, tenant=tenant)
    found = run(rows(settings, QUERY, tenant=settings.tenant, toolset=toolset))
    terminal.show_listing(found, ["toolset", "user", "person_id", "set_by", "updated_at"], as_json)
