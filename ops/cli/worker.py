"""`headrace worker`: one role, or all, in this process."""

from __future__ import annotations

from typing import Annotated

import typer
import uvloop

from ops import logs
from ops.cli.frame import Home, Json, app
from ops.roles import EVERY, WITHOUT_TABLES
from ops.roles.worker import run as run_role
from ops.settings import Settings, forget_secrets


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
    servers = ("nats",) if role in WITHOUT_TABLES else ("nats", "postgres")
    settings = settings.located(*servers, role=role)
    logs.configure(settings)
    forget_secrets()
    uvloop.run(run_role(role, settings))
