"""`headrace verify`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Any

import typer

from handlers.audit import Check
from ops import terminal
from ops.cli.frame import Home, Json, app, run
from ops.settings import Settings
from ops.terminal import emit


@app.command(
    epilog="Examples: [bold]headrace verify[/] · [bold]headrace verify --json | jq 'select(.faults > 0)'[/] · "
    "[bold]headrace verify --deadline 60[/]"
)
def verify(
    deadline: Annotated[
        float, typer.Option(min=1, help="Seconds without any step after which what waits counts as stuck.")
    ] = 900.0,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Read the log from its first message, and hold the promises against it: nothing missing, nothing twice, nothing
    stuck, tables and index as a replay makes them. Ends with 1 when one is broken."""
    settings = Settings.load(home=home).located()
    from ops.verify import verify as checks

    async def look() -> list[Check]:
        found = []
        with terminal.bars(as_json) as progress:
            tasks: dict[str, Any] = {}

            def advance(what: str, done: int, total: int) -> None:
                if what not in tasks:
                    tasks[what] = progress.add_task(what, total=total)
                progress.update(tasks[what], completed=done, total=total)

            async for check in checks(settings, timedelta(seconds=deadline), advance):
                found.append(check)
                if as_json:
                    emit(asdict(check))
        return found

    found = run(look())
    if not as_json:
        terminal.show_checks(found)
    if any(check.faults for check in found):
        raise typer.Exit(1)
