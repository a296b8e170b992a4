"""`headrace blobs`: move the blobs to another place, and sweep those that nothing names."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from handlers.ports.log import Unavailable
from ops import terminal
from ops.cli.frame import Failed, Home, Json, app, run
from ops.settings import Settings
from ops.terminal import emit, say

if TYPE_CHECKING:
    from ops.upkeep.blobs import Moved

group = typer.Typer(help="Move the blobs to another place, and sweep those that nothing names.", no_args_is_help=True)
app.add_typer(group, name="blobs")


@group.command(
    epilog="Examples: [bold]headrace blobs move[/] · [bold]headrace blobs move --json[/] · "
    "[bold]headrace blobs move --drop[/]"
)
def move(
    drop: Annotated[
        bool, typer.Option("--drop", help="Then remove from the old place what can be read in the new one.")
    ] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Copy all blobs from HEADRACE_BLOBS_OLD_URL to HEADRACE_BLOBS_URL, and check each by its SHA-256.

    Set both for all workers first: then they write to the new place, and read in both. If interrupted, run it again to
    resume. With a NATS of your own, --drop needs the user `admin`.
    """
    settings = Settings.load(home=home)
    from ops.upkeep.blobs import NoOldPlace
    from ops.upkeep.blobs import move as work

    with terminal.counting(as_json) as progress:
        try:
            moved = run(work(settings, progress, drop=drop))
        except NoOldPlace as error:
            advice = "set it to the place where the blobs are, or to `jetstream`, for all workers and here"
            raise Failed(f"HEADRACE_BLOBS_OLD_URL is not set: {advice}.") from error
        except Unavailable as error:
            raise Failed(f"{error} Run it again to resume.") from error
    if as_json:
        emit(asdict(moved))
    else:
        report(moved, drop)
    for name, reason in moved.lost.items():
        terminal.complain(f"Blob {name} {reason}.")
    if moved.lost:
        raise typer.Exit(1)


@group.command(
    epilog="Examples: [bold]headrace blobs sweep --dry-run[/] · [bold]headrace blobs sweep --days 30[/] · "
    "[bold]headrace blobs sweep --json[/]"
)
def sweep(
    days: Annotated[int, typer.Option(min=1, help="Age of the blobs that are removed, in days.")] = 7,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count them; remove nothing.")] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Remove the blobs that no commit, waiting command or dead letter names, and that are older than some days.

    It reads the whole log. Workers may run. With a NATS of your own, it needs the user `admin` and the secret key.
    """
    settings = Settings.load(home=home)
    from ops.upkeep.blobs import sweep as work

    with terminal.counting(as_json) as progress:
        try:
            swept = run(work(settings, timedelta(days=days), progress, dry_run=dry_run))
        except Unavailable as error:
            raise Failed(str(error)) from error
    if as_json:
        emit(asdict(swept))
    else:
        what = "Would remove" if dry_run else "Removed"
        number = swept.unnamed if dry_run else swept.removed
        say(f"{what} {number:,} of {swept.blobs:,} blobs; {swept.bytes / 2**20:,.1f} MB are unnamed and old.")


def report(moved: Moved, drop: bool) -> None:
    say(f"Copied {moved.copied:,} blobs, {moved.bytes / 2**20:,.1f} MB; {moved.there:,} were there.")
    if moved.lost:
        return
    if not drop:
        say("When all workers have both settings, run `headrace blobs move --drop` to empty the old place.")
    else:
        say(f"Removed {moved.removed:,} from the old place. Unset HEADRACE_BLOBS_OLD_URL, and restart the workers.")
