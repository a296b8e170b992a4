"""Parts shared by all commands: options, connection, and exit."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from getpass import getpass
from importlib import import_module
from io import TextIOWrapper
from itertools import pairwise
from pathlib import Path
from tempfile import gettempdir
from typing import Annotated, Any, LiteralString, NoReturn, TypeVar

import typer

from adapters.jetstream.client import Client, NoOutcome, NotSent, Outcome, Rejected, Unreachable
from adapters.pinned import Altered
from handlers.ports.log import Unavailable
from ops import machine, terminal
from ops.bus import connect
from ops.logs import Redaction, secrets_of
from ops.roles import RoleFailed
from ops.servers.daemon import StartFailed, rotate
from ops.settings import READER, AlreadyRunning, InvalidSetting, NotRunning, Settings
from ops.terminal import emit

T = TypeVar("T")

app = typer.Typer(
    name="headrace",
    help="A backend for LLM applications on an event log.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

FILES = {
    "archive": ("archive", "restore"),
    "audio": ("transcribe", "speak"),
    "audit": ("audit",),
    "bus": ("send", "upload", "preview", "ask", "search", "tail", "sql", "asyncapi"),
    "deploy": ("setup", "ping"),
    "rebuild": ("rebuild",),
    "run": ("up", "down", "doctor", "env"),
    "worker": ("worker",),
    "account": ("account",),
    "tenant": ("tenant",),
    "key": ("key",),
    "provider": ("provider",),
    "toolset": ("toolset",),
    "dsl": ("dsl",),
    "workflow": ("workflow",),
    "runs": ("run",),
    "plugin": ("plugin",),
    "session": ("session",),
    "secret_key": ("rotate-key",),
    "verify": ("verify",),
    "blobs": ("blobs",),
    "dead": ("dead",),
    "index": ("index",),
    "limits": ("limits",),
    "route": ("route",),
    "mcp": ("mcp",),
    "toolset_login": ("toolset",),
    "toolset_users": ("toolset",),
    "quota": ("quota",),
    "nats": ("nats",),
    "postgres": ("postgres",),
    "quarantine": ("quarantine",),
    "sql_login": ("sql-login",),
    "viewer": ("viewer",),
}
"""Commands and groups of commands by file of this folder, in the order of the help."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Home = Annotated[Path | None, typer.Option(help="Data folder. [dim](HEADRACE_HOME, ./.headrace)[/]")]
Tenant = Annotated[str | None, typer.Option(help="Tenant. [dim](HEADRACE_TENANT, default)[/]")]
Wait = Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the outcome.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]


class Failed(Exception):
    """A command failed; the message states the reason."""


EXPECTED = (
    AlreadyRunning,
    Altered,
    Failed,
    InvalidSetting,
    NotRunning,
    NoOutcome,
    NotSent,
    RoleFailed,
    StartFailed,
    Unreachable,
)


@app.callback()
def headrace() -> None:
    """Keep the commands a group, also where only one is registered."""


def register(arguments: list[str]) -> None:
    """Import the file of the command that comes first; all of them where none is known, for help and advice."""
    wanted = [file for file, commands in FILES.items() if arguments[:1] and arguments[0] in commands]
    for file in wanted or FILES:
        import_module(f"ops.cli.{file}")


def all_commands() -> typer.Typer:
    """The command line with every command registered."""
    register([])
    return app


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Client]:
    async with await connect(settings.located("nats")) as client:
        yield client


async def rows(settings: Settings, query: LiteralString, **parameters: object) -> list[dict[str, Any]]:
    """The rows of a query, by a login that can only read. Raises: Failed."""
    import psycopg
    from psycopg.rows import dict_row

    url = settings.located("postgres", role=READER).postgres_url
    try:
        async with (
            await psycopg.AsyncConnection.connect(url, connect_timeout=5, row_factory=dict_row) as connection,
            connection.cursor() as cursor,
        ):
            await cursor.execute(query, parameters)
            return await cursor.fetchall()
    except psycopg.Error as error:
        raise Failed(of_postgres(error)) from error


