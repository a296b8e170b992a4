"""`headrace viewer`: links that log in, and the sessions that they began."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Annotated

import typer

from adapters.jetstream.sessions import CODE_S, Session, Sessions
from handlers.ports.log import Unavailable
from ops import terminal
from ops.cli.frame import Failed, Home, Json, app, connected, run
from ops.settings import Settings
from ops.terminal import emit, say

SHOWN = 12
"""Characters of a session's id that are shown; as many are enough to name it."""

viewer = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(viewer, name="viewer", help="Log in to the viewer, list and end its sessions.")


@viewer.command(epilog="Examples: [bold]headrace viewer link[/] · [bold]headrace viewer link --address https://host[/]")
def link(
    address: Annotated[
        str | None,
        typer.Option(help="Address of the viewer; default: the one that runs on this home.", show_default=False),
    ] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Print a link that logs in to the viewer. It works once, for ten minutes."""
    made = run(new_link(Settings.load(home=home), address))
    if as_json:
        emit({"link": made, "expires_in_s": CODE_S})
    else:
        terminal.out.print(made, soft_wrap=True, highlight=False, markup=False)


@viewer.command(epilog="Example: [bold]headrace viewer sessions[/]")
def sessions(home: Home = None, as_json: Json = False) -> None:
    """List the sessions that have not ended, oldest first."""
    found = run(_list(Settings.load(home=home)))
    if as_json:
        for session in found:
            known = {name: value for name, value in asdict(session).items() if name not in ("token", "since")}
            emit(known | {"account": session.account})
        return
    columns = ["id", "account", "began_at", "used_at", "ends_at", "address", "browser"]
    shown = [(each.id[:SHOWN], each.account, *(getattr(each, name) for name in columns[2:])) for each in found]
    terminal.show_rows(columns, shown)


@viewer.command(epilog="Examples: [bold]headrace viewer end ID[/] · [bold]headrace viewer end --all[/]")
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
        emit({"ended": [session.id for session in found]})
    else:
        say(f"Ended: {' '.join(session.id[:SHOWN] for session in found) or 'none'}.")


async def new_link(settings: Settings, address: str | None = None) -> str:
    """A link that logs in once. Raises: Failed."""
    if not (found := address or settings.viewer):
        raise Failed("No viewer runs on this home: name the address of one with --address.")
    async with _opened(settings) as kept:
        return await kept.link(found)


async def _list(settings: Settings) -> list[Session]:
    async with _opened(settings) as kept:
        return await kept.open()


async def _end(settings: Settings, ids: list[str]) -> list[Session]:
    """End the sessions whose ids begin so, or all, and return them. Raises: Failed."""
    async with _opened(settings) as kept:
        found = await kept.open()
        for id in ids:
            if not any(session.id.startswith(id) for session in found):
                raise Failed(f"There is no session {id}; see `headrace viewer sessions`.")
        ended = [session for session in found if not ids or session.id.startswith(tuple(ids))]
        for session in ended:
            await kept.end(session.id)
        return ended


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Sessions]:
    """Raises: Failed, Unreachable."""
    async with connected(settings) as client:
        try:
            yield Sessions(client.connection)
        except Unavailable as error:
            raise Failed(str(error)) from error
