"""`headrace key`: API keys of a tenant's programs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from adapters.jetstream.client import Outcome
from adapters.jetstream.key_uses import JetStreamKeyUses
from adapters.privacy import api_keys
from domain.access.api_key import kind
from domain.access.permissions import OF_KEYS
from handlers.ports.log import Unavailable
from ops import terminal
from ops.cli.account import account_id
from ops.cli.frame import Failed, Home, Json, Tenant, Wait, app, conclude, connected, outcome_of, rows, run, send
from ops.settings import Settings

HOUR_S = 3600

key = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(key, name="key", help="Create, list, replace and revoke API keys of a tenant's programs.")

KeyId = Annotated[str, typer.Argument(help="Id of the key, as in the list.", metavar="KEY")]


@key.command(
    epilog="Examples: [bold]headrace key create site --permission chat --app ID --days 90[/] · "
    "[bold]headrace key create sync --permission dataset.edit --permission read --tenant acme > key.txt[/]"
)
def create(
    name: Annotated[str, typer.Argument(help="Name, for people.")],
    permission: Annotated[list[str], typer.Option(help=f"{', '.join(sorted(OF_KEYS))}; repeatable.")],
    apps: Annotated[
        list[str] | None, typer.Option("--app", help="App that it is for; repeatable. Default: all.")
    ] = None,
    datasets: Annotated[
        list[str] | None, typer.Option("--dataset", help="Knowledge base that it is for; repeatable. Default: all.")
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Days after which it ends; default: never.")] = None,
    account: Annotated[
        str | None, typer.Option(help="Id or e-mail address of the account that it belongs to, whose role limits it.")
    ] = None,
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Create an API key, and print it, once: only its SHA-256 is kept."""
    settings = Settings.load(home=home, tenant=tenant)
    made = api_keys.new(kind(apps or [], datasets or []))

    async def work() -> Outcome:
        payload = {
            "name": name,
            **api_keys.fields(made),
            "permissions": permission,
            "apps": apps or [],
            "datasets": datasets or [],
            "expires_at": (datetime.now(UTC) + timedelta(days=days)).isoformat() if days else None,
            "account": await account_id(settings, account) if account else None,
        }
        async with connected(settings) as client:
            return await client.send("api_key.create", payload, wait=wait)

    _give(run(work()), made, as_json)


@key.command("list", epilog="Examples: [bold]headrace key list[/] · [bold]headrace key list --tenant acme --json[/]")
def list_keys(
    everything: Annotated[bool, typer.Option("--all", help="Also those that were revoked.")] = False,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """List the API keys of a tenant, oldest first, with their last use, which is a minute old at most."""
    settings = Settings.load(home=home, tenant=tenant)
    query = "SELECT * FROM headrace.api_tokens WHERE tenant_id = %(tenant)s ORDER BY created_at, id"

    async def work() -> list[dict[str, Any]]:
        found = await rows(settings, query, tenant=settings.tenant)
        async with connected(settings) as client:
            try:
                used = await JetStreamKeyUses(client.connection).last(settings.tenant, [each["id"] for each in found])
            except Unavailable as error:
                raise Failed(str(error)) from error
        return [{**each, "last_used_at": used.get(each["id"])} for each in found]

    shown = [each for each in run(work()) if everything or each["status"] != "revoked"]
    columns = ["id", "name", "hint", "type", "permissions", "account_id", "status", "expires_at", "last_used_at"]
    terminal.show_listing(shown, columns, as_json)


@key.command(
    epilog="Examples: [bold]headrace key replace ID[/] · [bold]headrace key replace ID --overlap-hours 0 > key.txt[/]"
)
def replace(
    key: KeyId,
    overlap_hours: Annotated[
        int, typer.Option(min=0, max=90 * 24, help="Hours for which the former key goes on working.")
    ] = 24,
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Replace a key by another one with the same rights, and print that, once."""
    settings = Settings.load(home=home, tenant=tenant)
    query = "SELECT type FROM headrace.api_tokens WHERE tenant_id = %(tenant)s AND id = %(id)s"
    found = run(rows(settings, query, tenant=settings.tenant, id=key))
    made = api_keys.new(found[0]["type"] if found else "tenant")
    fields = {**api_keys.fields(made), "overlap_s": overlap_hours * HOUR_S}
    _give(run(outcome_of(settings, "api_key.replace", {"api_key": key, **fields}, wait)), made, as_json)


@key.command(epilog="Example: [bold]headrace key rename ID shop[/]")
def rename(
    key: KeyId,
    name: Annotated[str, typer.Argument(help="Name, for people.")],
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Rename a key."""
    send("api_key.rename", {"api_key": key, "name": name}, wait, tenant, home, as_json)


@key.command(epilog="Example: [bold]headrace key revoke ID[/]")
def revoke(key: KeyId, wait: Wait = 10.0, tenant: Tenant = None, home: Home = None, as_json: Json = False) -> None:
    """Revoke a key, at once and for ever."""
    send("api_key.revoke", {"api_key": key}, wait, tenant, home, as_json)


def _give(outcome: Outcome, made: str, as_json: bool) -> None:
    """Print a key that was accepted."""
    if outcome["status"] == "rejected":
        conclude(outcome, as_json)
    terminal.give_secret(made, outcome, as_json, key=made)