def read_text(name: str, file: str) -> str:
    """A text from a file without its last line feed; for `-` from standard input, hidden in a terminal.

    Raises: Failed.
    """
    try:
        if file == "-" and sys.stdin.isatty():
            return getpass(f"{name}: ")
        return (sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")).removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise Failed(f"{file} cannot be read: {error}.") from error


def confirm(question: str, yes: bool) -> None:
    """Ask before something that cannot be undone, unless `yes`. Raises: Failed; Exit with 1, when the answer is no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Failed(f"{question} Confirm it with --yes.")
    typer.confirm(question, abort=True)


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def conclude(outcome: Outcome, as_json: bool) -> None:
    """Print the outcome of a command; exit with 1 if it was rejected."""
    terminal.show_outcome(outcome, as_json)
    if outcome["status"] == "rejected":
        raise typer.Exit(1)


async def outcome_of(settings: Settings, command: str, fields: dict[str, Any], wait: float) -> Outcome:
    """Send a command, and wait for its outcome."""
    async with connected(settings) as client:
        return await client.send(command, fields, wait=wait)


def send(
    command: str, fields: dict[str, Any], wait: float, tenant: str | None, home: Path | None, as_json: bool
) -> None:
    """Send a command, and print its outcome; exit with 1 if it was rejected."""
    settings = Settings.load(home=home, tenant=tenant)
    conclude(run(outcome_of(settings, command, fields, wait)), as_json)


async def until_stopped(work: Coroutine[Any, Any, None]) -> None:
    """Run until SIGINT or SIGTERM, then let the work clean up; further signals do not interrupt that."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    stopping = False

    def stop() -> None:
        nonlocal stopping
        if not stopping:
            stopping = True
            task.cancel()

    with suppress(RuntimeError, ValueError):  # only the main thread receives signals
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
    with suppress(asyncio.CancelledError):
        await task


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # UTF-8 whatever the locale, and any bytes of a path
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    try:
        register(arguments)
        app(args=arguments, prog_name="headrace")
    except Rejected as error:
        terminal.show_outcome(error.outcome, "--json" in arguments)
        sys.exit(1)
    except EXPECTED as error:
        code = "".join(f"_{char.lower()}" if char.isupper() else char for char in type(error).__name__).strip("_")
        fail(getattr(error, "code", code), str(error), "--json" in arguments)
    except Exception as error:
        explain(error, "--json" in arguments)


def fail(code: str, message: str, as_json: bool) -> NoReturn:
    if as_json:
        emit({"error": {"code": code, "message": message}})
    else:
        terminal.complain(message)
    sys.exit(1)


def explain(error: Exception, as_json: bool) -> NoReturn:
    """Exit with the fault of the machine, or with the file that has the traceback of an unexpected error."""
    if isinstance(error, ImportError):
        fail("missing_package", f"A package cannot be imported: {error} (details in {keep(error)})", as_json)
    if isinstance(error, OSError) and (error.filename or error.errno in machine.ADVICE):
        place = os.fsdecode(error.filename or home())
        fail("unusable_file", f"{place} cannot be used: {machine.fault(error.errno)}.", as_json)
    import psycopg
    from nats import errors

    if isinstance(error, psycopg.Error):
        fail("postgres", of_postgres(error), as_json)
    if isinstance(error, Unavailable | errors.Error):
        fail("unreachable", terminal.one_line(error) or f"NATS does not answer ({error!r}).", as_json)
    if isinstance(error, MemoryError):
        fail("no_memory", f"The machine has not enough memory (details in {keep(error)})", as_json)
    note = f"Unexpected error ({type(error).__name__}); details in {keep(error)}"
    fail("unforeseen", note, as_json)


def of_postgres(error: Exception) -> str:
    """An error of PostgreSQL in its own words, and what to do about it if that is known."""
    said = str(error)
    advice = next((advice for sign, advice in _POSTGRES.items() if sign in said), "")
    return f"PostgreSQL: {terminal.one_line(error)}{advice and f' → {advice}.'}"


_POSTGRES = {
    "password authentication failed": "check the user of HEADRACE_POSTGRES_URL and HEADRACE_POSTGRES_PASSWORD",
    "no pg_hba.conf entry": "have PostgreSQL accept this user from this machine, or correct HEADRACE_POSTGRES_URL",
    "failed to resolve": "correct the host of HEADRACE_POSTGRES_URL",
    "Connection refused": "start it, or correct HEADRACE_POSTGRES_URL",
    "does not exist": "run `headrace setup`, or start a worker of the role project",
    "permission denied": "give its user this right, or use another one",
    "extension": "install pgvector on its machine",
    "No space left on device": "free some space on its disk",
    "too many clients": "raise max_connections, or stop some workers",
}
"""What to do, by words of an error of PostgreSQL or of its driver."""


def keep(error: Exception) -> Path:
    """Append the traceback to the log of the command line, else to a file in the temporary folder. Return its path."""
    path = home() / "log" / "cli.log"
    try:
        return _append(path, error)
    except OSError:
        return _append(Path(gettempdir()) / "headrace-cli.log", error)


def home() -> Path:
    """The data directory of this command line."""
    given = [after for option, after in pairwise(sys.argv) if option == "--home"]
    given += [option.removeprefix("--home=") for option in sys.argv if option.startswith("--home=")]
    try:
        return Settings.load(home=Path(given[-1]) if given else None).home
    except InvalidSetting:
        return Path(".headrace").absolute()


def _redaction() -> Redaction:
    try:
        return Redaction(secrets_of(Settings.load()))
    except InvalidSetting:
        return Redaction()


def _append(path: Path, error: Exception) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rotate(path)
    text = _redaction().text("".join(traceback.format_exception(error)))
    with open(path, "a", encoding="utf-8", errors="backslashreplace", opener=_private) as file:
        file.write(f"{datetime.now(UTC).isoformat()} {' '.join(sys.argv[:2])}\n{text}\n")
    return path


def _private(path: str, flags: int) -> int:
    """Open a file for its owner alone, and no file elsewhere that a link in a shared folder names."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
