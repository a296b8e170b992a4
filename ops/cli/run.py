"""Commands that run Headrace: up, down, worker, doctor."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
import uvloop
from rich.text import Text

from ops import logs, supervisor, terminal
from ops.cli.frame import Home, Json, app, run, until_stopped
from ops.roles import EVERY, READS_ONLY
from ops.settings import Settings
from ops.terminal import clean, emit, say, show

if TYPE_CHECKING:
    from ops.upkeep.doctor import Finding

INCOMPLETE = 3
"""Exit status of `up --detach` when some roles are missing."""


@app.command(epilog="Examples: [bold]headrace up[/] · [bold]headrace up --detach --home /srv/headrace[/]")
def up(
    detach: Annotated[
        bool, typer.Option("--detach", help="Run in the background; return when everything is ready.")
    ] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Start everything on this machine: NATS, PostgreSQL (unless configured elsewhere) and a worker for each role.

    With --detach the exit status is 3 when a role does not start and everything else runs; see `headrace doctor`.
    """
    settings = Settings.load(home=home)
    if not detach:
        logs.configure(settings)
        report = (lambda step: emit({"step": step})) if as_json else say
        run(until_stopped(supervisor.Supervisor(settings, report).run()))
        return
    with terminal.out.status("starting"):
        fresh = run(supervisor.detach(settings))
    record = settings.running()
    missing = record.get("missing", {})
    sentence = f"Headrace {'is ready' if fresh else 'is already running'}{supervisor.except_for(missing)}."
    if as_json:
        emit(record)
    else:
        say(sentence)
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


@app.command(epilog="Example: [bold]headrace worker --role ingest[/]")
def worker(
    role: Annotated[str, typer.Option(help=f"{', '.join(EVERY)}, or all.")],
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Run one worker until interrupted. Start any number of them, on any machine."""
    if role not in (*EVERY, "all"):
        raise typer.BadParameter(f"{role!r} is not one of {', '.join(EVERY)}, all.", param_hint="--role")
    settings = Settings.load(home=home, log_format="json" if as_json else None)
    settings = settings.located("nats") if role in READS_ONLY else settings.located()
    logs.configure(settings)
    from ops.roles.worker import run as run_role

    uvloop.run(run_role(role, settings))


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


def show_addresses(settings: Settings) -> None:
    record = settings.running()
    for name in ("nats_url", "postgres_url"):
        show(Text(f"  {name.removesuffix('_url'):<9} {record.get(name, '')}", "dim"))
    show(Text(f"  logs      {settings.home / 'log'}", "dim"))
    show(Text(f"  viewer    {settings.viewer}"))


def show_finding(finding: Finding) -> None:
    mark = Text("✓ ", "green") if finding.good else Text("✗ ", "red")
    show(mark + Text(f"{finding.what:<24}", "bold") + Text(clean(finding.found)))
    if finding.advice:
        show(Text(f"  → {finding.advice}", "yellow"))
