"""`headrace rebuild`: tables from the log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import psycopg
import typer

from ops import terminal
from ops.cli.frame import Failed, Home, Json, app, of_postgres, run
from ops.settings import Settings
from ops.terminal import emit, say

if TYPE_CHECKING:
    from adapters.postgres.compare import Comparison


@app.command(
    epilog="Examples: [bold]headrace rebuild[/] · [bold]headrace rebuild documents messages[/] · "
    "[bold]headrace rebuild --check[/] · [bold]headrace rebuild --check --json | jq 'select(.different > 0)'[/] · "
    "[bold]headrace rebuild --undo[/]"
)
def rebuild(
    names: Annotated[list[str] | None, typer.Argument(help="Tables; default: all.", show_default=False)] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare the live tables with fresh ones; change nothing.")
    ] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Restore the tables that the last rebuild replaced.")] = False,
    drop_old: Annotated[
        bool, typer.Option("--drop-old", help="Drop the tables that the last rebuild replaced.")
    ] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Rebuild tables from the log while the live ones serve, then swap them in.

    The replaced tables are kept in schema headrace_old. If interrupted, run it again to resume.
    """
    if check + undo + drop_old > 1 or (names and (undo or drop_old)):
        raise typer.BadParameter("Use only one of --check, --undo and --drop-old; the last two take no tables.")
    settings = Settings.load(home=home).located()
    from ops.upkeep import rebuild as work

    with failing():
        if check:
            with terminal.counting(as_json) as progress:
                compared = run(work.check(settings, names or [], progress))
            show(compared, as_json)
        elif drop_old:
            report("dropped", run(work.drop_old(settings)), as_json)
        else:
            with terminal.counting(as_json) as progress:
                coming = work.undo(settings, progress) if undo else work.rebuild(settings, names or [], progress)
                done = run(coming)
            report("restored" if undo else "rebuilt", done, as_json)


@contextmanager
def failing() -> Iterator[None]:
    """Turn expected errors into messages. Raises: Failed."""
    from adapters.postgres.attachments import InTheWay
    from adapters.postgres.feed import Gap
    from adapters.postgres.rebuild import NothingKept
    from handlers.ports.log import Unavailable

    try:
        yield
    except KeyError as error:
        raise Failed(f"There is no table {error.args[0]!r}.") from error
    except (Gap, InTheWay, NothingKept, Unavailable) as error:
        raise Failed(str(error)) from error
    except psycopg.errors.LockNotAvailable as error:
        raise Failed("The tables are locked by readers; run it again to resume.") from error
    except psycopg.OperationalError as error:
        raise Failed(f"{of_postgres(error).rstrip('.')}. Run it again to resume.") from error


def report(what: str, names: list[str], as_json: bool) -> None:
    if as_json:
        emit({what: names})
    else:
        say(f"{what.capitalize()}: {', '.join(names) or 'nothing'}.")


def show(compared: list[Comparison], as_json: bool) -> None:
    """Print a line per table; exit with 1 when one differs."""
    wrong = [table for table in compared if table.different]
    if as_json:
        for table in compared:
            emit(asdict(table))
    else:
        lines = [(table.table, table.live, table.fresh, table.different, table.first) for table in compared]
        terminal.show_rows(["table", "live", "fresh", "different", "first difference"], lines)
        if wrong:
            say(f"To repair: headrace rebuild {' '.join(table.table for table in wrong)}")
    if wrong:
        raise typer.Exit(1)
