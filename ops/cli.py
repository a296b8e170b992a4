"""The command line: `headrace`."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import psycopg
import typer
import uvloop

from ops import supervisor, telemetry, terminal
from ops.client import Client, Frame, NoOutcome, NotSent, Outcome, Rejected, Unreachable
from ops.daemon import StartFailed
from ops.roles import ROLES
from ops.settings import InvalidSetting, NotRunning, Settings
from ops.terminal import emit, say

T = TypeVar("T")

app = typer.Typer(
    name="headrace",
    help="A backend for LLM applications on an event log.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Home = Annotated[Path | None, typer.Option(help="Folder of the data. [dim](HEADRACE_HOME, ./.headrace)[/]")]
Tenant = Annotated[str | None, typer.Option(help="Tenant to speak for. [dim](HEADRACE_TENANT, default)[/]")]
Wait = Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the outcome.")]


class Failed(Exception):
    """What was asked did not happen; the message says why."""


EXPECTED = (
    Failed,
    InvalidSetting,
    NotRunning,
    NoOutcome,
    NotSent,
    StartFailed,
    Unreachable,
    supervisor.AlreadyRunning,
)


# --- running it --------------------------------------------------------------------------------------------------


@app.command(epilog="Examples: [bold]headrace up[/] · [bold]headrace up --detach --home /srv/headrace[/]")
def up(
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when everything is ready, and leave it running.")
    ] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Start everything on this machine: NATS and PostgreSQL where none are set, and a worker for each role."""
    settings = Settings.load(home=home)
    if not detach:
        telemetry.configure(settings)
        tell = (lambda step: emit({"step": step})) if as_json else say
        run(until_told(supervisor.Supervisor(settings, tell).run()))
        return
    with terminal.out.status("starting"):
        fresh = run(supervisor.detach(settings))
    if as_json:
        emit(settings.running())
    else:
        say("Headrace is ready." if fresh else "Headrace runs already.")
        terminal.show_addresses(settings)


@app.command(epilog="Example: [bold]headrace down[/]")
def down(home: Home = None, as_json: Json = False) -> None:
    """Stop everything that [bold]headrace up[/] has started; the data stay."""
    settings = Settings.load(home=home)
    stopped = run(supervisor.down(settings))
    if as_json:
        emit({"stopped": stopped})
    else:
        say("Headrace is stopped." if stopped else f"Nothing runs on {settings.home}.")


