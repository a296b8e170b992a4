"""Commands for everything on this machine: up, down, doctor, env."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from psycopg.conninfo import conninfo_to_dict
from rich.text import Text

from adapters.jetstream import accounts
from ops import logs, supervisor, terminal
from ops.cli.frame import Failed, Home, Json, Tenant, app, run, until_stopped
from ops.cli.viewer import new_link
from ops.servers.embedded import EmbeddedNats
from ops.servers.model import MODEL
from ops.settings import READER, Settings
from ops.terminal import clean, emit, say, show

if TYPE_CHECKING:
    from ops.upkeep.doctor import Finding

INCOMPLETE = 3
"""Exit status of `up --detach` when some roles are missing."""


@app.command(
    epilog="Examples: [bold]headrace up[/] · [bold]headrace up --model[/] · "
    "[bold]headrace up --detach --home /srv/headrace[/]"
)
def up(
    detach: Annotated[
        bool, typer.Option("--detach", help="Run in the background; return when everything is ready.")
    ] = False,
    model: Annotated[
        bool, typer.Option("--model", help="Also start a small language model, as the provider [bold]embedded[/].")
    ] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Start everything on this machine: NATS, PostgreSQL (unless configured elsewhere) and a worker for each role.

    With --detach the exit status is 3 when a role does not start and everything else runs; see `headrace doctor`.
    """
    settings = Settings.load(home=home, model=model or None)
    if not detach:
        os.umask(0o077)  # no other user reads what it makes in the home
        logs.configure(settings)
        report = (lambda step: emit({"step": step})) if as_json else say
        link = sys.stdout.isatty()  # elsewhere what is printed is kept
        run(until_stopped(supervisor.Supervisor(settings, report, link=link).run()))
        return
    with terminal.out.status("starting"):
        fresh = run(supervisor.detach(settings))
    record = settings.running()
    missing = record.get("missing", {})
    sentence = f"Headrace {'is ready' if fresh else 'is already running'}{supervisor.except_for(missing)}."
    if as_json:
        emit({name: value for name, value in record.items() if name != "logins"})
    else:
        say(sentence)
        if fresh and (folders := record.get("opened")):
            say(supervisor.opened(folders))
        if settings.model and MODEL not in record.get("processes", {}):
            say("It was started without the model: `headrace down`, then `headrace up --model`.")
        show_addresses(settings)
    if missing:
        if as_json:
            terminal.complain(sentence)
        raise typer.Exit(INCOMPLETE)


@app.command(epilog="Example: [bold]headrace down[/]")
def down(home: Home = None, as_json: Json = False) -> None:
    """Stop everything that [bold]headrace up[/] started. Data are kept."""
    settings = Settings.load(home=home)
    stopped = run(supervisor.down(settings))
    if as_json:
        emit({"stopped": stopped})
    else:
        say("Headrace is stopped." if stopped else f"Nothing runs on {settings.home}.")


@app.command(epilog="Examples: [bold]headrace doctor[/] · [bold]headrace doctor --json | jq 'select(.good | not)'[/]")
def doctor(home: Home = None, as_json: Json = False) -> None:
    """Check servers, streams, workers and tables, and print advice. Exit with 1 on a fault."""
    settings = Settings.load(home=home)
    from ops.upkeep.doctor import examine

    async def look() -> bool:
        good = True
        async for finding in examine(settings):
            good = good and finding.good
            if as_json:
                emit(asdict(finding))
            else:
                show_finding(finding)
        return good

    if not run(look()):
        raise typer.Exit(1)


@app.command(epilog='Examples: [bold]headrace env | grep NATS[/] · [bold]eval "$(headrace env)" && psql[/]')
def env(
    login: Annotated[
        str | None, typer.Option(help="Bus login of the tenant; default: its first.", show_default=False)
    ] = None,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Write the logins of people as exports for a shell: [bold]psql[/] reads the tables, NATS_URL is the tenant's.

    Nothing is written to a terminal, where a password would stay to be read.
    """
    settings = Settings.load(home=home, tenant=tenant)
    if sys.stdout.isatty():
        raise Failed('The logins are not shown in a terminal: use eval "$(headrace env)".')
    found = reader(settings) | programs(settings, login)
    if not found:
        raise Failed("The servers are your own: their logins are where you keep them.")
    if as_json:
        emit(found)
    else:
        sys.stdout.writelines(f"export {name}={shlex.quote(value)}\n" for name, value in found.items())


def reader(settings: Settings) -> dict[str, str]:
    """Variables with which `psql` reads the tables of the embedded server. Raises: NotRunning."""
    if settings.postgres_url:
        return {}
    login = conninfo_to_dict(settings.located("postgres", role=READER).postgres_url)
    names = {"PGHOST": "host", "PGPORT": "port", "PGDATABASE": "dbname", "PGUSER": "user"}
    return {name: str(login[part]) for name, part in names.items()} | {"PGPASSFILE": str(settings.home / "pgpass")}


def programs(settings: Settings, login: str | None) -> dict[str, str]:
    """The address of the embedded NATS with a login of the tenant. Raises: NotRunning, Failed."""
    if settings.nats_url:
        return {}
    settings.located("nats")
    nats, tenant = EmbeddedNats(settings.home), settings.tenant
    users = nats.tenants().get(tenant, [])
    chosen = [user for user in users if login is None or user == accounts.login(tenant, login)]
    if not chosen:
        advice = f"`headrace send bus_login.open --tenant {tenant} name={login or 'services'}` opens one"
        raise Failed(f"Tenant {tenant!r} has no such login on NATS: {advice}.")
    return {"NATS_URL": nats.last_url_of(chosen[0])}


def show_addresses(settings: Settings) -> None:
    record = settings.running()
    for name in ("nats_url", "postgres_url"):
        show(Text(f"  {name.removesuffix('_url'):<9} {record.get(name, '')}", "dim"))
    show(Text(f"  logs      {settings.home / 'log'}", "dim"))
    if settings.viewer:
        show(Text(f"  viewer    {run(new_link(settings))}"))


def show_finding(finding: Finding) -> None:
    mark = Text("✓ ", "green") if finding.good else Text("✗ ", "red")
    show(mark + Text(f"{finding.what:<24} ", "bold") + Text(clean(finding.found)))
    if finding.advice:
        show(Text(f"  → {finding.advice}", "yellow"))
