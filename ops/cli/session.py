"""`headrace session`: the sessions of the viewer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Annotated

import typer

from adapters.jetstream.sessions import Session, Sessions
from handlers.ports.log import Unavailable
from ops import terminal
from ops.cli.account import account_id
from ops.cli.frame import Failed, Home, Json, app, connected, run
from ops.settings import Settings
from ops.terminal import emit, say

SHOWN = 12
"""Characters of a session's id that are shown; as many are enough to name it."""

session = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(session, name="session", help="List and end the sessions of the viewer.")


@session.command(
    "list",
    epilog="Examples: [bold]headrace session list[/] · [bold]headrace session list --account ada@example.org --json[/]",
)
def list_sessions(
    account: Annotated[str | None, typer.Option(help="Only those of this account: its id or e-mail address.")] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """List the sessions that have not ended, oldest first."""
    found = run(_list(Settings.load(home=home), account))
    if as_json:
        for each in found:
            known = {name: value for name, value in asdict(each).items() if name not in ("token", "since")}
            emit(known | {"account": each.account})
        return
    columns = ["id", "account", "began_at", "used_at", "ends_at", "address", "browser"]
    shown = [(each.id[:SHOWN], each.account, *(getattr(each, name) for name in columns[2:])) for each in found]
    terminal.show_rows(columns, shown)


@session.command(epilog="Examples: [bold]headrace session end ID[/] · [bold]headrace session end --all[/]")
def end(
    ids: Annotated[
        list[str] | None,
        typer.Argument(help="Ids of sessions, or their beginnings.", metavar="ID…", show_default=False),
    ] = None,
    all_of_them: Annotated[bool, typer.Option("--all", help="All sessions.")] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """End sessions; their browsers must log in again."""
    if bool(ids) == all_of_them:
        raise typer.BadParameter("Give either ids or --all.", param_hint="ID…")
    found = run(_end(Settings.load(home=home), ids or []))
    if as_json:
        emit({"ended": [each.id for each in found]})
    else:
        say(f"Ended: {' '.join(each.id[:SHOWN] for each in found) or 'none'}.")


async def _list(settings: Settings, account: str | None) -> list[Session]:
    wanted = await account_id(settings, account) if account else None
    async with opened(settings) as kept:
        return [each for each in await kept.open() if wanted in (None, each.account)]


async def _end(settings: Settings, ids: list[str]) -> list[Session]:
    """End the sessions whose ids begin so, or all, and return them. Raises: Failed."""
    async with opened(settings) as kept:
        found = await kept.open()
        for id in ids:
            if not any(each.id.startswith(id) for each in found):
                raise Failed(f"There is no session {id}; see `headrace session list`.")
        ended = [each for each in found if not ids or each.id.startswith(tuple(ids))]
        for each in ended:
            await kept.end(each.id)
        return ended


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Sessions]:
    """The sessions of the viewer. Raises: Failed, Unreachable."""
    async with connected(settings) as client:
        try:
            yield Sessions(client.connection)
        except Unavailable as error:
            raise Failed(str(error)) from error