@app.command(epilog="Example: [bold]headrace worker --role ingest[/]")
def worker(
    role: Annotated[str, typer.Option(help=f"{', '.join(ROLES)}, or all.")],
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Run one worker until it is told to stop. Start as many as you like, on any machine."""
    if role not in (*ROLES, "all"):
        raise typer.BadParameter(f"{role!r} is not one of {', '.join(ROLES)}, all.", param_hint="--role")
    settings = Settings.load(home=home, log_format="json" if as_json else None).located()
    telemetry.configure(settings)
    from ops.worker import run as run_role

    uvloop.run(run_role(role, settings))


@app.command(epilog="Examples: [bold]headrace rebuild[/] · [bold]headrace rebuild documents messages[/]")
def rebuild(
    names: Annotated[list[str] | None, typer.Argument(help="Tables; none: all.", show_default=False)] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Make tables anew from the log, beside the live ones, and swap them in."""
    settings = Settings.load(home=home).located()
    from ops.rebuild import rebuild as run_rebuild

    with terminal.bars(as_json) as progress:
        tasks: dict[str, Any] = {}

        def advance(stream: str, done: int, total: int) -> None:
            if stream not in tasks:
                tasks[stream] = progress.add_task(stream, total=total)
            progress.update(tasks[stream], completed=done, total=total)

        try:
            rebuilt = run(run_rebuild(settings, names or [], advance))
        except KeyError as error:
            raise Failed(f"There is no table {error.args[0]!r}.") from error
    if as_json:
        emit({"rebuilt": rebuilt})
    else:
        say(f"Rebuilt: {', '.join(rebuilt)}.")


@app.command(epilog="Examples: [bold]headrace doctor[/] · [bold]headrace doctor --json | jq 'select(.good | not)'[/]")
def doctor(home: Home = None, as_json: Json = False) -> None:
    """Say what is reachable, in which version, how far behind, what is wrong, and what to do about it."""
    settings = Settings.load(home=home)
    from ops.doctor import examine

    async def look() -> bool:
        good = True
        async for finding in examine(settings):
            good = good and finding.good
            if as_json:
                emit(asdict(finding))
            else:
                terminal.show_finding(finding)
        return good

    if not run(look()):
        raise typer.Exit(1)


@app.command(
    epilog="Examples: [bold]headrace asyncapi > asyncapi.json[/] · [bold]headrace asyncapi --schemas docs/schemas[/]"
)
def asyncapi(
    schemas: Annotated[
        Path | None, typer.Option(help="Write a JSON Schema for every command and event into this folder instead.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the AsyncAPI 3 document: every command, event, outcome and live frame."""
    from ops.asyncapi import document, write_schemas

    if schemas is None:
        sys.stdout.write(json.dumps(document(), indent=None if as_json else 2, ensure_ascii=False) + "\n")
        return
    written = write_schemas(schemas)
    if as_json:
        emit({"written": [str(path) for path in written]})
    else:
        say(f"Wrote {len(written)} schemas to {schemas}.")


# --- using it ----------------------------------------------------------------------------------------------------


@app.command(
    epilog="Examples: [bold]headrace send app.create name=Porter[/] · "
    "[bold]headrace send app.configure app=ID model.provider=openai model.name=gpt-5 datasets:='\\[\"ID\"]'[/] · "
    "[bold]headrace send dataset.create --data dataset.json[/]"
)
def send(
    name: Annotated[str, typer.Argument(help="The command, as <noun>.<verb>.", metavar="NOUN.VERB")],
    pairs: Annotated[
        list[str] | None,
        typer.Argument(help="key=text or key:=JSON; a.b=… goes inside a.", metavar="KEY=VALUE…", show_default=False),
    ] = None,
    data: Annotated[str | None, typer.Option(help="A file with the payload as JSON; - is the standard input.")] = None,
    id: Annotated[str | None, typer.Option(help="The command's id, a UUID: the same id again changes nothing.")] = None,
    wait: Wait = 10.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Send a command and print its outcome; the id of what it creates is in it."""
    settings = Settings.load(home=home, tenant=tenant)
    payload = merged(read_payload(data) if data else {}, pairs or [])

    async def work() -> Outcome:
        async with connected(settings) as client:
            return await client.send(name, payload, id, wait)

    outcome = run(work())
    if as_json:
        emit(outcome)
    else:
        terminal.show_outcome(outcome)
    if outcome["status"] == "rejected":
        raise typer.Exit(1)


@app.command(
    epilog="Examples: [bold]headrace upload handbook/ --dataset ID --wait[/] · "
    "[bold]headrace upload a.pdf b.md --dataset ID[/]"
)
def upload(
    paths: Annotated[list[Path], typer.Argument(help="Files, or folders with all that is in them.")],
    dataset: Annotated[str, typer.Option(help="The dataset's id.")],
    wait: Annotated[bool, typer.Option("--wait", help="Wait until every document can be found.")] = False,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Upload files into a dataset."""
    from ops.upload import Upload

    settings = Settings.load(home=home, tenant=tenant)
    files = list(files_in(paths))

    async def work() -> list[dict[str, Any]]:
        with terminal.bars(as_json) as progress:
            async with connected(settings) as client:
                job = Upload(client, dataset, progress)
                await job.send(files)
                if wait:
                    await job.follow()
                return job.documents

    documents = run(work())
    for document in documents:
        if as_json:
            emit(document)
        else:
            terminal.show_document(document)
    if any(document["status"] in ("rejected", "error") for document in documents):
        raise typer.Exit(1)


@app.command(
    epilog='Examples: [bold]headrace ask APP "How long is the oil boom?"[/] · '
    '[bold]headrace ask APP "And in winter?" --conversation ID --input season=winter[/]'
)
def ask(
    app_id: Annotated[str, typer.Argument(help="The app's id.", metavar="APP")],
    question: Annotated[str, typer.Argument(help="What to ask.")],
    conversation: Annotated[str | None, typer.Option(help="Go on with this conversation.")] = None,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", help="A variable of the app, as name=value; may be repeated.")
    ] = None,
    user: Annotated[str, typer.Option(help="Who asks.")] = "cli",
    patience: Annotated[float, typer.Option(min=1, help="Seconds of silence after which to give up.")] = 300.0,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Ask an app, and print its answer as it comes, then what it cites."""
    settings = Settings.load(home=home, tenant=tenant)
    values = {name: str(value) for name, value in merged({}, inputs or []).items()}

    async def work() -> Frame:
        printer = terminal.AnswerPrinter()
        frame: Frame = {}
        async with connected(settings) as client:
            async for frame in client.ask(
                app_id, question, conversation=conversation, inputs=values, user=user, patience=patience
            ):
                if as_json:
                    emit(frame)
                else:
                    printer.show(frame)
        return frame

    try:
        last = run(work())
    except Rejected as error:
        if as_json:
            emit(error.outcome)
        else:
            terminal.show_outcome(error.outcome)
        raise typer.Exit(1) from None
    if last["type"] != "answered":
        raise typer.Exit(1)


@app.command(epilog="Examples: [bold]headrace tail[/] · [bold]headrace tail --noun document --since 1 --json[/]")
def tail(
    noun: Annotated[str | None, typer.Option(help="Only this noun: app, dataset, document, conversation …")] = None,
    since: Annotated[int | None, typer.Option(min=1, help="Begin at this sequence of the log, not now.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after so many commits.")] = None,
    tenant: Tenant = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Print the tenant's events as they happen."""
    settings = Settings.load(home=home, tenant=tenant)

    async def work() -> None:
        seen = 0
        async with connected(settings) as client, aclosing(client.commits(noun or "*", since=since)) as commits:
            async for commit in commits:
                if as_json:
                    emit(asdict(commit))
                else:
                    terminal.show_commit(commit)
                seen += 1
                if seen == count:
                    break

    run(until_told(work()))


@app.command(
    epilog='Examples: [bold]headrace sql "select name, indexing_status from headrace.documents"[/] · '
    '[bold]headrace sql --json "select * from headrace.model_calls"[/]'
)
def sql(
    query: Annotated[str, typer.Argument(help="One statement; it can only read.")],
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Run a query on the read tables, as the role headrace_reader."""
    url = Settings.load(home=home).located("postgres").postgres_url
    names, rows = run(read_tables(url, query))
    if as_json:
        for row in rows:
            emit(dict(zip(names, row, strict=True)))
        return
    terminal.show_rows(names, rows)


async def read_tables(url: str, query: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """The column names and rows of one statement. Raises: Failed."""
    try:
        async with await psycopg.AsyncConnection.connect(url, connect_timeout=5) as connection:
            await connection.set_read_only(True)
            await connection.execute("SET LOCAL ROLE headrace_reader; SET LOCAL search_path = headrace, public")
            cursor = connection.cursor()
            # prepared, because a prepared statement can only be one: what follows a semicolon is refused
            await cursor.execute(query.encode(), prepare=True)
            names = [column.name for column in cursor.description or []]
            return names, await cursor.fetchall() if names else []
    except psycopg.Error as error:
        raise Failed(f"PostgreSQL: {' '.join(str(error).split())}") from error


# --- what goes in ------------------------------------------------------------------------------------------------


def merged(payload: dict[str, Any], pairs: Iterable[str]) -> dict[str, Any]:
    """The payload with `key=text` and `key:=JSON` put in; `a.b=…` goes inside `a`. Raises: BadParameter."""
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.rstrip(":"):
            raise typer.BadParameter(f"{pair!r} is not like key=text or key:=JSON.")
        value: Any = text
        if key.endswith(":"):
            key = key[:-1]
            try:
                value = json.loads(text)
            except ValueError:
                raise typer.BadParameter(f"{text!r}, the value of {key}, is not JSON.") from None
        *outer, last = key.split(".")
        place = payload
        for part in outer:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise typer.BadParameter(f"{key}: {part} is set to something else already.")
        place[last] = value
    return payload


def read_payload(data: str) -> dict[str, Any]:
    try:
        payload = json.loads(sys.stdin.read() if data == "-" else Path(data).read_text())
    except OSError as error:
        raise Failed(f"{data} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise Failed(f"{data} is not JSON: {error}.") from error
    if not isinstance(payload, dict):
        raise Failed(f"{data} does not hold a JSON object.")
    return payload


def files_in(paths: Iterable[Path]) -> Iterable[Path]:
    """The files, and those in the folders; hidden ones are left out. Raises: Failed."""
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.is_file())
            yield from (file for file in inside if not any(p.startswith(".") for p in file.relative_to(path).parts))
        elif path.is_file():
            yield path
        else:
            raise Failed(f"{path} does not exist.")


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Client]:
    located = settings.located("nats")
    async with await Client.connect(located.nats_url, located.tenant, credentials=located.nats_credentials) as client:
        yield client


# --- how it ends -------------------------------------------------------------------------------------------------


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


async def until_told(work: Coroutine[Any, Any, None]) -> None:
    """Run until SIGINT or SIGTERM, and let the work clean up after itself; later signals do not break into that."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    told = False

    def tell() -> None:
        nonlocal told
        if not told:
            told = True
            task.cancel()

    with suppress(RuntimeError, ValueError):  # only the main thread hears of signals
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, tell)
    with suppress(asyncio.CancelledError):
        await task


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        app(args=arguments, prog_name="headrace")
    except EXPECTED as error:
        code = "".join(f"_{char.lower()}" if char.isupper() else char for char in type(error).__name__).strip("_")
        fail(code, str(error), "--json" in arguments)
    except Exception as error:
        note = f"Something unforeseen happened ({type(error).__name__}); what it was is in {keep(error)}"
        fail("unforeseen", note, "--json" in arguments)


def fail(code: str, message: str, as_json: bool) -> None:
    if as_json:
        emit({"error": {"code": code, "message": message}})
    else:
        terminal.complain(message)
    sys.exit(1)


def keep(error: Exception) -> Path:
    """Write the traceback into the log of the command line."""
    try:
        home = Settings.load().home
    except InvalidSetting:
        home = Path(".headrace").absolute()
    path = home / "log" / "cli.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(
            f"{datetime.now(UTC).isoformat()} {' '.join(sys.argv[:2])}\n{''.join(traceback.format_exception(error))}\n"
        )
    return path


if __name__ == "__main__":
    main()
