"""Commands for orchestrators: a job before the workers, and a probe for each."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Annotated, Any

import nats.errors
import typer

from adapters.jetstream.client import Unreachable
from ops import terminal
from ops.cli.frame import Failed, Home, Json, app, connected, run
from ops.roles import EVERY
from ops.settings import Settings
from ops.terminal import emit, say


@app.command(epilog="Examples: [bold]headrace setup[/] · [bold]headrace setup --wait 300 --json[/]")
def setup(
    wait: Annotated[float, typer.Option(min=1, help="Seconds to wait for servers that are unreachable.")] = 60.0,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Create missing streams, schemas, roles and tables, so that workers need no such permission."""
    settings = Settings.load(home=home).located()
    from ops.upkeep.setup import set_up

    async def make() -> None:
        try:
            async with asyncio.timeout(wait):
                async for made in set_up(settings):
                    if as_json:
                        emit({"ready": made})
                    else:
                        say(f"Ready: {made}.")
        except TimeoutError:
            raise Unreachable(f"NATS does not answer within {wait:.0f} s, or its JetStream has no leader.") from None

    with terminal.out.status("setting up"):
        run(make())


@app.command(epilog="Examples: [bold]headrace ping --role answer[/] · [bold]headrace ping --role answer --here[/]")
def ping(
    role: Annotated[str, typer.Option(help=f"{', '.join(EVERY)}, or all.")],
    here: Annotated[bool, typer.Option("--here", help="Accept only a worker on this host: for probes.")] = False,
    wait: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for an answer.")] = 3.0,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Check that a worker of a role answers; exit with 1 when none does."""
    card = run(card_of(Settings.load(home=home), role, wait, socket.gethostname() if here else None))
    if card is None:
        raise Failed(f"No worker of role {role!r} answers{' on this host' if here else ''} within {wait:g} s.")
    if as_json:
        emit(card)
    else:
        say(f"{role}: process {card['pid']} on {card['host']}, version {card['version']}.")


async def card_of(settings: Settings, role: str, within: float, host: str | None) -> dict[str, Any] | None:
    """The card of the first worker of a role, on any host or on one: pid, host, version. None when none answers."""
    async with connected(settings) as client:
        inbox = client.connection.new_inbox()
        cards = await client.connection.subscribe(inbox)
        await client.connection.publish(f"worker.{role}", b"", reply=inbox)
        try:
            async with asyncio.timeout(within):
                while True:
                    message = await cards.next_msg(timeout=None)
                    card = json.loads(message.data) if message.data else {}
                    if card and host in (None, card.get("host")):
                        return dict(card)
        except (TimeoutError, nats.errors.Error):
            return None
