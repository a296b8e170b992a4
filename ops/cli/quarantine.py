"""`headrace quarantine`: list, show and discard messages of the log that cannot be read."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from adapters.jetstream.client import Client
from adapters.jetstream.direct import DirectReader
from handlers.ports.log import Unavailable
from ops import terminal
from ops.cli.frame import Failed, Home, Json, Wait, app, conclude, connected, rows, run
from ops.settings import Settings
from ops.terminal import emit, say

Message = dict[str, Any]

Place = Annotated[
    str, typer.Argument(help="Stream and sequence, as in the list: EVENTS:123.", metavar="STREAM:SEQUENCE")
]

quarantine = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(quarantine, name="quarantine", help="List, show or discard messages of the log that cannot be read.")


@quarantine.command(
    "list", epilog="Examples: [bold]headrace quarantine list[/] · [bold]headrace quarantine list --all --json[/]"
)
def list_messages(
    everything: Annotated[bool, typer.Option("--all", help="Also those that were discarded.")] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """List messages in quarantine. The aggregates of their subjects are frozen; everything else goes on."""
    found = [each for each in run(_messages(Settings.load(home=home))) if everything or each["discarded_at"] is None]
    columns = ["place", "subject", "reason", "held_by", "created_at", "discarded_at"]
    terminal.show_listing(found, columns, as_json)


@quarantine.command(epilog="Example: [bold]headrace quarantine show EVENTS:123[/]")
def show(place: Place, home: Home = None, as_json: Json = False) -> None:
    """Show a message in quarantine as it is stored, and the reason."""
    settings = Settings.load(home=home)

    async def work() -> Message:
        message = _chosen(await _messages(settings), place)
        async with connected(settings) as client:
            try:
                stored = await DirectReader(client.connection, timeout_s=5.0).at(message["stream"], message["sequence"])
            except Unavailable as error:
                raise Failed(str(error)) from error
        content = (
            {"headers": dict(stored.headers or {}), "body": stored.data.decode(errors="replace")} if stored else {}
        )
        return message | content

    found = run(work())
    if as_json:
        emit(found)
        return
    for name, value in found.items():
        if value is not None:
            say(f"{name:<16} {terminal.as_text(value)}")


@quarantine.command(epilog="Example: [bold]headrace quarantine discard EVENTS:123[/]")
def discard(place: Place, wait: Wait = 10.0, home: Home = None, as_json: Json = False) -> None:
    """Discard a message: it never counts, and its aggregate goes on. The message and the decision stay in the log."""
    settings = Settings.load(home=home)

    async def work() -> Message:
        message = _chosen(await _messages(settings), place)
        if message["newer"]:
            raise Failed(f"A newer version wrote {place}: upgrade, and it is read.")
        payload = {"quarantine": message["id"], "stream": message["stream"], "sequence": message["sequence"]}
        async with connected(settings) as client:
            return await Client(client.connection, message["tenant_id"]).send("quarantine.discard", payload, wait=wait)

    conclude(run(work()), as_json)


async def _messages(settings: Settings) -> list[Message]:
    """Rows of the table, in order. Raises: Failed."""
    query = "SELECT stream || ':' || sequence AS place, * FROM headrace_projection.quarantine ORDER BY stream, sequence"
    return await rows(settings, query)


def _chosen(found: list[Message], place: str) -> Message:
    """Raises: Failed."""
    for message in found:
        if message["place"] == place:
            return message
    raise Failed(f"{place} is not in quarantine; see `headrace quarantine list`.")
