"""`headrace viewer`: links that log in."""

from __future__ import annotations

from typing import Annotated

import typer

from adapters.jetstream.sessions import CODE_S
from ops import terminal
from ops.cli.frame import Failed, Home, Json, app, run
from ops.cli.session import opened
from ops.settings import Settings
from ops.terminal import emit

viewer = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(viewer, name="viewer", help="Log in to the viewer.")


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


async def new_link(settings: Settings, address: str | None = None) -> str:
    """A link that logs in once. Raises: Failed."""
    if not (found := address or settings.viewer):
        raise Failed("No viewer runs on this home: name the address of one with --address.")
    async with opened(settings) as kept:
        return await kept.link(found)
