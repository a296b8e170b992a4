"""`headrace verify`: every promise, checked against the running system."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from handlers.work.audit import Check
from ops import terminal
from ops.cli.archive import Address, addressed, failing
from ops.cli.frame import Home, Json, app, run
from ops.settings import Settings
from ops.terminal import clean, emit, show


@app.command(
    epilog="Examples: [bold]headrace verify[/] · [bold]headrace verify --json | jq 'select(.faults > 0)'[/] · "
    "[bold]headrace verify --archive --deadline 60[/] · [bold]headrace verify --prompts[/]"
)
def verify(
    deadline: Annotated[
        float,
        typer.Option(min=1, help="Maximum time without progress, in seconds, before pending work counts as stuck."),
    ] = 900.0,
    prompts: Annotated[
        bool,
        typer.Option(
            "--prompts", help="Also assemble every recorded prompt from the log and from the tables, and compare them."
        ),
    ] = False,
    archive: Annotated[bool, typer.Option("--archive", help="Also compare the log with its archive.")] = False,
    archive_url: Address = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Read the whole log and check every promise. Exit with 1 when one is broken.

    Nothing may be missing, double or stuck; tables and index must equal a replay.
    """
    archive = archive or archive_url is not None
    settings = (addressed(home, archive_url) if archive else Settings.load(home=home)).located()
    from ops.upkeep.verify import verify as checks

    async def look() -> list[Check]:
        found, longest = [], timedelta(seconds=deadline)
        with terminal.counting(as_json) as progress:
            async for check in checks(settings, longest, progress, prompts=prompts, archive=archive):
                found.append(check)
                if as_json:
                    emit(asdict(check))
        return found

    with failing():
        found = run(look())
    if not as_json:
        show_checks(found)
    if any(check.faults for check in found):
        raise typer.Exit(1)


def show_checks(checks: list[Check]) -> None:
    """Print the table of checks, then each fault as a sentence, with its repair."""
    table = Table("", "", "Checked", "Faults")
    for check in checks:
        mark = Text("✗", "red") if check.faults else Text("✓", "green")
        table.add_row(mark, check.promise, f"{check.checked:,}", f"{check.faults:,}")
    show(table)
    for check in checks:
        for sentence in check.first:
            show(Text("✗ ", "red") + Text(f"{check.name}  ", "bold") + Text(clean(sentence)))
        if check.faults > len(check.first):
            show(Text(f"  and {check.faults - len(check.first):,} more", "dim"))
        if check.faults:
            show(Text(f"  → {check.repair}", "yellow"))
