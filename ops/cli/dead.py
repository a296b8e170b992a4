"""`headrace dead`: list, show, retry and discard dead letters."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from adapters.jetstream.client import Client, Outcome
from adapters.jetstream.workers.dead_letters import JetStreamDeadLetters
from domain.access.actor import CommandSubject
from handlers.ports.log import Unavailable
from ops import terminal
from ops.cli.frame import Failed, Home, Json, Wait, app, connected, rows, run
from ops.settings import Settings
from ops.terminal import emit, say

Letter = dict[str, Any]

WAITING = ["buried", "returned"]
STATUSES = [*WAITING, "retried", "discarded"]

SECRET = ("provider.", "sql_login.", "toolset.", "user_secret.")
"""Beginnings of the names of commands whose payload may hold a secret."""

Ids = Annotated[list[str] | None, typer.Argument(help="Ids of dead letters.", metavar="ID…", show_default=False)]
OneTenant = Annotated[str | None, typer.Option("--tenant", help="Only this tenant; default: all tenants.")]
All = Annotated[bool, typer.Option("--all", help="All that are waiting.")]

dead = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(dead, name="dead", help="List, retry or discard messages that no worker could handle.")


@dead.command(
    "list",
    epilog="Examples: [bold]headrace dead list[/] · [bold]headrace dead list --status retried --json[/]",
)
def list_letters(
    status: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(STATUSES)}; repeatable. Default: those that are waiting.")
    ] = None,
    tenant: OneTenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """List dead letters of one tenant or of all, newest last."""
    for name in status or []:
        if name not in STATUSES:
            raise typer.BadParameter(f"{name!r} is not one of {', '.join(STATUSES)}.", param_hint="--status")
    found = run(letters(Settings.load(home=home), status or WAITING, tenant))
    columns = ["id", "tenant_id", "consumer", "subject", "status", "retries", "updated_at", "reason"]
    terminal.show_listing(found, columns, as_json)


@dead.command(epilog="Example: [bold]headrace dead show ID[/]")
def show(
    id: Annotated[str, typer.Argument(help="Id of the dead letter.", metavar="ID")],
    tenant: OneTenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Show a dead letter and its original message. Payloads that may hold a secret are withheld."""
    settings = Settings.load(home=home)

    async def work() -> Letter:
        [letter] = chosen(await letters(settings, STATUSES, tenant), [id])
        async with connected(settings) as client:
            return letter | await message_of(client, letter)

    letter = run(work())
    if as_json:
        emit(letter)
        return
    for name, value in letter.items():
        if value is not None:
            say(f"{name:<16} {terminal.as_text(value)}")


@dead.command(epilog="Examples: [bold]headrace dead retry ID[/] · [bold]headrace dead retry --all[/]")
def retry(
    ids: Ids = None,
    all_of_them: All = False,
    wait: Wait = 10.0,
    tenant: OneTenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Retry dead letters: a command keeps its id and gets a second outcome; a document is processed again."""
    decide("dead_letter.retry", ids or [], all_of_them, wait, Settings.load(home=home), tenant, as_json)


@dead.command(epilog="Examples: [bold]headrace dead discard ID[/] · [bold]headrace dead discard --all --tenant acme[/]")
def discard(
    ids: Ids = None,
    all_of_them: All = False,
    wait: Wait = 10.0,
    tenant: OneTenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Discard dead letters: the message is deleted, its metadata and error stay recorded."""
    decide("dead_letter.discard", ids or [], all_of_them, wait, Settings.load(home=home), tenant, as_json)


def decide(
    command: str, ids: list[str], all_of_them: bool, wait: float, settings: Settings, tenant: str | None, as_json: bool
) -> None:
    """Send a command for each dead letter, in its tenant, and print the outcomes."""
    if bool(ids) == all_of_them:
        raise typer.BadParameter("Give either ids or --all.", param_hint="ID…")

    async def work() -> list[Outcome]:
        found = await letters(settings, WAITING if all_of_them else STATUSES, tenant)
        wanted = found if all_of_them else chosen(found, ids)
        async with connected(settings) as client:
            outcomes = []
            for letter in wanted:
                of_its_tenant = Client(client.connection, letter["tenant_id"])
                outcomes.append(await of_its_tenant.send(command, {"dead_letter": letter["id"]}, wait=wait))
            return outcomes

    outcomes = run(work())
    for outcome in outcomes:
        terminal.show_outcome(outcome, as_json)
    if not outcomes and not as_json:
        say("No dead letters are waiting.")
    if any(outcome["status"] == "rejected" for outcome in outcomes):
        raise typer.Exit(1)


async def letters(settings: Settings, statuses: list[str], tenant: str | None) -> list[Letter]:
    """Rows of the table, newest last. Raises: Failed."""
    query = """
        SELECT * FROM headrace.dead_letters
        WHERE status = ANY(%(statuses)s) AND tenant_id = coalesce(%(tenant)s, tenant_id) ORDER BY updated_at, id
    """
    return await rows(settings, query, statuses=statuses, tenant=tenant)


def chosen(found: list[Letter], ids: list[str]) -> list[Letter]:
    """The dead letters with these ids. Raises: Failed."""
    known = {letter["id"]: letter for letter in found}
    if unknown := [id for id in ids if id not in known]:
        raise Failed(f"There is no dead letter {unknown[0]}; see `headrace dead list`.")
    return [known[id] for id in ids]


async def message_of(client: Client, letter: Letter) -> Letter:
    """Headers and payload of the message; None of both once it is gone. Raises: Failed."""
    try:
        kept = await JetStreamDeadLetters(client.connection).get(letter["consumer"], letter["id"])
    except Unavailable as error:
        raise Failed(str(error)) from error
    if kept is None:
        return {"headers": None, "payload": None}
    secret = letter["consumer"] == "commands" and CommandSubject.of(letter["subject"]).name.startswith(SECRET)
    payload = "(withheld: it may hold a key)" if secret else kept.data.decode(errors="replace")
    return {"headers": kept.headers, "payload": payload}
