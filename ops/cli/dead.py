"""Commands about dead letters."""

from __future__ import annotations

from typing import Annotated, Any

import psycopg
import typer
from psycopg.rows import dict_row

from adapters.jetstream.client import Client, Outcome
from adapters.jetstream.workers.dead_letters import JetStreamDeadLetters
from handlers.ports.log import Unavailable
from ops import terminal
from ops.cli.frame import Failed, Home, Json, Wait, app, connected, run
from ops.settings import Settings
from ops.terminal import emit, one_line, say

Letter = dict[str, Any]

WAITING = ["buried", "returned"]
STATUSES = [*WAITING, "retried", "discarded"]

Ids = Annotated[list[str] | None, typer.Argument(help="Letters, by their ids.", metavar="ID…", show_default=False)]
OneTenant = Annotated[str | None, typer.Option("--tenant", help="Only this tenant's; none: those of all tenants.")]
All = Annotated[bool, typer.Option("--all", help="All that wait.")]

dead = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(dead, name="dead", help="See what no worker could handle, and try it again or give it up.")


@dead.command(
    "list",
    epilog="Examples: [bold]headrace dead list[/] · [bold]headrace dead list --status retried --json[/]",
)
def list_letters(
    status: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(STATUSES)}; may be repeated. None: those that wait.")
    ] = None,
    tenant: OneTenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """List the dead letters of all tenants, or of one, the newest last."""
    for name in status or []:
        if name not in STATUSES:
            raise typer.BadParameter(f"{name!r} is not one of {', '.join(STATUSES)}.", param_hint="--status")
    found = run(letters(Settings.load(home=home), status or WAITING, tenant))
    if as_json:
        for letter in found:
            emit(letter)
        return
    columns = ["id", "tenant_id", "consumer", "subject", "status", "retries", "updated_at", "reason"]
    terminal.show_rows(columns, [tuple(letter[column] for column in columns) for letter in found])


@dead.command(epilog="Example: [bold]headrace dead show ID[/]")
def show(
    id: Annotated[str, typer.Argument(help="The letter's id.", metavar="ID")],
    tenant: OneTenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Show all that is known of a letter, and the message as it came; the payload of provider.* is withheld."""
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
    """Try letters once more: a command keeps its id and has a second outcome, a document is worked at anew."""
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
    """Give letters up: what was sent is deleted. That it was, and what it died of, stays on record."""
    decide("dead_letter.discard", ids or [], all_of_them, wait, Settings.load(home=home), tenant, as_json)


def decide(
    command: str, ids: list[str], all_of_them: bool, wait: float, settings: Settings, tenant: str | None, as_json: bool
) -> None:
    """Send a command for each of the letters, for its tenant, and print the outcomes."""
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
        if as_json:
            emit(outcome)
        else:
            terminal.show_outcome(outcome)
    if not outcomes and not as_json:
        say("No dead letter waits.")
    if any(outcome["status"] == "rejected" for outcome in outcomes):
        raise typer.Exit(1)


async def letters(settings: Settings, statuses: list[str], tenant: str | None) -> list[Letter]:
    """The rows of the table, the newest last. Raises: Failed."""
    query = """
        SELECT * FROM headrace.dead_letters
        WHERE status = ANY(%(statuses)s) AND tenant_id = coalesce(%(tenant)s, tenant_id) ORDER BY updated_at, id
    """
    url = settings.located("postgres").postgres_url
    try:
        async with (
            await psycopg.AsyncConnection.connect(url, connect_timeout=5, row_factory=dict_row) as connection,
            connection.cursor() as cursor,
        ):
            await cursor.execute(query, {"statuses": statuses, "tenant": tenant})
            return await cursor.fetchall()
    except psycopg.Error as error:
        raise Failed(f"PostgreSQL: {one_line(error)}") from error


def chosen(found: list[Letter], ids: list[str]) -> list[Letter]:
    """The letters of these ids. Raises: Failed."""
    known = {letter["id"]: letter for letter in found}
    if unknown := [id for id in ids if id not in known]:
        raise Failed(f"There is no dead letter {unknown[0]}; `headrace dead list` shows those there are.")
    return [known[id] for id in ids]


async def message_of(client: Client, letter: Letter) -> Letter:
    """Headers and payload of the message, as long as it waits. Raises: Failed."""
    try:
        kept = await JetStreamDeadLetters(client.connection).get(letter["consumer"], letter["id"])
    except Unavailable as error:
        raise Failed(str(error)) from error
    if kept is None:
        return {"headers": None, "payload": None}
    secret = letter["consumer"] == "commands" and letter["subject"].split(".")[2:3] == ["provider"]
    payload = "(withheld: it may hold a key)" if secret else kept.data.decode(errors="replace")
    return {"headers": kept.headers, "payload": payload}
