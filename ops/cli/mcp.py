"""`headrace mcp`: apps as the tools of an MCP server over standard input and output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from adapters.jetstream.client import Frame
from domain.access.actor import ANON
from domain.aggregate import new_id
from ops.cli.frame import Failed, Home, Json, Tenant, app, connected, rows, until_stopped
from ops.cli.frame import run as finished
from ops.settings import Settings

if TYPE_CHECKING:
    from adapters.mcp_server import SharedApp

APPS = """
SELECT apps.id, apps.name, apps.description, apps.mode, configs.user_input_form AS variables
FROM headrace.apps JOIN headrace.app_model_configs AS configs ON configs.id = apps.app_model_config_id
WHERE apps.tenant_id = %(tenant)s ORDER BY apps.id"""

ENDED = """
SELECT status, answer, error_code, error FROM headrace.messages
WHERE tenant_id = %(tenant)s AND id = %(message)s AND status IN ('answered', 'failed', 'stopped')"""

CITED = """
SELECT position, document_id AS document, document_name, page, heading, content
FROM headrace.dataset_retriever_resources
WHERE tenant_id = %(tenant)s AND message_id = %(message)s ORDER BY position"""


@app.command(
    epilog="Examples: [bold]headrace mcp[/] · [bold]headrace mcp --app ID --user ada --tenant acme[/]",
)
def mcp(
    shared: Annotated[
        list[str] | None, typer.Option("--app", help="App that is offered, by its id; repeatable. Default: all apps.")
    ] = None,
    user: Annotated[str, typer.Option(help="End user whose questions the calls are.")] = "mcp",
    actor: Annotated[
        str, typer.Option(help="Actor that sends the questions: s_<service> of the bus login, or anon.")
    ] = ANON,
    patience: Annotated[float, typer.Option(min=1, help="Maximum silence, in seconds, before giving up.")] = 300.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Serve apps as tools to the MCP client that starts this command, over standard input and output."""
    settings = Settings.load(home=home, tenant=tenant)
    finished(until_stopped(serve(settings, shared, user, actor, patience)))


async def serve(settings: Settings, shared: Sequence[str] | None, user: str, actor: str, patience: float) -> None:
    """Serve until the client closes its end. Raises: Failed for an app that is not there."""
    from mcp.server.stdio import stdio_server

    from adapters.mcp_server import Caller, server

    tables = SqlTables(settings, shared)
    known = {each.id for each in await tables.apps()}
    if unknown := [id for id in shared or () if id not in known]:
        raise Failed(f"There is no configured app {unknown[0]} in the tenant {settings.tenant}.")
    async with connected(settings) as client, stdio_server() as (received, sent):
        client.actor = actor
        serving = server(tables, Caller(client, user, new_id(), patience))
        await serving.run(received, sent, serving.create_initialization_options())


@dataclass(frozen=True, slots=True)
class SqlTables:
    """The configured apps of the tenant, or those of these ids."""

    settings: Settings
    shared: Sequence[str] | None

    async def apps(self) -> Sequence[SharedApp]:
        from adapters.mcp_server import SharedApp

        found = [SharedApp(**row) for row in await rows(self.settings, APPS, tenant=self.settings.tenant)]
        return [each for each in found if self.shared is None or each.id in self.shared]

    async def ended(self, message: str) -> Frame | None:
        of = {"tenant": self.settings.tenant, "message": message}
        match await rows(self.settings, ENDED, **of):
            case [{"status": "failed", "error_code": code, "error": reason}]:
                return {"type": "failed", "code": code, "reason": reason or ""}
            case [{"status": status, "answer": answer}]:
                return {"type": status, "answer": answer, "citations": await rows(self.settings, CITED, **of)}
        return None
