"""`headrace toolset login`: the login of a person to the MCP server of a toolset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from adapters.jetstream.client import Outcome
from handlers.ports.tools import ToolError
from ops.cli.frame import Failed, Home, Json, Tenant, Wait, conclude, connected, read_text, rows, run
from ops.cli.toolset import toolset
from ops.egress import tool_egress
from ops.settings import Settings
from ops.terminal import clean

QUERY = """
SELECT kind, description, settings, timeout_s FROM headrace.toolsets
WHERE tenant_id = %(tenant)s AND id = %(name)s AND status = 'active'"""


@toolset.command(
    epilog="Examples: [bold]headrace toolset login calendar[/] · "
    "[bold]headrace toolset login calendar --user ada[/] · "
    "[bold]headrace toolset login calendar --client-id ID --client-secret secret.txt --port 8765[/]"
)
def login(
    name: Annotated[str, typer.Argument(help="Toolset of kind mcp, with the address of its server.")],
    client_id: Annotated[
        str, typer.Option(help="Client that is registered with the server; by default, one registers itself.")
    ] = "",
    client_secret: Annotated[
        Path | None, typer.Option(help="File with the secret of that client; - reads standard input.")
    ] = None,
    user: Annotated[
        str, typer.Option(help="End user who logs in, where each has a secret; by default, one login is for all.")
    ] = "",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of this machine that the browser comes back to; 0: any.")
    ] = 0,
    patience: Annotated[float, typer.Option(min=1, help="Seconds to wait for the login.")] = 300.0,
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Log in to the server of a toolset in a browser, and keep the tokens as its secret, or that of an end user."""
    settings = Settings.load(home=home, tenant=tenant)
    secret = read_text("Secret of the client", str(client_secret)) if client_secret else ""

    async def work() -> Outcome:
        fields = await registered(settings, name)
        url, auth = fields["mcp"]["url"], fields["mcp"]["auth"]
        if user and not auth.get("per_user"):
            raise Failed(f"All users of {name!r} have one secret: register it with --auth oauth --per-user.")
        tokens = await logged_in(settings, url, client_id=client_id, client_secret=secret, port=port, patience=patience)
        async with connected(settings) as client:
            if user:
                of_user = {"toolset": name, "user": user, "secret": tokens}
                return await client.send("user_secret.set", of_user, wait=wait)
            return await client.send("toolset.register", {**fields, "secret": tokens}, wait=wait)

    conclude(run(work()), as_json)


async def registered(settings: Settings, name: str) -> dict[str, Any]:
    """The command that registers the toolset as it is, with a login. Raises: Failed."""
    found = await rows(settings, QUERY, tenant=settings.tenant, name=name)
    if not found:
        raise Failed(f"There is no toolset {name!r} in the tenant {settings.tenant}.")
    [row] = found
    if row["kind"] != "mcp" or not row["settings"]["url"]:
        raise Failed(f"The toolset {name!r} is none of kind mcp with the address of a server.")
    mcp = {**row["settings"], "auth": {**row["settings"]["auth"], "type": "oauth", "token_url": None}}
    about = {"description": row["description"], "timeout_s": row["timeout_s"]}
    return {"name": name, "kind": "mcp", "mcp": mcp, **about}


async def logged_in(settings: Settings, url: str, *, patience: float, **client: Any) -> str:
    """Raises: Failed."""
    from adapters.tools.mcp.login import login

    def show(address: str) -> None:
        typer.echo(clean(f"Open this address in a browser of this machine: {address}"), err=True)

    egress = tool_egress(settings.located("nats", "postgres"))
    try:
        return await login(egress, settings.tenant, url, show, timeout_s=patience, **client)
    except ToolError as error:
        raise Failed(error.reason) from None
